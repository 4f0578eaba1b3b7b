-- First schema. Only what SQLite and PostgreSQL share: text, 64-bit integers (moments are milliseconds since
-- 1970, UTC), JSON as text. Ids are given by the writer, never by the database.

CREATE TABLE nodes (
    id       TEXT PRIMARY KEY,
    name     TEXT NOT NULL UNIQUE,
    version  BIGINT NOT NULL,          -- grows by one with every change (optimistic concurrency)
    state    TEXT NOT NULL,
    deadline BIGINT,                   -- when waiting ends; null where the node waits for nothing
    body     TEXT NOT NULL             -- the node as JSON
);
CREATE INDEX nodes_deadline ON nodes (deadline) WHERE deadline IS NOT NULL;

CREATE TABLE inventories (
    node TEXT PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
    at   BIGINT NOT NULL,
    body TEXT NOT NULL
);

CREATE TABLE events (
    id       BIGINT PRIMARY KEY,
    at       BIGINT NOT NULL,
    node     TEXT,                     -- null where it happened to no node; kept when the node is gone
    actor    TEXT NOT NULL,
    kind     TEXT NOT NULL,
    severity TEXT NOT NULL,
    message  TEXT NOT NULL
);
CREATE INDEX events_node ON events (node, id);

CREATE TABLE effects (
    id      BIGINT PRIMARY KEY,
    node    TEXT NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    kind    TEXT NOT NULL,
    created BIGINT NOT NULL,
    done    BIGINT                     -- null until it was carried out
);
CREATE INDEX effects_open ON effects (id) WHERE done IS NULL;

CREATE TABLE leases (
    address TEXT PRIMARY KEY,          -- dotted quad
    expires BIGINT NOT NULL,
    body    TEXT NOT NULL              -- the lease as JSON
);

CREATE TABLE images (
    id      TEXT PRIMARY KEY,
    name    TEXT NOT NULL,
    version TEXT NOT NULL,
    added   BIGINT NOT NULL,
    origin  TEXT NOT NULL
);
CREATE INDEX images_name ON images (name, added);

CREATE TABLE idempotency (
    scope   TEXT NOT NULL,             -- which request, such as `deploy <node>`
    key     TEXT NOT NULL,
    request TEXT NOT NULL,             -- SHA-256 of what was asked
    answer  TEXT NOT NULL,
    at      BIGINT NOT NULL,
    PRIMARY KEY (scope, key)
);
CREATE INDEX idempotency_at ON idempotency (at);

CREATE TABLE settings (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);
