-- The data keys of conversations, wrapped by the master key. Without its row, what a key sealed is gone.
CREATE TABLE control.data_keys (
  tenant_id uuid NOT NULL,
  conversation_id uuid NOT NULL,
  generation_id uuid,  -- the key of this prompt alone, which dies with its end, since its tenant keeps no content
  user_id uuid,
  wrapped bytea NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE NULLS NOT DISTINCT (tenant_id, conversation_id, generation_id)
);
CREATE INDEX data_keys_by_user ON control.data_keys (tenant_id, user_id) WHERE user_id IS NOT NULL;
CREATE INDEX data_keys_of_prompts ON control.data_keys (generation_id) WHERE generation_id IS NOT NULL;
CREATE INDEX data_keys_by_age ON control.data_keys (created_at);

ALTER TABLE control.data_keys ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON control.data_keys TO parley_command_api, parley_query_api USING (tenant_id = control.current_tenant());
CREATE POLICY every_tenant ON control.data_keys FOR SELECT TO parley_worker USING (true);
CREATE POLICY dying ON control.data_keys FOR DELETE TO parley_worker USING (generation_id IS NOT NULL);
GRANT SELECT, INSERT, DELETE ON control.data_keys TO parley_command_api;
GRANT SELECT ON control.data_keys TO parley_query_api;
GRANT SELECT, DELETE ON control.data_keys TO parley_worker;

ALTER TABLE control.tenants
  ADD COLUMN keeps_content boolean NOT NULL DEFAULT true,
  ADD COLUMN content_days integer CHECK (content_days > 0);
GRANT UPDATE (keeps_content, content_days) ON control.tenants TO parley_command_api;

-- Adds keys of prompts that are about to be published, of several tenants at once, so asked with the owner's eyes. Returns
-- those that were added, by what is stored of them; a conversation that has a key already keeps that one.
CREATE FUNCTION control.add_data_keys(tenants uuid[], conversations uuid[], generations uuid[], users uuid[], keys bytea[])
RETURNS TABLE (wrapped bytea, keeps_content boolean)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  INSERT INTO control.data_keys AS k (tenant_id, conversation_id, generation_id, user_id, wrapped)
  SELECT a.tenant_id, a.conversation_id, CASE WHEN NOT t.keeps_content THEN a.generation_id END, a.user_id, a.wrapped
  FROM unnest(tenants, conversations, generations, users, keys)
    AS a(tenant_id, conversation_id, generation_id, user_id, wrapped)
  JOIN control.tenants t ON t.tenant_id = a.tenant_id
  ORDER BY a.tenant_id, a.conversation_id, a.generation_id
  ON CONFLICT DO NOTHING RETURNING k.wrapped, k.generation_id IS NULL
$$;
REVOKE ALL ON FUNCTION control.add_data_keys(uuid[], uuid[], uuid[], uuid[], bytea[]) FROM public;
GRANT EXECUTE ON FUNCTION control.add_data_keys(uuid[], uuid[], uuid[], uuid[], bytea[]) TO parley_command_api;

-- Conversations of any tenant whose content is to be erased by its days, the longest due first; asked with the owner's eyes.
CREATE FUNCTION control.content_due(moment timestamptz, most integer)
RETURNS TABLE (tenant_id uuid, conversation_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  SELECT c.tenant_id, c.id
  FROM control.tenants t
  JOIN read_models.conversations c ON c.tenant_id = t.tenant_id
    AND c.updated_at < moment - make_interval(days => t.content_days)
  WHERE t.content_days IS NOT NULL AND EXISTS (
    SELECT FROM control.data_keys k
    WHERE k.tenant_id = c.tenant_id AND k.conversation_id = c.id AND k.created_at < moment - make_interval(days => t.content_days))
  ORDER BY c.updated_at LIMIT most
$$;
REVOKE ALL ON FUNCTION control.content_due(timestamptz, integer) FROM public;
GRANT EXECUTE ON FUNCTION control.content_due(timestamptz, integer) TO parley_command_api;

-- Some wrapped key, the newest one, to try a master key on. It tells nothing to who has another.
CREATE FUNCTION control.newest_data_key() RETURNS TABLE (tenant_id uuid, conversation_id uuid, wrapped bytea)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  SELECT k.tenant_id, k.conversation_id, k.wrapped FROM control.data_keys k ORDER BY k.created_at DESC LIMIT 1
$$;
REVOKE ALL ON FUNCTION control.newest_data_key() FROM public;
GRANT EXECUTE ON FUNCTION control.newest_data_key() TO parley_command_api, parley_query_api, parley_worker;
