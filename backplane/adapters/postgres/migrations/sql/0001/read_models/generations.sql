CREATE TABLE generations (
  id uuid NOT NULL,
  tenant_id uuid NOT NULL,
  conversation_id uuid NOT NULL,
  user_id uuid,
  key_id uuid,
  model text NOT NULL,
  pool text,
  parameters jsonb,
  metadata jsonb,
  status text NOT NULL,
  attempt integer NOT NULL,
  finish_reason text,
  reason text,
  detail text,
  input_tokens integer,
  output_tokens integer,
  usage_source text,
  first_token_ms integer,
  duration_ms integer,
  created_at timestamptz,
  started_at timestamptz,
  ended_at timestamptz,
  PRIMARY KEY (tenant_id, id)
);
CREATE INDEX generations_by_conversation ON generations (tenant_id, conversation_id, created_at);
ALTER TABLE generations ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON generations TO parley_query_api, parley_command_api USING (tenant_id = control.current_tenant());
CREATE POLICY every_tenant ON generations TO parley_projections USING (true);
GRANT SELECT ON generations TO parley_query_api, parley_command_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON generations TO parley_projections;
