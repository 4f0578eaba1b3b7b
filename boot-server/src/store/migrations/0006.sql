-- What sensors of a machine measured. Rows are small (see core, `bmc::history`): one per reading, or one per window.

CREATE TABLE sensors (
    id      BIGINT PRIMARY KEY,
    node    TEXT NOT NULL UNIQUE REFERENCES nodes (id) ON DELETE CASCADE,
    body    TEXT NOT NULL,             -- JSON: the sensors; the place in the list is the number of a sensor
    health  TEXT                       -- JSON: the health that was last read, and why
);

CREATE TABLE sensor_samples (
    sensors BIGINT NOT NULL REFERENCES sensors (id) ON DELETE CASCADE,
    at      BIGINT NOT NULL,
    body    BLOB NOT NULL,
    PRIMARY KEY (sensors, at)
);

CREATE TABLE sensor_windows (
    sensors BIGINT NOT NULL REFERENCES sensors (id) ON DELETE CASCADE,
    at      BIGINT NOT NULL,           -- its begin
    body    BLOB NOT NULL,
    PRIMARY KEY (sensors, at)
);
