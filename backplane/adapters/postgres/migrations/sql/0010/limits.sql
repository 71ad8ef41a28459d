-- What a subject may use: of a tenant's users, keys, models and personas, of the tenant itself, and, under the tenant 0,
-- of everybody together.
CREATE TABLE control.limits (
  tenant_id uuid NOT NULL,
  dimension text NOT NULL CHECK (dimension IN ('platform', 'tenant', 'user', 'key', 'model', 'persona')),
  subject text NOT NULL,
  limits jsonb NOT NULL,
  PRIMARY KEY (tenant_id, dimension, subject)
);

ALTER TABLE control.limits ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON control.limits TO parley_command_api, parley_query_api USING (tenant_id = control.current_tenant());
GRANT SELECT ON control.limits TO parley_command_api, parley_query_api;
GRANT INSERT, UPDATE, DELETE ON control.limits TO parley_command_api;

-- Admission asks for a tenant's limits and for everybody's in one question, so with the owner's eyes.
CREATE FUNCTION control.find_limits(wanted uuid, dimensions text[], subjects text[])
RETURNS TABLE (tenant_id uuid, dimension text, subject text, limits jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  SELECT l.tenant_id, l.dimension, l.subject, l.limits FROM control.limits l
  JOIN unnest(dimensions, subjects) AS w(dimension, subject) ON w.dimension = l.dimension AND w.subject = l.subject
  WHERE l.tenant_id IN (wanted, '00000000-0000-0000-0000-000000000000')
$$;
REVOKE ALL ON FUNCTION control.find_limits(uuid, text[], text[]) FROM public;
GRANT EXECUTE ON FUNCTION control.find_limits(uuid, text[], text[]) TO parley_command_api;
