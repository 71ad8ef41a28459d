-- The bus. Why it is made like this: docs/adr/0001-bus-semantics.md.

CREATE TABLE bus.topics (
  topic_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name text NOT NULL UNIQUE,
  partitions integer NOT NULL CHECK (partitions BETWEEN 1 AND 1024)
);

-- The head row of a partition. Who publishes locks it until the commit, so that entries become visible in their order.
-- The lock writes no new version of the row: a long transaction elsewhere cannot bloat what every publish needs.
CREATE TABLE bus.partitions (
  topic_id integer NOT NULL REFERENCES bus.topics,
  partition integer NOT NULL,
  dropped bigint NOT NULL DEFAULT 0,  -- the newest entry that retention has dropped
  PRIMARY KEY (topic_id, partition)
);

-- messages → messages_<topic> → messages_<topic>_<day>, so that a topic nobody reads keeps no other topic's days.
CREATE TABLE bus.messages (
  topic_id integer NOT NULL,
  partition integer NOT NULL,
  entry bigint NOT NULL,
  published_at timestamptz NOT NULL,
  key bytea,
  payload bytea NOT NULL,
  properties bytea,
  PRIMARY KEY (topic_id, partition, entry, published_at)
) PARTITION BY LIST (topic_id);

CREATE TABLE bus.subscriptions (
  subscription_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  topic_id integer NOT NULL REFERENCES bus.topics,
  name text NOT NULL,
  mode text CHECK (mode IN ('shared', 'failover')),  -- of its first consumer
  UNIQUE (topic_id, name)
);

-- Who moves a subscription forward on a partition locks its row here.
CREATE TABLE bus.cursors (
  subscription_id integer NOT NULL REFERENCES bus.subscriptions,
  partition integer NOT NULL,
  owner_id uuid,  -- failover: the one reader
  PRIMARY KEY (subscription_id, partition)
);

