-- What a provider counts apart, who really served the attempt, and what it costs where that is known.
ALTER TABLE usage
  ADD COLUMN cached_input_tokens integer NOT NULL DEFAULT 0,
  ADD COLUMN reasoning_tokens integer NOT NULL DEFAULT 0,
  ADD COLUMN cost_usd numeric,
  ADD COLUMN pool text,
  ADD COLUMN backend text,
  ADD COLUMN served_model text;
