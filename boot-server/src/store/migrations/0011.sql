-- What installed OSes may ask of their own server. A row lives as long as the OS of its phone-home token may run.

CREATE TABLE instances (
    token      TEXT PRIMARY KEY,       -- SHA-256 of the token in the OS's URL
    phone_home TEXT NOT NULL,          -- SHA-256 of the token that it phones home with
    node       TEXT NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
    created    BIGINT NOT NULL,
    sealed     TEXT NOT NULL           -- JSON, sealed: user data, keys, host name
);

CREATE INDEX instances_node ON instances (node, created);
