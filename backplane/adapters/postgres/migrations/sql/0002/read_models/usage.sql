ALTER TABLE usage
  ADD COLUMN cached_input_tokens integer NOT NULL DEFAULT 0,
  ADD COLUMN reasoning_tokens integer NOT NULL DEFAULT 0;
