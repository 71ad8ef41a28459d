-- Attempts in its pool that were made since an answer did not fit its schema: they are not counted as lost.
ALTER TABLE work.claims ADD COLUMN repairs integer NOT NULL DEFAULT 0;
