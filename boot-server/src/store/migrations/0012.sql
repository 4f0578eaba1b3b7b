-- Pools and flavors, what machines are in the facts that flavors speak of, and server groups of projects.

CREATE TABLE pools (
    name    TEXT PRIMARY KEY,
    version BIGINT NOT NULL,           -- grows by one with every change
    changed BIGINT NOT NULL,
    body    TEXT NOT NULL              -- the pool as JSON
);
INSERT INTO pools (name, version, changed, body)
    VALUES ('default', 1, 0, '{"name":"default","description":"machines that were put into no other pool"}');

CREATE TABLE flavors (
    name    TEXT PRIMARY KEY,
    version BIGINT NOT NULL,
    changed BIGINT NOT NULL,
    body    TEXT NOT NULL              -- the flavor as JSON
);

-- Drawn from the inventory when it is stored, so that a start does not read every inventory.
CREATE TABLE hardware (
    node TEXT PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
    form BIGINT NOT NULL,              -- the way in which it was drawn; an older one is drawn anew
    body TEXT NOT NULL                 -- JSON
);

CREATE TABLE server_groups (
    id      TEXT PRIMARY KEY,
    project TEXT NOT NULL,
    name    TEXT NOT NULL,
    policy  TEXT NOT NULL,
    domain  TEXT NOT NULL,
    actor   TEXT NOT NULL,             -- who made it
    created BIGINT NOT NULL
);
CREATE UNIQUE INDEX server_groups_name ON server_groups (project, name);
