CREATE TABLE persona_versions (
  persona_id uuid NOT NULL,
  version integer NOT NULL,
  tenant_id uuid NOT NULL,
  name text NOT NULL,
  content jsonb NOT NULL,
  saved_by text NOT NULL,
  saved_at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, persona_id, version)
);
CREATE INDEX persona_versions_by_name ON persona_versions (tenant_id, name, version);
ALTER TABLE persona_versions ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON persona_versions TO parley_query_api USING (tenant_id = control.current_tenant());
CREATE POLICY every_tenant ON persona_versions TO parley_projections USING (true);
GRANT SELECT ON persona_versions TO parley_query_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON persona_versions TO parley_projections;
