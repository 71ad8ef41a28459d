CREATE TABLE control.tenants (
  tenant_id uuid PRIMARY KEY,
  name text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE control.users (
  user_id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL REFERENCES control.tenants,
  name text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (tenant_id, name)
);

CREATE TABLE control.api_keys (
  key_id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL REFERENCES control.tenants,
  user_id uuid REFERENCES control.users,
  role text NOT NULL CHECK (role IN ('admin', 'member', 'auditor')),
  name text NOT NULL,
  prefix text NOT NULL UNIQUE,
  secret_hash bytea NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz,
  revoked_at timestamptz
);

CREATE TABLE control.idempotency (
  tenant_id uuid NOT NULL,
  key text NOT NULL,
  body_hash bytea NOT NULL,
  topic text NOT NULL,
  partition integer NOT NULL,
  command bytea NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, key)
);
CREATE INDEX idempotency_by_age ON control.idempotency (created_at);

CREATE TABLE control.outbox (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id uuid NOT NULL,
  envelope bytea NOT NULL
);

-- A key is looked up before its tenant is known, so this one question is asked with the owner's eyes.
CREATE FUNCTION control.find_key(wanted text)
RETURNS TABLE (key_id uuid, tenant_id uuid, user_id uuid, role text, secret_hash bytea, expires_at timestamptz, revoked_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = control
AS $$
  SELECT k.key_id, k.tenant_id, k.user_id, k.role, k.secret_hash, k.expires_at, k.revoked_at
  FROM control.api_keys k WHERE k.prefix = wanted
$$;
REVOKE ALL ON FUNCTION control.find_key(text) FROM public;
GRANT EXECUTE ON FUNCTION control.find_key(text) TO parley_command_api, parley_query_api;

ALTER TABLE control.tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE control.users ENABLE ROW LEVEL SECURITY;
ALTER TABLE control.api_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE control.idempotency ENABLE ROW LEVEL SECURITY;
ALTER TABLE control.outbox ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON control.tenants TO parley_command_api, parley_query_api USING (tenant_id = control.current_tenant());
CREATE POLICY tenant ON control.users TO parley_command_api, parley_query_api USING (tenant_id = control.current_tenant());
CREATE POLICY tenant ON control.api_keys TO parley_command_api, parley_query_api USING (tenant_id = control.current_tenant());
CREATE POLICY tenant ON control.idempotency TO parley_command_api USING (tenant_id = control.current_tenant());
CREATE POLICY tenant ON control.outbox TO parley_command_api, parley_worker USING (tenant_id = control.current_tenant());
CREATE POLICY every_tenant ON control.outbox TO parley_relay USING (true);
CREATE POLICY every_tenant ON control.idempotency TO parley_relay USING (true);

GRANT SELECT, INSERT ON control.tenants, control.users TO parley_command_api;
GRANT SELECT, INSERT, UPDATE ON control.api_keys TO parley_command_api;
GRANT SELECT, INSERT ON control.idempotency TO parley_command_api;
GRANT INSERT ON control.outbox TO parley_command_api, parley_worker;
GRANT SELECT, DELETE ON control.outbox, control.idempotency TO parley_relay;
