-- Batches as they are worked on. `taker` has the lease on turning lines into prompts.
CREATE TABLE control.batches (
  batch_id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL,
  user_id uuid,
  key_id uuid NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  submitted_at timestamptz,  -- null: its file is on its way
  total integer,
  expires_at timestamptz,
  cancelled_at timestamptz,
  expired_at timestamptz,
  ended_at timestamptz,
  next_try_at timestamptz NOT NULL DEFAULT now(),
  taker uuid,
  lease_until timestamptz
);
CREATE INDEX batches_due ON control.batches (next_try_at) WHERE submitted_at IS NOT NULL AND ended_at IS NULL;
CREATE INDEX batches_uploading ON control.batches (created_at) WHERE submitted_at IS NULL;

-- Lines that wait, and those that are prompts which have not ended. What has ended is deleted here.
CREATE TABLE control.batch_lines (
  tenant_id uuid NOT NULL,
  batch_id uuid NOT NULL,
  line integer NOT NULL,
  sealed jsonb,  -- null: it is a prompt
  generation_id uuid,
  pool text,
  PRIMARY KEY (batch_id, line),
  CHECK ((sealed IS NULL) = (generation_id IS NOT NULL))
);
CREATE INDEX batch_lines_open ON control.batch_lines (tenant_id, pool) WHERE generation_id IS NOT NULL;

ALTER TABLE control.batches ENABLE ROW LEVEL SECURITY;
ALTER TABLE control.batch_lines ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON control.batches TO parley_command_api USING (tenant_id = control.current_tenant());
CREATE POLICY tenant ON control.batch_lines TO parley_command_api USING (tenant_id = control.current_tenant());
GRANT SELECT, INSERT, DELETE, UPDATE (submitted_at, total, expires_at, cancelled_at, expired_at, ended_at, next_try_at, taker,
                                      lease_until) ON control.batches TO parley_command_api;
GRANT SELECT, INSERT, DELETE, UPDATE (sealed, generation_id, pool) ON control.batch_lines TO parley_command_api;

-- Leases on batches whose turn it is, of all tenants, so with the owner's eyes.
CREATE FUNCTION control.take_batches(new_taker uuid, lease_s float8, most integer)
RETURNS TABLE (batch_id uuid, tenant_id uuid)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  WITH due AS MATERIALIZED (
    SELECT b.batch_id FROM control.batches b
    WHERE b.submitted_at IS NOT NULL AND b.ended_at IS NULL AND b.next_try_at <= statement_timestamp()
      AND (b.lease_until IS NULL OR b.lease_until <= statement_timestamp())
    ORDER BY b.next_try_at LIMIT most FOR UPDATE OF b SKIP LOCKED)
  UPDATE control.batches b
  SET taker = new_taker, lease_until = statement_timestamp() + make_interval(secs => lease_s)
  FROM due WHERE b.batch_id = due.batch_id
  RETURNING b.batch_id, b.tenant_id
$$;

-- Whether any tenant's prompt that is of no batch waits in this pool.
CREATE FUNCTION control.is_busy(wanted text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  SELECT EXISTS (SELECT FROM read_models.generations g
                 WHERE g.pool = wanted AND g.ended_at IS NULL AND g.status = 'queued' AND g.batch_id IS NULL)
$$;

-- Files whose upload broke off a day ago, with what their lines were sealed by. Returns how many.
CREATE FUNCTION control.forget_uploads() RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  WITH gone AS (
    DELETE FROM control.batches WHERE submitted_at IS NULL AND created_at < now() - interval '1 day'
    RETURNING tenant_id, batch_id),
  lines AS (DELETE FROM control.batch_lines l USING gone WHERE l.batch_id = gone.batch_id),
  keys AS (
    DELETE FROM control.data_keys k USING gone WHERE k.tenant_id = gone.tenant_id AND k.conversation_id = gone.batch_id)
  SELECT count(*) FROM gone
$$;

REVOKE ALL ON FUNCTION control.take_batches(uuid, float8, integer) FROM public;
REVOKE ALL ON FUNCTION control.is_busy(text) FROM public;
REVOKE ALL ON FUNCTION control.forget_uploads() FROM public;
GRANT EXECUTE ON FUNCTION control.take_batches(uuid, float8, integer) TO parley_relay;
GRANT EXECUTE ON FUNCTION control.is_busy(text) TO parley_relay;
GRANT EXECUTE ON FUNCTION control.forget_uploads() TO parley_relay;

-- Batches that have ended hold what their failed lines were called, and their own metadata.
CREATE OR REPLACE FUNCTION control.content_due(moment timestamptz, most integer)
RETURNS TABLE (tenant_id uuid, conversation_id uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  SELECT c.tenant_id, c.id
  FROM control.tenants t
  JOIN (
    SELECT tenant_id, id, updated_at FROM read_models.conversations
    UNION ALL SELECT tenant_id, id, ended_at FROM read_models.batches) c ON c.tenant_id = t.tenant_id
    AND c.updated_at < moment - make_interval(days => t.content_days)
  WHERE t.content_days IS NOT NULL AND EXISTS (
    SELECT FROM control.data_keys k
    WHERE k.tenant_id = c.tenant_id AND k.conversation_id = c.id AND k.created_at < moment - make_interval(days => t.content_days))
  ORDER BY c.updated_at LIMIT most
$$;
