-- Snapshots count against quotas too.

ALTER TABLE usage_records ADD COLUMN snapshots BIGINT NOT NULL DEFAULT 0;
