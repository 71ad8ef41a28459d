-- As it was published: sealed, or plain by older releases.
ALTER TABLE conversations DROP COLUMN title, ADD COLUMN title jsonb;
