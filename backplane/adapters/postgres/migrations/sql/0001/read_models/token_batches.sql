CREATE TABLE token_batches (
  generation_id uuid NOT NULL,
  attempt integer NOT NULL,
  first_seq integer NOT NULL,
  tenant_id uuid NOT NULL,
  deltas jsonb NOT NULL,
  PRIMARY KEY (tenant_id, generation_id, attempt, first_seq)
);
ALTER TABLE token_batches ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON token_batches TO parley_query_api USING (tenant_id = control.current_tenant());
CREATE POLICY every_tenant ON token_batches TO parley_projections USING (true);
GRANT SELECT ON token_batches TO parley_query_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON token_batches TO parley_projections;
