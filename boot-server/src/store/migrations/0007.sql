-- Named baselines of BIOS attributes, Secure Boot and firmware.

CREATE TABLE baselines (
    name    TEXT PRIMARY KEY,
    changed BIGINT NOT NULL,
    body    TEXT NOT NULL              -- the baseline as JSON
);
