CREATE TABLE collections (
  id uuid NOT NULL,
  tenant_id uuid NOT NULL,
  name text,
  embedder text,
  language text,
  content jsonb,
  created_at timestamptz,
  changed_at timestamptz,
  deleted boolean NOT NULL,
  PRIMARY KEY (tenant_id, id)
);
ALTER TABLE collections ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON collections TO parley_query_api, parley_command_api, parley_worker USING (tenant_id = control.current_tenant());
CREATE POLICY every_tenant ON collections TO parley_projections USING (true);
GRANT SELECT ON collections TO parley_query_api, parley_command_api, parley_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON collections TO parley_projections;
