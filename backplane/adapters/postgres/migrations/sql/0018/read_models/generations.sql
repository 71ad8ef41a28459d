-- Which line of which batch it answers.
ALTER TABLE generations
  ADD COLUMN batch_id uuid,
  ADD COLUMN batch_line integer;
CREATE INDEX generations_by_batch ON generations (tenant_id, batch_id, batch_line) WHERE batch_id IS NOT NULL;
