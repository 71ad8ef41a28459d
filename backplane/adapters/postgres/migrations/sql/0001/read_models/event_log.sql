CREATE TABLE tenant_heads (
  tenant_id uuid PRIMARY KEY,
  sequence bigint NOT NULL,
  hash bytea NOT NULL
);
CREATE TABLE event_log (
  tenant_id uuid NOT NULL,
  sequence bigint NOT NULL,
  id uuid NOT NULL,
  type text NOT NULL,
  subject text NOT NULL,
  actor text NOT NULL,
  "time" timestamptz NOT NULL,
  correlation_id uuid NOT NULL,
  envelope bytea NOT NULL,
  hash bytea NOT NULL,
  PRIMARY KEY (tenant_id, sequence),
  UNIQUE (tenant_id, id)
);
CREATE INDEX event_log_by_type ON event_log (tenant_id, type, sequence);
CREATE INDEX event_log_by_subject ON event_log (tenant_id, subject, sequence);
CREATE INDEX event_log_by_actor ON event_log (tenant_id, actor, sequence);
CREATE INDEX event_log_by_correlation ON event_log (tenant_id, correlation_id, sequence);
CREATE INDEX event_log_by_time ON event_log (tenant_id, "time");

ALTER TABLE tenant_heads ENABLE ROW LEVEL SECURITY;
ALTER TABLE event_log ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tenant_heads TO parley_query_api USING (tenant_id = control.current_tenant());
CREATE POLICY tenant ON event_log TO parley_query_api, parley_command_api USING (tenant_id = control.current_tenant());
CREATE POLICY every_tenant ON tenant_heads TO parley_projections USING (true);
CREATE POLICY every_tenant ON event_log TO parley_projections USING (true);
GRANT SELECT ON tenant_heads TO parley_query_api;
GRANT SELECT ON event_log TO parley_query_api, parley_command_api;
GRANT SELECT, INSERT, UPDATE ON tenant_heads TO parley_projections;
GRANT SELECT, INSERT ON event_log TO parley_projections;
