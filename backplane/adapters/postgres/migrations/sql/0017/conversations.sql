-- Titles and summaries are made beside a conversation's next prompt, not before it.
ALTER TABLE work.claims ADD COLUMN background boolean NOT NULL DEFAULT false;
DROP INDEX work.claims_one_running;
CREATE UNIQUE INDEX claims_one_running ON work.claims (conversation_id) WHERE terminal IS NULL AND NOT background;

-- Conversations that take no prompts, for now or for ever; others have no row. Decides.
CREATE TABLE control.conversation_states (
  tenant_id uuid NOT NULL REFERENCES control.tenants,
  conversation_id uuid NOT NULL,
  state text NOT NULL CHECK (state IN ('suspended', 'ended')),
  changed_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, conversation_id)
);
ALTER TABLE control.conversation_states ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON control.conversation_states TO parley_command_api USING (tenant_id = control.current_tenant());
GRANT SELECT, INSERT, UPDATE, DELETE ON control.conversation_states TO parley_command_api;
