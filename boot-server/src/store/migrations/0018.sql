-- Networks of projects: each thing in a row of its own, read whole at the start. What it is stands in its body; whose it is, how it is
-- called and, for ports, whose machine is plugged in, beside it.

CREATE TABLE networks (
    id      TEXT PRIMARY KEY,
    project TEXT NOT NULL,             -- the nil UUID: the site's own
    name    TEXT NOT NULL,             -- unique in the project, unless it is empty
    version BIGINT NOT NULL,           -- grows by one with every change
    created BIGINT NOT NULL,
    changed BIGINT NOT NULL,
    body    TEXT NOT NULL              -- JSON
);
CREATE UNIQUE INDEX networks_name ON networks (project, name) WHERE name <> '';

CREATE TABLE subnets (
    id      TEXT PRIMARY KEY,
    project TEXT NOT NULL,             -- the nil UUID: the site's own
    name    TEXT NOT NULL,             -- unique in the project, unless it is empty
    version BIGINT NOT NULL,           -- grows by one with every change
    created BIGINT NOT NULL,
    changed BIGINT NOT NULL,
    body    TEXT NOT NULL              -- JSON
);
CREATE UNIQUE INDEX subnets_name ON subnets (project, name) WHERE name <> '';

CREATE TABLE ports (
    id      TEXT PRIMARY KEY,
    project TEXT NOT NULL,             -- the nil UUID: the site's own
    name    TEXT NOT NULL,             -- unique in the project, unless it is empty
    version BIGINT NOT NULL,           -- grows by one with every change
    created BIGINT NOT NULL,
    changed BIGINT NOT NULL,
    server  TEXT,                      -- whose machine is plugged in; null: nobody's
    body    TEXT NOT NULL              -- JSON
);
CREATE UNIQUE INDEX ports_name ON ports (project, name) WHERE name <> '';
CREATE INDEX ports_server ON ports (server) WHERE server IS NOT NULL;

CREATE TABLE security_groups (
    id      TEXT PRIMARY KEY,
    project TEXT NOT NULL,             -- the nil UUID: the site's own
    name    TEXT NOT NULL,             -- unique in the project, unless it is empty
    version BIGINT NOT NULL,           -- grows by one with every change
    created BIGINT NOT NULL,
    changed BIGINT NOT NULL,
    body    TEXT NOT NULL              -- JSON
);
CREATE UNIQUE INDEX security_groups_name ON security_groups (project, name) WHERE name <> '';

CREATE TABLE routers (
    id      TEXT PRIMARY KEY,
    project TEXT NOT NULL,             -- the nil UUID: the site's own
    name    TEXT NOT NULL,             -- unique in the project, unless it is empty
    version BIGINT NOT NULL,           -- grows by one with every change
    created BIGINT NOT NULL,
    changed BIGINT NOT NULL,
    body    TEXT NOT NULL              -- JSON
);
CREATE UNIQUE INDEX routers_name ON routers (project, name) WHERE name <> '';

CREATE TABLE floating (
    id      TEXT PRIMARY KEY,
    project TEXT NOT NULL,             -- the nil UUID: the site's own
    name    TEXT NOT NULL,             -- unique in the project, unless it is empty
    version BIGINT NOT NULL,           -- grows by one with every change
    created BIGINT NOT NULL,
    changed BIGINT NOT NULL,
    body    TEXT NOT NULL              -- JSON
);
CREATE UNIQUE INDEX floating_name ON floating (project, name) WHERE name <> '';

CREATE TABLE mirrors (
    id      TEXT PRIMARY KEY,
    project TEXT NOT NULL,             -- the nil UUID: the site's own
    name    TEXT NOT NULL,             -- unique in the project, unless it is empty
    version BIGINT NOT NULL,           -- grows by one with every change
    created BIGINT NOT NULL,
    changed BIGINT NOT NULL,
    body    TEXT NOT NULL              -- JSON
);
CREATE UNIQUE INDEX mirrors_name ON mirrors (project, name) WHERE name <> '';
