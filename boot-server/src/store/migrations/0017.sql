-- Whose a lease is, so that the addresses of one machine are found among those of ten thousand.

ALTER TABLE leases ADD COLUMN client TEXT;   -- as in the body; null in rows from before, until they are stored again
CREATE INDEX leases_client ON leases (client);

ALTER TABLE leases6 ADD COLUMN client TEXT;
CREATE INDEX leases6_client ON leases6 (client);
