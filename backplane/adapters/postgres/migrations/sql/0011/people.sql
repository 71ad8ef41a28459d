-- The operator's own tenant: of the platform's keys and its admins.
INSERT INTO control.tenants (tenant_id, name) VALUES ('00000000-0000-0000-0000-000000000000', 'platform');

ALTER TABLE control.tenants ADD COLUMN suspended_at timestamptz;
GRANT UPDATE (suspended_at) ON control.tenants TO parley_command_api;
GRANT SELECT ON control.tenants TO parley_query_api;
-- Platform admins make, list and suspend tenants.
CREATE POLICY platform ON control.tenants FOR SELECT TO parley_command_api, parley_query_api
  USING (control.current_tenant() = '00000000-0000-0000-0000-000000000000');

ALTER TABLE control.users
  ADD COLUMN role text NOT NULL DEFAULT 'member' CHECK (role IN ('owner', 'admin', 'member', 'auditor', 'platform')),
  ADD COLUMN email text,
  ADD COLUMN password_hash text,
  ADD COLUMN issuer text,
  ADD COLUMN subject text,
  ADD COLUMN joined_at timestamptz,
  ADD COLUMN suspended_at timestamptz,
  ADD COLUMN removed_at timestamptz,
  ADD CHECK ((role = 'platform') = (tenant_id = '00000000-0000-0000-0000-000000000000')),
  -- Nobody needs what a removed user signed in with.
  ADD CHECK (removed_at IS NULL OR (email IS NULL AND password_hash IS NULL AND subject IS NULL)),
  DROP CONSTRAINT users_tenant_id_name_key;
CREATE UNIQUE INDEX users_by_name ON control.users (tenant_id, name) WHERE removed_at IS NULL;
CREATE UNIQUE INDEX users_by_email ON control.users (tenant_id, lower(email)) WHERE email IS NOT NULL;
CREATE UNIQUE INDEX users_by_subject ON control.users (tenant_id, issuer, subject) WHERE subject IS NOT NULL;
CREATE INDEX users_signing_in ON control.users (lower(email)) WHERE email IS NOT NULL;
-- Whose keys could do more than a member's.
UPDATE control.users u SET role = 'admin'
WHERE EXISTS (SELECT FROM control.api_keys k WHERE k.user_id = u.user_id AND k.role = 'admin');
UPDATE control.users u SET role = 'auditor'
WHERE EXISTS (SELECT FROM control.api_keys k WHERE k.user_id = u.user_id AND k.role = 'auditor')
  AND NOT EXISTS (SELECT FROM control.api_keys k WHERE k.user_id = u.user_id AND k.role <> 'auditor');

-- The APIs never read a password's hash; `control.find_sign_in` does, for who signs in.
REVOKE SELECT, INSERT ON control.users FROM parley_command_api;
GRANT SELECT (user_id, tenant_id, name, created_at, role, email, issuer, subject, joined_at, suspended_at, removed_at)
  ON control.users TO parley_command_api;
GRANT INSERT ON control.users TO parley_command_api;
GRANT UPDATE (role, email, password_hash, issuer, subject, joined_at, suspended_at, removed_at) ON control.users
  TO parley_command_api;
GRANT SELECT (user_id, tenant_id, name, created_at, role, email, joined_at, suspended_at, removed_at) ON control.users
  TO parley_query_api;

ALTER TABLE control.api_keys
  ADD COLUMN models text[],
  ADD COLUMN personas text[],
  ADD COLUMN former_prefix text UNIQUE,
  ADD COLUMN former_secret_hash bytea,
  ADD COLUMN former_ends_at timestamptz,
  DROP CONSTRAINT api_keys_role_check,
  ADD CONSTRAINT api_keys_role_check CHECK (role IN ('owner', 'admin', 'member', 'auditor', 'platform')),
  ADD CHECK ((role = 'platform') = (tenant_id = '00000000-0000-0000-0000-000000000000'));
