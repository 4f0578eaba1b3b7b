-- Who may come in: projects, users, and who is what in which project.

CREATE TABLE projects (
    id      TEXT PRIMARY KEY,
    name    TEXT NOT NULL,             -- among those that are not closed, unique
    created BIGINT NOT NULL,
    closed  BIGINT,                    -- null until it is closed
    body    TEXT NOT NULL              -- JSON: description
);
CREATE UNIQUE INDEX projects_name ON projects (name) WHERE closed IS NULL;

CREATE TABLE users (
    id        TEXT PRIMARY KEY,
    name      TEXT NOT NULL UNIQUE,    -- never given to another person
    site_role TEXT,                    -- null where they may do nothing at the site
    created   BIGINT NOT NULL,
    disabled  BIGINT,                  -- null while they may sign in
    body      TEXT NOT NULL            -- JSON: full name
);

CREATE TABLE memberships (
    project TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    role    TEXT NOT NULL,
    since   BIGINT NOT NULL,
    PRIMARY KEY (project, user_id)
);

ALTER TABLE tokens ADD COLUMN project TEXT; -- null: good at the site
ALTER TABLE tokens ADD COLUMN maker TEXT;   -- the user who made it; null: the site's own token did
