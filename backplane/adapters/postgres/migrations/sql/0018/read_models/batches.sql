CREATE TABLE batches (
  id uuid NOT NULL,
  tenant_id uuid NOT NULL,
  user_id uuid,
  key_id uuid,
  total integer,
  content jsonb,
  created_at timestamptz,
  expires_at timestamptz,
  cancelled_at timestamptz,
  expired_at timestamptz,
  ended_at timestamptz,
  deleted boolean NOT NULL,
  PRIMARY KEY (tenant_id, id)
);
ALTER TABLE batches ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON batches TO parley_query_api USING (tenant_id = control.current_tenant());
CREATE POLICY every_tenant ON batches TO parley_projections USING (true);
GRANT SELECT ON batches TO parley_query_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON batches TO parley_projections;
