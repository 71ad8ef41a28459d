-- How often it was handed on to another pool: deliveries from the pools before are void.
ALTER TABLE work.claims ADD COLUMN handed_on integer NOT NULL DEFAULT 0;
-- The newest attempt that the record says was lost.
ALTER TABLE work.claims ADD COLUMN recorded integer NOT NULL DEFAULT 0;
