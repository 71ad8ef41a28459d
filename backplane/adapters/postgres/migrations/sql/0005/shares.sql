ALTER TABLE control.tenants
  ADD COLUMN weight smallint NOT NULL DEFAULT 1 CHECK (weight BETWEEN 1 AND 100),
  ADD COLUMN priority text NOT NULL DEFAULT 'normal' CHECK (priority IN ('low', 'normal', 'high'));

GRANT UPDATE (weight, priority) ON control.tenants TO parley_command_api;

-- Its rows get columns, so it is made anew.
DROP FUNCTION control.find_key(text);
CREATE FUNCTION control.find_key(wanted text)
RETURNS TABLE (key_id uuid, tenant_id uuid, user_id uuid, role text, secret_hash bytea, expires_at timestamptz,
               revoked_at timestamptz, weight smallint, priority text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = control
AS $$
  SELECT k.key_id, k.tenant_id, k.user_id, k.role, k.secret_hash, k.expires_at, k.revoked_at, t.weight, t.priority
  FROM control.api_keys k JOIN control.tenants t ON t.tenant_id = k.tenant_id WHERE k.prefix = wanted
$$;
REVOKE ALL ON FUNCTION control.find_key(text) FROM public;
GRANT EXECUTE ON FUNCTION control.find_key(text) TO parley_command_api, parley_query_api;
