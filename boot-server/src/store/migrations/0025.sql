-- What is certified of disks that were to be erased. A certificate outlives its node and its project: nothing refers to either.

CREATE TABLE certificates (
    id        TEXT PRIMARY KEY,        -- in the order in which they were issued
    node      TEXT NOT NULL,
    node_name TEXT NOT NULL,           -- then
    disk      TEXT NOT NULL,           -- its name in the job, or the kernel's
    serial    TEXT NOT NULL,           -- of the disk; empty where it has none
    job       TEXT NOT NULL,
    issued    BIGINT NOT NULL,
    body      TEXT NOT NULL,           -- JSON, as it was signed: never written anew
    signature TEXT                     -- in minisign's form; none where no key could be had
);
CREATE INDEX certificates_node ON certificates (node, id);
CREATE INDEX certificates_disk ON certificates (serial, id);
