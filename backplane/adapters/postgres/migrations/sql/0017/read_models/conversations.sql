-- `titled`: its model made the title, or a person did. A fork goes on from a message of another conversation.
ALTER TABLE conversations
  ADD COLUMN titled boolean NOT NULL DEFAULT false,
  ADD COLUMN state text NOT NULL DEFAULT 'active',
  ADD COLUMN state_at timestamptz,
  ADD COLUMN forked_from uuid,
  ADD COLUMN forked_at_message uuid;
