-- DPUs, and the disks that they present.

CREATE TABLE dpus (
    id       TEXT PRIMARY KEY,
    name     TEXT NOT NULL UNIQUE,
    node     TEXT UNIQUE REFERENCES nodes (id) ON DELETE SET NULL,
    secret   TEXT UNIQUE,              -- SHA-256 of what it proves itself with
    token    TEXT UNIQUE,              -- SHA-256 of what it may come in with
    version  BIGINT NOT NULL,
    body     TEXT NOT NULL,
    desired  TEXT,                     -- sealed: it has passwords of backends; with its generation
    observed TEXT
);

CREATE TABLE volumes (
    id      TEXT PRIMARY KEY,
    project TEXT NOT NULL,             -- kept when the project is closed
    name    TEXT NOT NULL,
    phase   TEXT NOT NULL,
    server  TEXT,
    dpu     TEXT,                      -- who was let in
    version BIGINT NOT NULL,
    body    TEXT NOT NULL,
    access  TEXT                       -- sealed: what its DPU connects to
);
CREATE INDEX volumes_project ON volumes (project, id);
CREATE INDEX volumes_server ON volumes (server);
CREATE INDEX volumes_dpu ON volumes (dpu);
CREATE UNIQUE INDEX volumes_name ON volumes (project, name) WHERE phase <> 'deleted';

CREATE TABLE snapshots (
    id      TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    volume  TEXT NOT NULL REFERENCES volumes (id),
    name    TEXT NOT NULL,
    body    TEXT NOT NULL,
    UNIQUE (project, name)
);
CREATE INDEX snapshots_volume ON snapshots (volume);
