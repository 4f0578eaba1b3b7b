-- Controllers of DPUs, and what was done by them.
CREATE TABLE dpu_controllers (
    dpu  TEXT PRIMARY KEY REFERENCES dpus (id) ON DELETE CASCADE,
    body TEXT NOT NULL                 -- JSON, with the password sealed
);

CREATE TABLE dpu_jobs (
    id     TEXT PRIMARY KEY,
    dpu    TEXT NOT NULL REFERENCES dpus (id) ON DELETE CASCADE,
    ended  BIGINT NOT NULL,            -- 1 where it is over
    secret TEXT,                       -- what the DPU is handed, sealed
    body   TEXT NOT NULL               -- JSON
);
CREATE UNIQUE INDEX dpu_jobs_open ON dpu_jobs (dpu) WHERE ended = 0;
