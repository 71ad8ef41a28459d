-- Signed heads of tenants' logs; nobody changes or deletes one. One that says `pruned` is where the log begins.
CREATE TABLE read_models.checkpoints (
  tenant_id uuid NOT NULL,
  sequence bigint NOT NULL,
  kind text NOT NULL CHECK (kind IN ('checkpoint', 'pruned')),
  hash bytea NOT NULL,
  "time" timestamptz NOT NULL,
  key bytea NOT NULL,
  signature bytea NOT NULL,
  PRIMARY KEY (tenant_id, kind, sequence)
);
ALTER TABLE read_models.checkpoints ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON read_models.checkpoints TO parley_query_api USING (tenant_id = control.current_tenant());
CREATE POLICY every_tenant ON read_models.checkpoints TO parley_projections USING (true);
GRANT SELECT ON read_models.checkpoints TO parley_query_api;
GRANT SELECT, INSERT ON read_models.checkpoints TO parley_projections;
