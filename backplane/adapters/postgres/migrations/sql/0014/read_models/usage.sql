-- The name of what was asked as.
ALTER TABLE usage ADD COLUMN persona text;
