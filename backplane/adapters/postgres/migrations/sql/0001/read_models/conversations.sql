CREATE TABLE conversations (
  id uuid NOT NULL,
  tenant_id uuid NOT NULL,
  user_id uuid,
  title text,
  renamed boolean NOT NULL,
  first_generation_id uuid,
  last_message_id uuid,
  created_at timestamptz,
  updated_at timestamptz NOT NULL,
  deleted boolean NOT NULL,
  PRIMARY KEY (tenant_id, id)
);
CREATE INDEX conversations_by_update ON conversations (tenant_id, updated_at DESC, id DESC) WHERE NOT deleted;
ALTER TABLE conversations ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON conversations TO parley_query_api, parley_command_api, parley_worker USING (tenant_id = control.current_tenant());
CREATE POLICY every_tenant ON conversations TO parley_projections USING (true);
GRANT SELECT ON conversations TO parley_query_api, parley_command_api, parley_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON conversations TO parley_projections;
