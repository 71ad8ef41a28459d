-- What a generation holds of its limits until it ends, and the model that it is counted under.
ALTER TABLE generations
  ADD COLUMN asked_model text,
  ADD COLUMN reserved_tokens bigint,
  ADD COLUMN reserved_nano_usd bigint;
