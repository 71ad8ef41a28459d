CREATE TABLE documents (
  id uuid NOT NULL,
  tenant_id uuid NOT NULL,
  collection_id uuid NOT NULL,
  content jsonb,
  bytes integer,
  added_at timestamptz,
  ingestion_id uuid,
  status text NOT NULL,
  kind text,
  characters integer,
  chunks integer,
  embedded integer NOT NULL,
  reason text,
  detail text,
  changed_at timestamptz NOT NULL,
  deleted boolean NOT NULL,
  PRIMARY KEY (tenant_id, id)
);
CREATE INDEX documents_of_collection ON documents (tenant_id, collection_id, id DESC) WHERE NOT deleted;
ALTER TABLE documents ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON documents TO parley_query_api, parley_worker USING (tenant_id = control.current_tenant());
CREATE POLICY every_tenant ON documents TO parley_projections USING (true);
GRANT SELECT ON documents TO parley_query_api, parley_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON documents TO parley_projections;
