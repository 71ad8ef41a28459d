CREATE TABLE usage (
  generation_id uuid NOT NULL,
  attempt integer NOT NULL,
  tenant_id uuid NOT NULL,
  user_id uuid,
  key_id uuid NOT NULL,
  model text NOT NULL,
  input_tokens integer NOT NULL,
  output_tokens integer NOT NULL,
  source text NOT NULL,
  at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, generation_id, attempt)
);
CREATE INDEX usage_by_time ON usage (tenant_id, at);
ALTER TABLE usage ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON usage TO parley_query_api USING (tenant_id = control.current_tenant());
CREATE POLICY every_tenant ON usage TO parley_projections USING (true);
GRANT SELECT ON usage TO parley_query_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON usage TO parley_projections;
