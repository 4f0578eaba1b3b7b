-- Accounts of Billet's own that agents make on management controllers: kept before the agent hears of the password.

CREATE TABLE bmc_accounts (
    node     TEXT PRIMARY KEY REFERENCES nodes (id) ON DELETE CASCADE,
    account  TEXT NOT NULL,            -- user name
    password TEXT NOT NULL,            -- sealed
    address  TEXT,                     -- of the controller; null until the agent says that it made the account
    ordered  BIGINT NOT NULL           -- when the password was made
);
