-- That of its newest prompt.
ALTER TABLE conversations
  ADD COLUMN persona_id uuid,
  ADD COLUMN persona text,
  ADD COLUMN persona_version integer;
