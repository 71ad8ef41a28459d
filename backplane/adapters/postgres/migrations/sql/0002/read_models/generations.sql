ALTER TABLE generations
  ADD COLUMN cached_input_tokens integer,
  ADD COLUMN reasoning_tokens integer,
  ADD COLUMN cost_usd numeric,
  ADD COLUMN served_pool text,
  ADD COLUMN served_model text;
UPDATE generations SET cached_input_tokens = 0, reasoning_tokens = 0 WHERE input_tokens IS NOT NULL;
