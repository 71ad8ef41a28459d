-- It stands in the prompt's content.
ALTER TABLE generations DROP COLUMN metadata;