-- Everything below the greatest next_entry was dealt out (shared) or acknowledged (failover). Rows are only added, and
-- lesser ones cleared away now and then: a counter that is updated would leave a trail of dead versions that every
-- look-up walks for as long as a long transaction elsewhere keeps them.
CREATE TABLE bus.progress (
  subscription_id integer NOT NULL REFERENCES bus.subscriptions,
  partition integer NOT NULL,
  next_entry bigint NOT NULL,
  PRIMARY KEY (subscription_id, partition, next_entry)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

CREATE TABLE bus.consumers (
  consumer_id uuid PRIMARY KEY,
  lease_s double precision NOT NULL,
  lease_until timestamptz NOT NULL
) WITH (fillfactor = 30, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);

CREATE TABLE bus.members (
  subscription_id integer NOT NULL REFERENCES bus.subscriptions,
  consumer_id uuid NOT NULL REFERENCES bus.consumers ON DELETE CASCADE,
  PRIMARY KEY (subscription_id, consumer_id)
);
CREATE INDEX members_by_consumer ON bus.members (consumer_id);

-- Shared: what was dealt out and not yet acknowledged. Without a consumer it waits for one, from available_at on.
CREATE TABLE bus.deliveries (
  subscription_id integer NOT NULL,
  partition integer NOT NULL,
  entry bigint NOT NULL,
  consumer_id uuid,
  available_at timestamptz NOT NULL,
  PRIMARY KEY (subscription_id, partition, entry)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
CREATE INDEX deliveries_waiting ON bus.deliveries (subscription_id, available_at) WHERE consumer_id IS NULL;
CREATE INDEX deliveries_by_consumer ON bus.deliveries (consumer_id) WHERE consumer_id IS NOT NULL;

-- Makes one day's table, with the owner's rights: the roles own nothing. ATTACH waits for no reader and no writer,
-- which CREATE TABLE … PARTITION OF would.
CREATE FUNCTION bus.make_day(topic integer, day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  parent text := format('messages_%s', topic);
  leaf text := format('messages_%s_%s', topic, to_char(day, 'YYYYMMDD'));
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('bus.make_day'), topic);
  IF to_regclass(format('bus.%I', parent)) IS NULL OR to_regclass(format('bus.%I', leaf)) IS NOT NULL THEN
    RETURN;
  END IF;
  EXECUTE format('CREATE TABLE bus.%I (LIKE bus.%I INCLUDING ALL)', leaf, parent);
  EXECUTE format(
    'ALTER TABLE bus.%I ATTACH PARTITION bus.%I FOR VALUES FROM (%L) TO (%L)',
    parent, leaf, day::timestamp AT TIME ZONE 'UTC', (day + 1)::timestamp AT TIME ZONE 'UTC');
END $$;

CREATE FUNCTION bus.create_topic(topic text, parts integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  id integer;
  today date := (clock_timestamp() AT TIME ZONE 'UTC')::date;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('bus.create_topic'), hashtext(topic));
  SELECT t.topic_id INTO id FROM bus.topics t WHERE t.name = topic;
  IF id IS NOT NULL THEN
    RETURN id;
  END IF;
  INSERT INTO bus.topics (name, partitions) VALUES (topic, parts) RETURNING topic_id INTO id;
  INSERT INTO bus.partitions (topic_id, partition) SELECT id, g FROM generate_series(0, parts - 1) g;
  EXECUTE format(
    'CREATE TABLE bus.%I (LIKE bus.messages INCLUDING ALL) PARTITION BY RANGE (published_at)', 'messages_' || id);
  EXECUTE format('ALTER TABLE bus.messages ATTACH PARTITION bus.%I FOR VALUES IN (%s)', 'messages_' || id, id);
  PERFORM bus.make_day(id, today), bus.make_day(id, today + 1);
  RETURN id;
END $$;

CREATE FUNCTION bus.days() RETURNS TABLE (topic_id integer, day date, leaf text)
LANGUAGE sql STABLE AS $$
  SELECT t.topic_id, to_date(right(c.relname, 8), 'YYYYMMDD'), c.relname::text
  FROM bus.topics t
  JOIN pg_inherits i ON i.inhparent = to_regclass('bus.messages_' || t.topic_id)
  JOIN pg_class c ON c.oid = i.inhrelid
$$;

-- Drops one day's table if every subscription of its topic is past all of it; says whether it did. Waits 100 ms at most
-- for those who use the topic (and they for it): raises lock_not_available where a long transaction reads it.
CREATE FUNCTION bus.drop_day(topic integer, wanted date) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '100ms' AS $$
#variable_conflict use_column
DECLARE
  leaf_name text;
  part integer;
  newest bigint;
BEGIN
  SELECT d.leaf INTO leaf_name FROM bus.days() d WHERE d.topic_id = topic AND d.day = wanted;
  IF leaf_name IS NULL THEN
    RETURN false;
  END IF;
  FOR part IN SELECT p.partition FROM bus.partitions p WHERE p.topic_id = topic ORDER BY p.partition FOR UPDATE LOOP
    EXECUTE format('SELECT max(entry) FROM bus.%I WHERE topic_id = $1 AND partition = $2', leaf_name)
      INTO newest USING topic, part;
    CONTINUE WHEN newest IS NULL;
    IF EXISTS (
      SELECT FROM bus.subscriptions s
      WHERE s.topic_id = topic AND (bus.next_entry(s.subscription_id, part) <= newest OR EXISTS (
        SELECT FROM bus.deliveries d
        WHERE d.subscription_id = s.subscription_id AND d.partition = part AND d.entry <= newest)))
    THEN
      RETURN false;
    END IF;
    UPDATE bus.partitions p SET dropped = newest WHERE p.topic_id = topic AND p.partition = part AND p.dropped < newest;
  END LOOP;
  EXECUTE format('DROP TABLE bus.%I', leaf_name);
  RETURN true;
END $$;

-- The newest entry of a partition; 0 where nothing was ever published.
CREATE FUNCTION bus.newest(topic integer, part integer) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
  found_entry bigint;
BEGIN
  SELECT m.entry INTO found_entry FROM bus.messages m
  WHERE m.topic_id = topic AND m.partition = part ORDER BY m.entry DESC LIMIT 1;
  IF found_entry IS NULL THEN
    SELECT p.dropped INTO found_entry FROM bus.partitions p WHERE p.topic_id = topic AND p.partition = part;
  END IF;
  RETURN found_entry;
END $$;

-- How far a subscription has come on a partition.
CREATE FUNCTION bus.next_entry(sub integer, part integer) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
  reached bigint;
BEGIN
  SELECT p.next_entry INTO reached FROM bus.progress p
  WHERE p.subscription_id = sub AND p.partition = part ORDER BY p.next_entry DESC LIMIT 1;
  RETURN reached;
END $$;

-- Appends a batch, and returns for each partition in it the entry that its first message follows. Locks the heads, in
-- one order, before it looks at them: only a statement that begins after the lock sees what the one before committed.
CREATE FUNCTION bus.publish(topic integer, parts integer[], keys bytea[], payloads bytea[], props bytea[])
RETURNS TABLE (partition integer, base bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  slots integer[];
  bases bigint[];
  moment timestamptz;
BEGIN
  SELECT array_agg(h.partition), array_agg(h.dropped) INTO slots, bases
  FROM (SELECT p.partition, p.dropped FROM bus.partitions p
        WHERE p.topic_id = topic AND p.partition = ANY (parts) ORDER BY p.partition FOR UPDATE) h;
  IF slots IS NULL THEN
    RETURN;
  END IF;
  FOR i IN 1 .. cardinality(slots) LOOP
    bases[i] := greatest(bases[i], bus.newest(topic, slots[i]));
  END LOOP;
  moment := clock_timestamp();
  INSERT INTO bus.messages (topic_id, partition, entry, published_at, key, payload, properties)
  SELECT topic, u.part, bases[array_position(slots, u.part)] + row_number() OVER (PARTITION BY u.part ORDER BY u.place),
         moment, u.key, u.payload, u.props
  FROM unnest(parts, keys, payloads, props) WITH ORDINALITY AS u (part, key, payload, props, place)
  WHERE u.part = ANY (slots);
  PERFORM pg_notify('bus_topic_' || topic, array_to_string(slots, ','));
  RETURN QUERY SELECT s.slot, s.first_base FROM unnest(slots, bases) AS s (slot, first_base);
END $$;

-- Makes the subscription where it is not there yet.
CREATE FUNCTION bus.ensure_subscription(topic integer, subscription text, from_earliest boolean) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
  id integer;
BEGIN
  SELECT s.subscription_id INTO id FROM bus.subscriptions s WHERE s.topic_id = topic AND s.name = subscription;
  IF id IS NOT NULL THEN
    RETURN id;
  END IF;
  INSERT INTO bus.subscriptions AS s (topic_id, name) VALUES (topic, subscription)
  ON CONFLICT (topic_id, name) DO NOTHING RETURNING s.subscription_id INTO id;
  IF id IS NULL THEN
    SELECT s.subscription_id INTO id FROM bus.subscriptions s WHERE s.topic_id = topic AND s.name = subscription;
    RETURN id;
  END IF;
  INSERT INTO bus.cursors (subscription_id, partition) SELECT id, p.partition FROM bus.partitions p WHERE p.topic_id = topic;
  INSERT INTO bus.progress (subscription_id, partition, next_entry)
  SELECT id, p.partition, 1 + CASE WHEN from_earliest THEN p.dropped ELSE bus.newest(topic, p.partition) END
  FROM bus.partitions p WHERE p.topic_id = topic;
  RETURN id;
END $$;

-- Fixes the mode of subscriptions that have none, and returns those (of any) whose mode is another one.
CREATE FUNCTION bus.set_mode(subs integer[], wanted text) RETURNS TABLE (subscription_id integer)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  UPDATE bus.subscriptions s SET mode = wanted WHERE s.subscription_id = ANY (subs) AND s.mode IS NULL;
  RETURN QUERY SELECT s.subscription_id FROM bus.subscriptions s WHERE s.subscription_id = ANY (subs) AND s.mode <> wanted;
END $$;

CREATE FUNCTION bus.join(me uuid, subs integer[], lease double precision) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO bus.consumers AS c (consumer_id, lease_s, lease_until)
  VALUES (me, lease, clock_timestamp() + make_interval(secs => lease))
  ON CONFLICT (consumer_id) DO UPDATE SET lease_until = excluded.lease_until;
  INSERT INTO bus.members (subscription_id, consumer_id) SELECT unnest(subs), me ON CONFLICT DO NOTHING;
  PERFORM pg_notify('bus_subscription_' || sub, '') FROM unnest(subs) sub;
END $$;

-- Frees what the consumers hold: what is left of them, after they closed or died.
CREATE FUNCTION bus.leave(gone uuid[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
  subs integer[];
BEGIN
  SELECT array_agg(DISTINCT m.subscription_id) INTO subs FROM bus.members m WHERE m.consumer_id = ANY (gone);
  DELETE FROM bus.consumers c WHERE c.consumer_id = ANY (gone);
  UPDATE bus.deliveries d SET consumer_id = NULL, available_at = clock_timestamp() WHERE d.consumer_id = ANY (gone);
  UPDATE bus.cursors c SET owner_id = NULL WHERE c.subscription_id = ANY (subs) AND c.owner_id = ANY (gone);
  PERFORM pg_notify('bus_subscription_' || sub, '') FROM unnest(subs) sub;
END $$;

-- Renews the leases of a process's consumers, buries those of any process that ran out, and tidies up; returns who of
-- `mine` is still known. After a restart of the server everybody has one lease's time to come back.
CREATE FUNCTION bus.beat(mine uuid[]) RETURNS SETOF uuid
LANGUAGE plpgsql AS $$
DECLARE
  dead uuid[];
BEGIN
  PERFORM set_config('synchronous_commit', 'off', true);
  RETURN QUERY UPDATE bus.consumers c SET lease_until = clock_timestamp() + make_interval(secs => c.lease_s)
  WHERE c.consumer_id = ANY (mine) RETURNING c.consumer_id;
  SELECT array_agg(x.consumer_id) INTO dead FROM (
    SELECT c.consumer_id FROM bus.consumers c
    WHERE c.lease_until < clock_timestamp()
      AND pg_postmaster_start_time() + make_interval(secs => c.lease_s) < clock_timestamp()
    FOR UPDATE SKIP LOCKED) x;
  IF dead IS NOT NULL THEN
    PERFORM bus.leave(dead);
  END IF;
  IF pg_try_advisory_xact_lock(hashtext('bus.progress'), 0) THEN
    DELETE FROM bus.progress p
    USING (SELECT c.subscription_id, c.partition, bus.next_entry(c.subscription_id, c.partition) AS reached
           FROM bus.cursors c) c
    WHERE p.subscription_id = c.subscription_id AND p.partition = c.partition AND p.next_entry < c.reached;
  END IF;
END $$;

-- Deals up to `wanted` messages to a shared consumer, looking for new ones in the partitions named. Half of what is
-- wanted (by lot, where it is odd) may come back from others first, so that neither new nor returned messages starve;
-- new ones are taken from the partitions in turns, so that a full partition does not hide a light one.
-- Rows of state `message`, then at most one of each: `gone` (the lease ran out and others took over), `busy` (somebody
-- is just taking from a partition: ask again), `due` (seconds until a message comes back).
CREATE FUNCTION bus.take(me uuid, wanted integer, subs integer[], fresh_subs integer[], fresh_parts integer[])
RETURNS TABLE (
  state text, subscription_id integer, partition integer, entry bigint, key bytea, payload bytea, properties bytea,
  seconds double precision)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
  room integer := wanted;
  share integer := floor(wanted / 2.0 + random());
  got integer;
  candidate_subs integer[];
  candidate_parts integer[];
  locked_subs integer[];
  locked_parts integer[];
BEGIN
  -- A take that a crash of the server forgets is dealt again; an acknowledgement flushes the take before it.
  PERFORM set_config('synchronous_commit', 'off', true);
  PERFORM FROM bus.consumers c WHERE c.consumer_id = me FOR KEY SHARE;
  IF NOT FOUND THEN
    RETURN QUERY SELECT 'gone', NULL::integer, NULL::integer, NULL::bigint, NULL::bytea, NULL::bytea, NULL::bytea,
                        NULL::double precision;
    RETURN;
  END IF;

  FOR turn IN 1 .. 2 LOOP
    IF share > 0 THEN
      RETURN QUERY
      WITH due AS MATERIALIZED (
        SELECT d.subscription_id, d.partition, d.entry FROM bus.deliveries d
        WHERE d.subscription_id = ANY (subs) AND d.consumer_id IS NULL AND d.available_at <= clock_timestamp()
        ORDER BY d.available_at LIMIT share FOR UPDATE SKIP LOCKED),
      mine AS (
        UPDATE bus.deliveries d SET consumer_id = me FROM due
        WHERE (d.subscription_id, d.partition, d.entry) = (due.subscription_id, due.partition, due.entry)
        RETURNING d.subscription_id, d.partition, d.entry)
      SELECT 'message', x.subscription_id, x.partition, x.entry, m.key, m.payload, m.properties, NULL::double precision
      FROM mine x JOIN bus.subscriptions s ON s.subscription_id = x.subscription_id
      JOIN bus.messages m ON m.topic_id = s.topic_id AND m.partition = x.partition AND m.entry = x.entry;
      GET DIAGNOSTICS got = ROW_COUNT;
      room := room - got;
    END IF;
    EXIT WHEN turn = 2 OR room = 0;

    SELECT array_agg(c.subscription_id), array_agg(c.partition) INTO candidate_subs, candidate_parts
    FROM unnest(fresh_subs, fresh_parts) AS f (sub, part)
    JOIN bus.cursors c ON c.subscription_id = f.sub AND c.partition = f.part
    JOIN bus.subscriptions s ON s.subscription_id = f.sub
    WHERE bus.newest(s.topic_id, c.partition) >= bus.next_entry(c.subscription_id, c.partition);
    IF candidate_subs IS NOT NULL THEN
      SELECT array_agg(l.subscription_id), array_agg(l.partition) INTO locked_subs, locked_parts
      FROM (SELECT c.subscription_id, c.partition FROM unnest(candidate_subs, candidate_parts) AS f (sub, part)
            JOIN bus.cursors c ON c.subscription_id = f.sub AND c.partition = f.part
            FOR UPDATE OF c SKIP LOCKED) l;
      RETURN QUERY
      WITH fresh AS MATERIALIZED (
        SELECT l.sub, l.part, m.entry, m.key, m.payload, m.properties
        FROM (SELECT sub, part, bus.next_entry(sub, part) AS next_entry, random() AS lot
              FROM unnest(locked_subs, locked_parts) AS u (sub, part)) l
        JOIN bus.subscriptions s ON s.subscription_id = l.sub
        CROSS JOIN LATERAL (
          SELECT m.entry, m.key, m.payload, m.properties, row_number() OVER (ORDER BY m.entry) AS rank
          FROM bus.messages m
          WHERE m.topic_id = s.topic_id AND m.partition = l.part AND m.entry >= l.next_entry
          ORDER BY m.entry LIMIT room) m
        ORDER BY m.rank, l.lot LIMIT room),
      dealt AS (
        INSERT INTO bus.deliveries (subscription_id, partition, entry, consumer_id, available_at)
        SELECT f.sub, f.part, f.entry, me, clock_timestamp() FROM fresh f),
      moved AS (
        INSERT INTO bus.progress (subscription_id, partition, next_entry)
        SELECT f.sub, f.part, max(f.entry) + 1 FROM fresh f GROUP BY f.sub, f.part)
      SELECT 'message', f.sub, f.part, f.entry, f.key, f.payload, f.properties, NULL::double precision FROM fresh f;
      GET DIAGNOSTICS got = ROW_COUNT;
      room := room - got;
      IF room > 0 AND cardinality(candidate_subs) > coalesce(cardinality(locked_subs), 0) THEN
        RETURN QUERY SELECT 'busy', NULL::integer, NULL::integer, NULL::bigint, NULL::bytea, NULL::bytea, NULL::bytea,
                            NULL::double precision;
      END IF;
    END IF;
    share := room;
  END LOOP;

  IF room = wanted THEN
    RETURN QUERY
    SELECT 'due', NULL::integer, NULL::integer, NULL::bigint, NULL::bytea, NULL::bytea, NULL::bytea,
           greatest(0, extract(epoch FROM min(d.available_at) - clock_timestamp()))::double precision
    FROM bus.deliveries d WHERE d.subscription_id = ANY (subs) AND d.consumer_id IS NULL
    HAVING min(d.available_at) IS NOT NULL;
  END IF;
END $$;

-- Frees what was dealt to a shared consumer without its knowledge (a reply was lost). Waits for a take under way.
CREATE FUNCTION bus.keep_only(me uuid, subs integer[], parts integer[], entries bigint[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  PERFORM FROM bus.consumers c WHERE c.consumer_id = me FOR UPDATE;
  UPDATE bus.deliveries d SET consumer_id = NULL, available_at = clock_timestamp()
  WHERE d.consumer_id = me AND (d.subscription_id, d.partition, d.entry) NOT IN (
    SELECT u.sub, u.part, u.entry FROM unnest(subs, parts, entries) AS u (sub, part, entry));
  PERFORM pg_notify('bus_subscription_' || m.subscription_id, '') FROM bus.members m WHERE m.consumer_id = me;
END $$;

-- Makes `me` the one reader of those of the partitions that have none.
CREATE FUNCTION bus.claim(me uuid, subs integer[], parts integer[])
RETURNS TABLE (subscription_id integer, partition integer, next_entry bigint)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
  PERFORM FROM bus.consumers c WHERE c.consumer_id = me FOR KEY SHARE;
  IF FOUND THEN
    UPDATE bus.cursors c SET owner_id = me FROM unnest(subs, parts) AS u (sub, part)
    WHERE c.subscription_id = u.sub AND c.partition = u.part AND (c.owner_id IS NULL OR c.owner_id = me);
    -- A statement of its own, to see what the owner before acknowledged last.
    RETURN QUERY SELECT c.subscription_id, c.partition, bus.next_entry(c.subscription_id, c.partition)
    FROM unnest(subs, parts) AS u (sub, part)
    JOIN bus.cursors c ON c.subscription_id = u.sub AND c.partition = u.part WHERE c.owner_id = me;
  END IF;
END $$;

REVOKE ALL ON FUNCTION bus.make_day(integer, date), bus.create_topic(text, integer), bus.drop_day(integer, date) FROM public;
GRANT EXECUTE ON FUNCTION bus.make_day(integer, date), bus.create_topic(text, integer), bus.drop_day(integer, date)
  TO parley_command_api, parley_query_api, parley_worker, parley_projections, parley_relay;
GRANT SELECT ON bus.topics TO parley_command_api, parley_query_api, parley_worker, parley_projections, parley_relay;
-- Locking a row needs the right to update it.
GRANT SELECT, UPDATE ON bus.partitions TO parley_command_api, parley_query_api, parley_worker, parley_projections, parley_relay;
GRANT SELECT, INSERT ON bus.messages TO parley_command_api, parley_query_api, parley_worker, parley_projections, parley_relay;
GRANT SELECT, INSERT, UPDATE ON bus.subscriptions, bus.cursors
  TO parley_command_api, parley_query_api, parley_worker, parley_projections, parley_relay;
GRANT SELECT, INSERT, UPDATE, DELETE ON bus.consumers, bus.members, bus.deliveries, bus.progress
  TO parley_command_api, parley_query_api, parley_worker, parley_projections, parley_relay;
