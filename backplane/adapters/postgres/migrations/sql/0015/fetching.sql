-- What a tenant lets be fetched for its prompts. Without a row, nothing that a prompt names by its URL.
CREATE TABLE control.fetching (
  tenant_id uuid PRIMARY KEY,
  rules jsonb NOT NULL
);

-- Sites that prompts may name. `domain` is in lower case.
CREATE TABLE control.sites (
  site_id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL,
  name text NOT NULL,
  domain text NOT NULL,
  description text,
  urls text[] NOT NULL,
  every_s integer NOT NULL,
  added_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX sites_by_name ON control.sites (tenant_id, lower(name));
CREATE UNIQUE INDEX sites_by_domain ON control.sites (tenant_id, domain);

ALTER TABLE control.fetching ENABLE ROW LEVEL SECURITY;
ALTER TABLE control.sites ENABLE ROW LEVEL SECURITY;
-- Workers read them too, one tenant at a time, when they fetch.
CREATE POLICY tenant ON control.fetching TO parley_command_api, parley_worker USING (tenant_id = control.current_tenant());
CREATE POLICY tenant ON control.sites TO parley_command_api, parley_worker USING (tenant_id = control.current_tenant());
GRANT SELECT ON control.fetching, control.sites TO parley_worker;
GRANT SELECT, INSERT, UPDATE (rules) ON control.fetching TO parley_command_api;
GRANT SELECT, INSERT, DELETE, UPDATE (name, domain, description, urls, every_s) ON control.sites TO parley_command_api;
