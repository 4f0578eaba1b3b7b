-- Expected hardware: what machines of a model are made of, and how they are cabled.

CREATE TABLE models (
    name    TEXT PRIMARY KEY,
    changed BIGINT NOT NULL,
    body    TEXT NOT NULL              -- the model as JSON
);

-- Machines that are expected, until they come; and by what each is known when it boots.

CREATE TABLE expected_nodes (
    name      TEXT PRIMARY KEY,
    announced BIGINT NOT NULL,
    body      TEXT NOT NULL            -- the machine as JSON
);

CREATE TABLE expected_keys (
    key  TEXT PRIMARY KEY,             -- such as `mac 52:54:00:12:34:56`, `serial 5cg123`
    name TEXT NOT NULL REFERENCES expected_nodes (name) ON DELETE CASCADE
);

-- The newest deploy of each node as it was asked for, sealed: a machine that takes its part is deployed by it.

CREATE TABLE last_deploys (
    node TEXT PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
    at   BIGINT NOT NULL,
    body TEXT NOT NULL                 -- sealed JSON
);
