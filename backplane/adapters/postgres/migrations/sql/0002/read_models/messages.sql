-- Messages of parts (text, images), tool calls and their results, reasoning, and deltas that are not text.
ALTER TABLE messages
  ADD COLUMN parts jsonb,
  ADD COLUMN tool_calls jsonb,
  ADD COLUMN tool_call_id text,
  ADD COLUMN reasoning text,
  ADD COLUMN served_model text,
  ALTER COLUMN delta_lengths TYPE jsonb USING to_jsonb(delta_lengths);
