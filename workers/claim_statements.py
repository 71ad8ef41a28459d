"""What ``Claims`` asks of Postgres."""

from __future__ import annotations

# A group inserts in the order of conversations, and locks in the order of generations, so that no two wait for each
# other. The claims that are looked at are those from before the insert. OFFSET 0 and ANY keep the planner, which knows
# nothing of a table that was empty a moment ago, to the indexes.
ASK = """
WITH asked AS MATERIALIZED (
  SELECT a.*, (SELECT bool_and(p.terminal IS NOT NULL) FROM work.claims p
               WHERE p.message_ids @> ARRAY[a.after] AND p.tenant_id = a.tenant_id) AS after_ended
  FROM unnest(CAST(:ids AS uuid[]), CAST(:tenants AS uuid[]), CAST(:conversations AS uuid[]), CAST(:pools AS text[]),
              CAST(:afters AS uuid[]), CAST(:message_ids AS text[]), CAST(:commands AS bytea[]),
              CAST(:background AS boolean[]))
    AS a(id, tenant_id, conversation_id, pool, after, message_ids, command, background)),
claimed AS (
  INSERT INTO work.claims
    (generation_id, tenant_id, conversation_id, pool, attempt, worker, lease_until, message_ids, command, background)
  SELECT a.id, a.tenant_id, a.conversation_id, a.pool, 1, :worker,
         clock_timestamp() + make_interval(secs => :lease), CAST(a.message_ids AS uuid[]), a.command, a.background
  FROM asked a WHERE a.after IS NULL OR a.after_ended ORDER BY a.conversation_id, a.id
  ON CONFLICT DO NOTHING RETURNING generation_id)
SELECT a.id, a.after_ended, a.id IN (SELECT generation_id FROM claimed) AS claimed, c.*,
  (SELECT k.wrapped FROM control.data_keys k WHERE k.tenant_id = a.tenant_id
     AND k.conversation_id = a.conversation_id AND k.generation_id IS NULL) AS kept_key,
  (SELECT k.wrapped FROM control.data_keys k WHERE k.tenant_id = a.tenant_id
     AND k.conversation_id = a.conversation_id AND k.generation_id = a.id) AS own_key
FROM asked a LEFT JOIN LATERAL (
  SELECT c.handed_on, c.attempt, c.recorded, c.repairs, c.worker, c.lease_until > now() AS held, c.cancel_requested,
         c.terminal
  FROM work.claims c WHERE c.generation_id = a.id OFFSET 0) c ON true
"""
_CLAIMED = """RETURNING c.repairs, c.cancel_requested,
  (SELECT k.wrapped FROM control.data_keys k WHERE k.tenant_id = c.tenant_id
     AND k.conversation_id = c.conversation_id AND k.generation_id IS NULL) AS kept_key,
  (SELECT k.wrapped FROM control.data_keys k WHERE k.tenant_id = c.tenant_id
     AND k.conversation_id = c.conversation_id AND k.generation_id = c.generation_id) AS own_key
"""
# What nobody runs is still as whoever asked saw it.
TAKE_OVER = f"""
UPDATE work.claims c SET attempt = attempt + 1, recorded = :lost, worker = :worker,
  lease_until = clock_timestamp() + make_interval(secs => :lease)
WHERE generation_id = :id AND attempt = :lost AND terminal IS NULL AND lease_until <= now()
  AND (recorded >= attempt) = :recorded
{_CLAIMED}"""  # noqa: S608 - made of this module's own text
REPAIR = f"""
UPDATE work.claims c SET attempt = attempt + 1, recorded = :unfit, repairs = repairs + 1,
  lease_until = clock_timestamp() + make_interval(secs => :lease)
WHERE generation_id = :id AND attempt = :unfit AND worker = :worker AND terminal IS NULL
{_CLAIMED}"""  # noqa: S608 - made of this module's own text
END_LOST = """
UPDATE work.claims SET attempt = attempt + 1, recorded = :lost, terminal = :terminal, ended_at = now(),
  lease_until = NULL
WHERE generation_id = :id AND attempt = :lost AND terminal IS NULL AND lease_until <= now()
  AND (recorded >= attempt) = :recorded
"""
HAND_ON = """
UPDATE work.claims SET pool = :pool, handed_on = :times, command = :command, recorded = :attempt, worker = NULL,
  repairs = 0, lease_until = now()
WHERE generation_id = :id AND attempt = :attempt AND handed_on = :times - 1 AND terminal IS NULL
  AND (worker = :worker OR lease_until <= now())
"""
END = """
WITH mine AS MATERIALIZED (
  SELECT generation_id FROM work.claims WHERE generation_id = ANY(CAST(:ids AS uuid[]))
  ORDER BY generation_id FOR UPDATE),
ended AS (
  UPDATE work.claims c SET terminal = e.terminal, ended_at = now(), lease_until = NULL
  FROM unnest(CAST(:ids AS uuid[]), CAST(:tenants AS uuid[]), CAST(:attempts AS integer[]),
              CAST(:terminals AS bytea[])) AS e(id, tenant_id, attempt, terminal)
  WHERE c.generation_id = ANY(ARRAY(SELECT generation_id FROM mine)) AND c.generation_id = e.id
    AND c.tenant_id = e.tenant_id AND c.attempt = e.attempt AND c.worker = :worker AND c.terminal IS NULL
  RETURNING c.generation_id),
dead AS (
  DELETE FROM control.data_keys
  WHERE generation_id IS NOT NULL AND generation_id = ANY(ARRAY(SELECT generation_id FROM ended)))
SELECT generation_id FROM ended
"""
HEARTBEAT = """
WITH mine AS MATERIALIZED (
  SELECT generation_id FROM work.claims WHERE worker = :worker AND terminal IS NULL ORDER BY generation_id FOR UPDATE)
UPDATE work.claims c SET lease_until = clock_timestamp() + make_interval(secs => :lease)
WHERE c.generation_id = ANY(ARRAY(SELECT generation_id FROM mine)) RETURNING c.generation_id, c.cancel_requested
"""
# What was to be cancelled meanwhile is released like any other, so that the wish is not lost.
UNCLAIM = """
WITH gone AS (
  DELETE FROM work.claims
  WHERE generation_id = :id AND attempt = 1 AND :attempt = 1 AND worker = :worker AND terminal IS NULL
    AND NOT cancel_requested
  RETURNING generation_id)
UPDATE work.claims SET lease_until = now(), worker = NULL,
  attempt = CASE WHEN attempt > 1 AND NOT cancel_requested THEN attempt - 1 ELSE attempt END
WHERE generation_id = :id AND attempt = :attempt AND worker = :worker AND terminal IS NULL
  AND generation_id NOT IN (SELECT generation_id FROM gone)
"""
