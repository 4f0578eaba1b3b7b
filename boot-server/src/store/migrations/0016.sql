-- What proves who a user is, and where they are signed in.

CREATE TABLE credentials (
    user_id   TEXT PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    password  TEXT,                    -- argon2id, PHC string; null where there is none
    totp      TEXT,                    -- sealed key of the second factor; null where there is none
    totp_step BIGINT,                  -- the last step whose code was used
    recovery  TEXT NOT NULL            -- JSON: SHA-256 of recovery codes that were not used
);

CREATE TABLE sessions (
    id      TEXT PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    sha256  TEXT NOT NULL UNIQUE,      -- of its secret
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL,
    source  TEXT NOT NULL,             -- address it began at
    agent   TEXT NOT NULL              -- what the browser or program calls itself
);

CREATE TABLE identities (
    issuer  TEXT NOT NULL,             -- an OpenID provider
    subject TEXT NOT NULL,             -- its name for the user, which it never gives to another
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    PRIMARY KEY (issuer, subject)
);
CREATE INDEX identities_user ON identities (user_id);
