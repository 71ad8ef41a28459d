-- Lines that never became prompts, as many as one event tells of: `failed` has a code for each, `content` what was said.
CREATE TABLE batch_failures (
  tenant_id uuid NOT NULL,
  batch_id uuid NOT NULL,
  first_line integer NOT NULL,
  number integer NOT NULL,
  failed jsonb NOT NULL,
  content jsonb,
  PRIMARY KEY (tenant_id, batch_id, first_line)
);
ALTER TABLE batch_failures ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON batch_failures TO parley_query_api USING (tenant_id = control.current_tenant());
CREATE POLICY every_tenant ON batch_failures TO parley_projections USING (true);
GRANT SELECT ON batch_failures TO parley_query_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON batch_failures TO parley_projections;
