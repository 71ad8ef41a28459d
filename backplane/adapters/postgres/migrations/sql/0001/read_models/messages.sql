CREATE TABLE messages (
  id uuid NOT NULL,
  tenant_id uuid NOT NULL,
  conversation_id uuid NOT NULL,
  parent_message_id uuid,
  generation_id uuid NOT NULL,
  role text NOT NULL,
  content text,
  delta_lengths integer[],
  status text NOT NULL,
  model text,
  attempt integer NOT NULL,
  ordinal integer NOT NULL,
  created_at timestamptz,
  erased boolean NOT NULL,
  PRIMARY KEY (tenant_id, id)
);
CREATE INDEX messages_by_conversation ON messages (tenant_id, conversation_id, created_at, ordinal);
ALTER TABLE messages ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON messages TO parley_query_api, parley_command_api, parley_worker USING (tenant_id = control.current_tenant());
CREATE POLICY every_tenant ON messages TO parley_projections USING (true);
GRANT SELECT ON messages TO parley_query_api, parley_command_api, parley_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON messages TO parley_projections;
