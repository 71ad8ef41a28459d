-- Provider keys that were added at run time: a tenant's own, and the platform's under the tenant 0.
CREATE TABLE control.provider_keys (
  key_id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL,
  pool text NOT NULL,
  name text NOT NULL,
  fingerprint text NOT NULL,
  sealed bytea,
  added_at timestamptz NOT NULL DEFAULT now(),
  retired_at timestamptz,
  -- Nobody needs a retired key's secret any more.
  CHECK ((sealed IS NULL) = (retired_at IS NOT NULL))
);
CREATE UNIQUE INDEX provider_keys_once ON control.provider_keys (tenant_id, pool, fingerprint) WHERE retired_at IS NULL;
CREATE INDEX provider_keys_by_pool ON control.provider_keys (pool) WHERE retired_at IS NULL;

ALTER TABLE control.provider_keys ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON control.provider_keys TO parley_command_api, parley_query_api USING (tenant_id = control.current_tenant());
CREATE POLICY every_tenant ON control.provider_keys FOR SELECT TO parley_worker USING (true);

-- The APIs never read what is sealed, and workers write nothing.
GRANT SELECT (key_id, tenant_id, pool, name, fingerprint, added_at, retired_at) ON control.provider_keys
  TO parley_command_api, parley_query_api;
GRANT INSERT, UPDATE (sealed, retired_at) ON control.provider_keys TO parley_command_api;
GRANT SELECT (key_id, tenant_id, pool, sealed, retired_at) ON control.provider_keys TO parley_worker;
