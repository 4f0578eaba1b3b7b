-- Further keys of management controllers: what is pinned for consoles by SSH, and K_g of IPMI.

ALTER TABLE bmcs ADD COLUMN host_key TEXT;   -- fingerprint of the SSH key that is pinned
ALTER TABLE bmcs ADD COLUMN kg TEXT;         -- sealed
