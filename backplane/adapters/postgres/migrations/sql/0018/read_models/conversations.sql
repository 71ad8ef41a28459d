-- A line of a batch is in no list of conversations.
ALTER TABLE conversations ADD COLUMN batch_id uuid;
DROP INDEX conversations_by_update;
CREATE INDEX conversations_by_update ON conversations (tenant_id, updated_at DESC, id DESC)
  WHERE NOT deleted AND batch_id IS NULL;
