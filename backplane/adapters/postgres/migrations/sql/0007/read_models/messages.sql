-- What was written stands with the answer, as it was published: sealed, or plain by older releases. `prompt` is that of the
-- whole prompt, in which a message finds itself by its ordinal.
ALTER TABLE messages
  DROP COLUMN content, DROP COLUMN parts, DROP COLUMN tool_calls, DROP COLUMN tool_call_id, DROP COLUMN reasoning,
  DROP COLUMN delta_lengths, DROP COLUMN logprobs,
  ADD COLUMN prompt jsonb,
  ADD COLUMN answer jsonb,
  ADD COLUMN deltas integer;
