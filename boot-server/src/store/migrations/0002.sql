-- Addresses that DHCPv6 lent, beside those of DHCPv4.

CREATE TABLE leases6 (
    address TEXT PRIMARY KEY,          -- as RFC 5952 writes it
    expires BIGINT NOT NULL,
    body    TEXT NOT NULL              -- the lease as JSON
);
