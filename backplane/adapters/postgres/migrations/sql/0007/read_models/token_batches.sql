DELETE FROM token_batches;
ALTER TABLE token_batches
  DROP COLUMN deltas,
  ADD COLUMN count integer NOT NULL,
  ADD COLUMN content jsonb NOT NULL;
