-- What its prompt was asked as.
ALTER TABLE generations
  ADD COLUMN persona_id uuid,
  ADD COLUMN persona text,
  ADD COLUMN persona_version integer;
