-- Where it was asked for, and whose it is.

ALTER TABLE events ADD COLUMN source TEXT;   -- address; null where the server or a machine did it by itself
ALTER TABLE events ADD COLUMN project TEXT;  -- whose people see it; kept when the project is gone
CREATE INDEX events_project ON events (project, id);