CREATE INDEX api_keys_by_user ON control.api_keys (tenant_id, user_id);
GRANT SELECT (key_id, tenant_id, user_id, role, name, prefix, created_at, expires_at, revoked_at, models, personas,
              former_prefix, former_ends_at)
  ON control.api_keys TO parley_query_api;

-- One-time tokens that let a user set a password. A user has one at most.
CREATE TABLE control.invitations (
  user_id uuid PRIMARY KEY REFERENCES control.users,
  tenant_id uuid NOT NULL REFERENCES control.tenants,
  token_hash bytea NOT NULL UNIQUE,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL
);

CREATE TABLE control.sessions (
  session_id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL REFERENCES control.tenants,
  user_id uuid REFERENCES control.users,
  key_id uuid REFERENCES control.api_keys,
  method text NOT NULL CHECK (method IN ('password', 'oidc', 'key')),
  token_hash bytea NOT NULL UNIQUE,
  created_at timestamptz NOT NULL DEFAULT now(),
  seen_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  ended_at timestamptz,
  CHECK (user_id IS NOT NULL OR key_id IS NOT NULL)
);
CREATE INDEX sessions_by_user ON control.sessions (tenant_id, user_id) WHERE ended_at IS NULL;
CREATE INDEX sessions_by_key ON control.sessions (tenant_id, key_id) WHERE ended_at IS NULL;
CREATE INDEX sessions_by_end ON control.sessions (expires_at);

-- Of no tenant: who tries to sign in is nobody yet. Subjects are keyed hashes of accounts and addresses.
CREATE TABLE control.sign_in_attempts (
  subject bytea PRIMARY KEY,
  attempts integer NOT NULL,
  next_at timestamptz NOT NULL,
  forget_at timestamptz NOT NULL
);
CREATE INDEX sign_in_attempts_by_age ON control.sign_in_attempts (forget_at);
GRANT SELECT, INSERT, UPDATE, DELETE ON control.sign_in_attempts TO parley_command_api;
GRANT SELECT, DELETE ON control.sign_in_attempts TO parley_relay;

ALTER TABLE control.invitations ENABLE ROW LEVEL SECURITY;
ALTER TABLE control.sessions ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON control.invitations TO parley_command_api USING (tenant_id = control.current_tenant());
CREATE POLICY tenant ON control.sessions TO parley_command_api, parley_query_api USING (tenant_id = control.current_tenant());
CREATE POLICY every_tenant ON control.invitations TO parley_relay USING (true);
CREATE POLICY every_tenant ON control.sessions TO parley_relay USING (true);
GRANT SELECT (user_id, tenant_id, created_at, expires_at), INSERT, DELETE ON control.invitations TO parley_command_api;
GRANT SELECT (session_id, tenant_id, user_id, key_id, method, created_at, seen_at, expires_at, ended_at), INSERT,
  UPDATE (ended_at) ON control.sessions TO parley_command_api;
GRANT SELECT (session_id, tenant_id, user_id, key_id, method, created_at, seen_at, expires_at, ended_at)
  ON control.sessions TO parley_query_api;
GRANT SELECT (expires_at), DELETE ON control.invitations, control.sessions TO parley_relay;

