-- Servers of projects, what they may have, what they used, and how well it was there.

CREATE TABLE servers (
    id           TEXT PRIMARY KEY,
    project      TEXT NOT NULL,
    name         TEXT NOT NULL,        -- a host name
    flavor       TEXT,                 -- null where a node was asked for by name
    node         TEXT NOT NULL,
    server_group TEXT,
    phase        TEXT NOT NULL,
    fault        BIGINT NOT NULL,      -- 1 while its machine is in fault
    note         TEXT,                 -- why it does not go on, or what it waits for
    actor        TEXT NOT NULL,        -- who asked for it
    created      BIGINT NOT NULL,
    active       BIGINT,               -- when its OS first came up
    deleted      BIGINT,               -- when its machine was given back
    version      BIGINT NOT NULL,      -- grows by one with every change
    amounts      TEXT NOT NULL,        -- JSON: what it counts for
    spec         TEXT NOT NULL         -- JSON: image, host name, keys, user data
);
-- The claim: a machine is lent once.
CREATE UNIQUE INDEX servers_node ON servers (node) WHERE deleted IS NULL;
CREATE UNIQUE INDEX servers_name ON servers (project, name) WHERE deleted IS NULL;
CREATE INDEX servers_project ON servers (project, id);

-- Every change of a server's phase or fault; availability is read from them.
CREATE TABLE server_marks (
    server  TEXT NOT NULL,
    version BIGINT NOT NULL,
    at      BIGINT NOT NULL,
    phase   TEXT NOT NULL,
    fault   BIGINT NOT NULL,
    PRIMARY KEY (server, version)
);

CREATE TABLE quotas (
    project TEXT PRIMARY KEY,
    limits  TEXT NOT NULL,             -- JSON
    turn    BIGINT NOT NULL            -- grows with every claim: whoever changes it has the project for itself
);

-- Begun and ended in the transaction that takes or gives back; what is open counts against the quota.
CREATE TABLE usage_records (
    kind       TEXT NOT NULL,          -- server, volume, network
    resource   TEXT NOT NULL,          -- its id
    project    TEXT NOT NULL,
    name       TEXT NOT NULL,
    flavor     TEXT,
    started    BIGINT NOT NULL,
    ended      BIGINT,                 -- null while it is in use
    servers    BIGINT NOT NULL,
    cores      BIGINT NOT NULL,
    memory_mib BIGINT NOT NULL,
    disks      BIGINT NOT NULL,
    volumes    BIGINT NOT NULL,
    volume_gib BIGINT NOT NULL,
    networks   BIGINT NOT NULL,
    addresses  BIGINT NOT NULL,
    PRIMARY KEY (kind, resource, started)
);
CREATE INDEX usage_open ON usage_records (project) WHERE ended IS NULL;
CREATE INDEX usage_time ON usage_records (started);

CREATE TABLE project_keys (
    project     TEXT NOT NULL,
    name        TEXT NOT NULL,
    public_key  TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    actor       TEXT NOT NULL,
    created     BIGINT NOT NULL,
    PRIMARY KEY (project, name)
);

-- What users say is wrong with their servers.
CREATE TABLE fault_reports (
    id      TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    server  TEXT NOT NULL,
    node    TEXT NOT NULL,
    at      BIGINT NOT NULL,
    actor   TEXT NOT NULL,
    words   TEXT NOT NULL,
    closed  BIGINT,
    answer  TEXT                       -- what came of it
);
CREATE INDEX fault_reports_project ON fault_reports (project, id);
CREATE INDEX fault_reports_open ON fault_reports (node) WHERE closed IS NULL;
