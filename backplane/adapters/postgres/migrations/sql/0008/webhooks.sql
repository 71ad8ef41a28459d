-- Addresses that tenants want told of events. `sealed` is the whole URL and the secret; `url` is without its query.
CREATE TABLE control.webhooks (
  webhook_id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL,
  url text NOT NULL,
  event_types text[] NOT NULL,
  sealed bytea,
  added_at timestamptz NOT NULL DEFAULT now(),
  -- Of its tenant's log: the last line that it was told of or need not be.
  told_to bigint NOT NULL,
  failures integer NOT NULL DEFAULT 0,
  last_failure text,
  next_try_at timestamptz NOT NULL DEFAULT now(),
  taker uuid,
  lease_until timestamptz,
  disabled_at timestamptz,
  disabled_because text,
  CHECK ((sealed IS NULL) = (disabled_at IS NOT NULL)),
  CHECK ((disabled_because IS NULL) = (disabled_at IS NULL))
);
CREATE INDEX webhooks_by_tenant ON control.webhooks (tenant_id);

ALTER TABLE control.webhooks ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON control.webhooks TO parley_command_api USING (tenant_id = control.current_tenant());

-- What is sealed only the relay gets, by the functions below; it may do nothing else here.
GRANT SELECT (webhook_id, tenant_id, url, event_types, added_at, told_to, failures, last_failure, next_try_at, taker,
              lease_until, disabled_at, disabled_because) ON control.webhooks TO parley_command_api;
GRANT INSERT, DELETE, UPDATE (sealed, told_to, failures, last_failure, next_try_at, taker, lease_until, disabled_at,
                              disabled_because) ON control.webhooks TO parley_command_api;

-- Leases on webhooks that something new was recorded for and whose turn it is, of all tenants, so with the owner's eyes.
CREATE FUNCTION control.take_webhooks(new_taker uuid, lease_s float8, most integer)
RETURNS TABLE (webhook_id uuid, tenant_id uuid, sealed bytea, event_types text[], told_to bigint, recorded_to bigint,
               failures integer)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  WITH due AS MATERIALIZED (
    SELECT w.webhook_id, h.sequence FROM control.webhooks w JOIN read_models.tenant_heads h ON h.tenant_id = w.tenant_id
    WHERE w.disabled_at IS NULL AND w.told_to < h.sequence AND w.next_try_at <= statement_timestamp()
      AND (w.lease_until IS NULL OR w.lease_until <= statement_timestamp())
    ORDER BY w.next_try_at LIMIT most FOR UPDATE OF w SKIP LOCKED)
  UPDATE control.webhooks w
  SET taker = new_taker, lease_until = statement_timestamp() + make_interval(secs => lease_s)
  FROM due WHERE w.webhook_id = due.webhook_id
  RETURNING w.webhook_id, w.tenant_id, w.sealed, w.event_types, w.told_to, due.sequence, w.failures
$$;

-- What is sealed of one webhook of one tenant; no row where it is not there, null where it is disabled.
CREATE FUNCTION control.sealed_webhook(owner uuid, wanted uuid) RETURNS TABLE (sealed bytea)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT w.sealed FROM control.webhooks w WHERE w.tenant_id = owner AND w.webhook_id = wanted $$;

REVOKE ALL ON FUNCTION control.take_webhooks(uuid, float8, integer) FROM public;
REVOKE ALL ON FUNCTION control.sealed_webhook(uuid, uuid) FROM public;
GRANT EXECUTE ON FUNCTION control.take_webhooks(uuid, float8, integer) TO parley_relay;
GRANT EXECUTE ON FUNCTION control.sealed_webhook(uuid, uuid) TO parley_relay;

-- The newest window of each limit that was warned of.
CREATE TABLE control.limit_warnings (
  tenant_id uuid NOT NULL,
  dimension text NOT NULL,
  whose text NOT NULL,
  limit_name text NOT NULL,
  window_began timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, dimension, whose, limit_name)
);
ALTER TABLE control.limit_warnings ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON control.limit_warnings TO parley_command_api USING (tenant_id = control.current_tenant());
GRANT SELECT, INSERT, UPDATE (window_began) ON control.limit_warnings TO parley_command_api;
