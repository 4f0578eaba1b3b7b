-- Named tokens: who may come in beside the site's own token. Only hashes are kept.

CREATE TABLE tokens (
    id      TEXT PRIMARY KEY,
    name    TEXT NOT NULL,             -- of those that hold, unique; checked by the writer
    sha256  TEXT NOT NULL UNIQUE,
    role    TEXT NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT,                    -- null where it does not end by itself
    revoked BIGINT                     -- null until somebody ends it
);

-- Where the serial console of a node is, if that was said.

CREATE TABLE consoles (
    node TEXT PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
    body TEXT NOT NULL                 -- the source as JSON
);
