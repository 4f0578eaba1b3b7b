-- Which functions hosts of new DPUs get, by the model of their DPU. The plan of a DPU that is there is with the DPU.

CREATE TABLE dpu_models (
    model   TEXT PRIMARY KEY,
    version BIGINT NOT NULL,           -- stays when the plan goes
    plan    TEXT                       -- JSON; none: they get none
);