-- What is found before its tenant is known is asked with the owner's eyes, one question each.
DROP FUNCTION control.find_key(text);
CREATE FUNCTION control.find_key(wanted text)
RETURNS TABLE (key_id uuid, tenant_id uuid, user_id uuid, role text, user_role text, secret_hash bytea,
               expires_at timestamptz, revoked boolean, user_suspended boolean, tenant_suspended boolean,
               models text[], personas text[], weight smallint, priority text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  SELECT k.key_id, k.tenant_id, k.user_id, k.role, u.role,
         CASE WHEN k.prefix = wanted THEN k.secret_hash ELSE k.former_secret_hash END,
         CASE WHEN k.prefix = wanted THEN k.expires_at ELSE least(k.expires_at, k.former_ends_at) END,
         k.revoked_at IS NOT NULL OR u.removed_at IS NOT NULL, u.suspended_at IS NOT NULL, t.suspended_at IS NOT NULL,
         k.models, k.personas, t.weight, t.priority
  FROM control.api_keys k JOIN control.tenants t ON t.tenant_id = k.tenant_id
  LEFT JOIN control.users u ON u.user_id = k.user_id
  WHERE k.prefix = wanted OR k.former_prefix = wanted
$$;

-- Also keeps the session from going idle, once a minute at most.
CREATE FUNCTION control.find_session(wanted bytea, idle_s double precision)
RETURNS TABLE (session_id uuid, key_id uuid, tenant_id uuid, user_id uuid, role text, user_role text,
               expires_at timestamptz, revoked boolean, user_suspended boolean, tenant_suspended boolean,
               models text[], personas text[], weight smallint, priority text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  UPDATE control.sessions s SET seen_at = now()
  WHERE s.token_hash = wanted AND s.ended_at IS NULL AND s.seen_at < now() - least(60, idle_s / 4) * interval '1 second'
    AND s.seen_at > now() - idle_s * interval '1 second';
  RETURN QUERY
  SELECT s.session_id, s.key_id, s.tenant_id, s.user_id, coalesce(k.role, u.role), u.role,
         least(s.expires_at, k.expires_at, s.seen_at + idle_s * interval '1 second'),
         s.ended_at IS NOT NULL OR k.revoked_at IS NOT NULL OR u.removed_at IS NOT NULL,
         u.suspended_at IS NOT NULL, t.suspended_at IS NOT NULL, k.models, k.personas, t.weight, t.priority
  FROM control.sessions s JOIN control.tenants t ON t.tenant_id = s.tenant_id
  LEFT JOIN control.api_keys k ON k.key_id = s.key_id
  LEFT JOIN control.users u ON u.user_id = s.user_id
  WHERE s.token_hash = wanted;
END $$;

CREATE FUNCTION control.find_invitation(wanted bytea)
RETURNS TABLE (tenant_id uuid, user_id uuid, expires_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  SELECT i.tenant_id, i.user_id, i.expires_at
  FROM control.invitations i JOIN control.tenants t ON t.tenant_id = i.tenant_id
  JOIN control.users u ON u.user_id = i.user_id
  WHERE i.token_hash = wanted AND t.suspended_at IS NULL AND u.suspended_at IS NULL AND u.removed_at IS NULL
$$;

-- Every account of this e-mail address, or the one of a tenant; the caller shows nobody how many there are.
CREATE FUNCTION control.find_sign_in(wanted text, in_tenant uuid)
RETURNS TABLE (tenant_id uuid, user_id uuid, password_hash text, suspended boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  SELECT u.tenant_id, u.user_id, u.password_hash, u.suspended_at IS NOT NULL OR t.suspended_at IS NOT NULL
  FROM control.users u JOIN control.tenants t ON t.tenant_id = u.tenant_id
  WHERE lower(u.email) = lower(wanted) AND (in_tenant IS NULL OR u.tenant_id = in_tenant)
$$;

-- Whether a tenant of that name is there, for who makes one.
CREATE FUNCTION control.is_tenant_named(wanted text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT EXISTS (SELECT FROM control.tenants t WHERE t.name = wanted) $$;

REVOKE ALL ON FUNCTION control.find_key(text), control.find_session(bytea, double precision),
  control.find_invitation(bytea), control.find_sign_in(text, uuid), control.is_tenant_named(text) FROM public;
GRANT EXECUTE ON FUNCTION control.find_key(text), control.find_session(bytea, double precision)
  TO parley_command_api, parley_query_api;
GRANT EXECUTE ON FUNCTION control.find_invitation(bytea), control.find_sign_in(text, uuid),
  control.is_tenant_named(text) TO parley_command_api;
