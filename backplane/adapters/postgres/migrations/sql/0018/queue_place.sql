-- As before (0005), but that nobody waits behind batches except batches.
CREATE OR REPLACE FUNCTION control.queue_place(wanted uuid) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  WITH asked AS MATERIALIZED (
    SELECT g.tenant_id, g.pool, g.created_at, g.id, g.batch_id FROM read_models.generations g
    WHERE g.tenant_id = control.current_tenant() AND g.id = wanted AND g.status = 'queued'),
  with_keys AS MATERIALIZED (
    SELECT DISTINCT k.tenant_id FROM control.provider_keys k, asked WHERE k.pool = asked.pool AND k.retired_at IS NULL),
  me AS MATERIALIZED (SELECT asked.*, asked.tenant_id IN (SELECT tenant_id FROM with_keys) AS own FROM asked),
  queued AS (
    SELECT g.tenant_id, count(*) AS number, min(g.created_at) AS oldest,
           count(*) FILTER (WHERE (g.created_at, g.id) < (me.created_at, me.id)) AS older
    FROM me JOIN read_models.generations g ON g.pool = me.pool AND g.ended_at IS NULL AND g.status = 'queued'
      AND (g.batch_id IS NULL OR me.batch_id IS NOT NULL)
    WHERE CASE WHEN me.own THEN g.tenant_id = me.tenant_id ELSE g.tenant_id NOT IN (SELECT tenant_id FROM with_keys) END
    GROUP BY g.tenant_id),
  shared AS (
    SELECT q.*, coalesce(t.weight, 1) AS weight,
           array_position(ARRAY['low', 'normal', 'high'], coalesce(t.priority, 'normal')) AS priority
    FROM queued q LEFT JOIN control.tenants t ON t.tenant_id = q.tenant_id),
  place AS (
    SELECT mine.older + coalesce(sum(least(other.number, CASE
             WHEN other.priority > mine.priority THEN (mine.older + 1) * 9
             WHEN other.priority < mine.priority THEN (mine.older + 1) / 9
             ELSE (mine.older + 1) * other.weight / mine.weight END)), 0)::bigint AS ahead
    FROM shared mine JOIN me ON me.tenant_id = mine.tenant_id
    LEFT JOIN shared other ON other.tenant_id <> mine.tenant_id GROUP BY mine.older),
  busy AS (
    SELECT least(60, greatest(0, extract(epoch FROM statement_timestamp() - min(q.oldest))))::float8 AS seconds FROM queued q),
  ended AS (
    SELECT count(*) AS number FROM me, busy, read_models.generations g
    WHERE g.pool = me.pool AND g.started_at IS NOT NULL
      AND CASE WHEN me.own THEN g.tenant_id = me.tenant_id ELSE g.tenant_id NOT IN (SELECT tenant_id FROM with_keys) END
      -- The minute is for the planner, which knows how few ended in it.
      AND g.ended_at > statement_timestamp() - interval '1 minute'
      AND g.ended_at > statement_timestamp() - make_interval(secs => busy.seconds)),
  starts AS (
    SELECT array_agg(recent.started_at ORDER BY recent.started_at) AS moments FROM (
      SELECT g.tenant_id, g.started_at FROM me JOIN read_models.generations g ON g.pool = me.pool AND g.ended_at IS NULL
      UNION ALL
      SELECT g.tenant_id, g.started_at FROM me JOIN read_models.generations g
        ON g.pool = me.pool AND g.ended_at > statement_timestamp() - interval '1 minute') recent, me
    WHERE recent.started_at > statement_timestamp() - interval '1 minute' AND CASE WHEN me.own
      THEN recent.tenant_id = me.tenant_id ELSE recent.tenant_id NOT IN (SELECT tenant_id FROM with_keys) END)
  SELECT jsonb_build_object(
    'pool', me.pool, 'owner', CASE WHEN me.own THEN me.tenant_id END, 'ahead', place.ahead, 'busy_s', busy.seconds, 'ended', ended.number,
    'started', coalesce(cardinality(starts.moments), 0),
    'start_age_s', extract(epoch FROM statement_timestamp()
                           - starts.moments[1 + place.ahead % cardinality(starts.moments)])::float8)
  FROM me, place, busy, ended, starts
$$;
