-- The title as it was published: sealed, or plain by older releases. That content is erased changes no conversation's place
-- in lists, so until anything else is known of it, it has none.
ALTER TABLE conversations
  DROP COLUMN title,
  ADD COLUMN title jsonb,
  ADD COLUMN erased boolean NOT NULL DEFAULT false,
  ALTER COLUMN updated_at DROP NOT NULL;
