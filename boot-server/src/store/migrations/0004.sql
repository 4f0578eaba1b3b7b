-- Management controllers, one per node. Passwords are sealed (see `vault`): the database alone opens no controller.

CREATE TABLE bmcs (
    node          TEXT PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
    driver        TEXT NOT NULL,
    address       TEXT NOT NULL,       -- empty where the driver needs none
    port          BIGINT,              -- null for the protocol's own
    account       TEXT,                -- user name
    password      TEXT,                -- sealed
    next_password TEXT,                -- sealed; set while it is unknown which of the two is in force
    certificate   TEXT,                -- SHA-256 that is pinned, in hexadecimal
    options       TEXT NOT NULL,       -- JSON
    changed       BIGINT NOT NULL,     -- when a person last changed this row
    power         TEXT,                -- as it was last read
    last_seen     BIGINT,              -- when it last answered
    failures      BIGINT NOT NULL,     -- calls in a row that failed
    error         TEXT,                -- the last failure, in words; null where the last call went well
    reset_at      BIGINT               -- when the controller itself was last restarted
);
