-- Named prompts with their settings. What a version says is sealed by a data key of its persona (control.data_keys, under
-- the persona's id), so removing one deletes that key; its row stays, since its id stands in the record.
CREATE TABLE control.personas (
  persona_id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL REFERENCES control.tenants,
  name text NOT NULL,
  version integer NOT NULL CHECK (version > 0),  -- the newest
  removed_at timestamptz
);
CREATE UNIQUE INDEX personas_by_name ON control.personas (tenant_id, name) WHERE removed_at IS NULL;

CREATE TABLE control.persona_versions (
  persona_id uuid NOT NULL REFERENCES control.personas,
  version integer NOT NULL,
  tenant_id uuid NOT NULL,
  content jsonb NOT NULL,
  saved_by text NOT NULL,
  PRIMARY KEY (persona_id, version)
);

ALTER TABLE control.personas ENABLE ROW LEVEL SECURITY;
ALTER TABLE control.persona_versions ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON control.personas TO parley_command_api USING (tenant_id = control.current_tenant());
CREATE POLICY tenant ON control.persona_versions TO parley_command_api USING (tenant_id = control.current_tenant());
GRANT SELECT, INSERT, UPDATE (version, removed_at) ON control.personas TO parley_command_api;
GRANT SELECT, INSERT, DELETE ON control.persona_versions TO parley_command_api;
