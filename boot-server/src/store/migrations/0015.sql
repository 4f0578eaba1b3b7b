-- The audit: a chain in which each entry is hashed with the one before it (see core, `audit`). Nothing updates a row.

CREATE TABLE audit (
    number  BIGINT PRIMARY KEY,        -- from 1, without holes but at the beginning
    at      BIGINT NOT NULL,
    kind    TEXT NOT NULL,
    actor   TEXT NOT NULL,
    who     TEXT,                      -- id of the token or user
    role    TEXT,
    source  TEXT,                      -- address
    what    TEXT NOT NULL,             -- method and template of the path, or kind of the event
    object  TEXT,                      -- the path
    node    TEXT,
    project TEXT,
    request TEXT,                      -- what one request caused has the same
    digest  TEXT,                      -- keyed hash of the body
    status  BIGINT,
    outcome TEXT NOT NULL,
    hash    TEXT NOT NULL
);
CREATE INDEX audit_actor ON audit (actor, number);
CREATE INDEX audit_node ON audit (node, number);
CREATE INDEX audit_project ON audit (project, number);
CREATE INDEX audit_request ON audit (request);

-- `head`: the end of the chain. `anchor`: the last entry that was forgotten; the chain begins behind it.
CREATE TABLE audit_chain (
    name   TEXT PRIMARY KEY,
    number BIGINT NOT NULL,
    hash   TEXT NOT NULL
);
INSERT INTO audit_chain (name, number, hash)
    VALUES ('head', 0, '0000000000000000000000000000000000000000000000000000000000000000');
INSERT INTO audit_chain (name, number, hash)
    VALUES ('anchor', 0, '0000000000000000000000000000000000000000000000000000000000000000');

-- Heads that were signed.
CREATE TABLE audit_checkpoints (
    number     BIGINT PRIMARY KEY,
    hash       TEXT NOT NULL,
    at         BIGINT NOT NULL,
    public_key TEXT NOT NULL,
    signature  TEXT NOT NULL
);

-- Four eyes: what somebody asked for and somebody else must approve.
CREATE TABLE approvals (
    id       TEXT PRIMARY KEY,
    node     TEXT NOT NULL,            -- kept when the node is gone
    project  TEXT,
    status   TEXT NOT NULL,
    asked    BIGINT NOT NULL,
    expires  BIGINT NOT NULL,
    request  TEXT NOT NULL,            -- sealed: method, path, headers, body
    body     TEXT NOT NULL             -- the rest as JSON
);
CREATE INDEX approvals_status ON approvals (status, asked);
CREATE INDEX approvals_node ON approvals (node, asked);
