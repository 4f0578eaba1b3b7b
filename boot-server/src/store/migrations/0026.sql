-- Keys that sign images, and which of what they signed is too old.

CREATE TABLE trusted_keys (
    key       TEXT PRIMARY KEY,        -- the public key, as minisign has it
    role      TEXT NOT NULL,           -- site, vendor, former (the site's, until another followed) or forgotten
    title     TEXT NOT NULL,
    added     BIGINT NOT NULL,
    ended     BIGINT,                  -- when another took its place
    statement TEXT                     -- by which it named the one that followed it
);
CREATE TABLE image_floors (
    key    TEXT NOT NULL,
    name   TEXT NOT NULL,              -- of images
    number BIGINT NOT NULL,            -- the lowest that is taken
    PRIMARY KEY (key, name)
);
