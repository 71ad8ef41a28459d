-- Dead letters over the API. The relay's role may consume what waits for operators, and sees nothing else of the bus: of
-- every table only the rows of the subscription `operators` on dead-letter topics. Others see what they saw before.
CREATE FUNCTION bus.sees_to_dead_letters(consumer uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT NOT EXISTS (
    SELECT FROM bus.members m
    JOIN bus.subscriptions s ON s.subscription_id = m.subscription_id
    JOIN bus.topics t ON t.topic_id = s.topic_id
    WHERE m.consumer_id = consumer AND NOT (s.name = 'operators' AND t.name LIKE '%-dlq'))
$$;
REVOKE ALL ON FUNCTION bus.sees_to_dead_letters(uuid) FROM public;

DO $$
DECLARE name text;
BEGIN
  FOREACH name IN ARRAY ARRAY['messages', 'subscriptions', 'cursors', 'progress', 'members', 'deliveries', 'consumers']
  LOOP
    EXECUTE format('ALTER TABLE bus.%I ENABLE ROW LEVEL SECURITY', name);
    EXECUTE format('CREATE POLICY services ON bus.%I TO parley_worker, parley_projections USING (true)', name);
  END LOOP;
  FOREACH name IN ARRAY ARRAY['cursors', 'progress', 'members', 'deliveries']
  LOOP
    -- Of subscriptions it sees its own alone.
    EXECUTE format(
      'CREATE POLICY dead_letters ON bus.%I TO parley_relay
       USING (subscription_id = ANY (ARRAY(SELECT s.subscription_id FROM bus.subscriptions s)))', name);
  END LOOP;
END $$;
CREATE POLICY dead_letters ON bus.messages TO parley_relay
  USING (topic_id = ANY (ARRAY(SELECT t.topic_id FROM bus.topics t WHERE t.name LIKE '%-dlq')));
CREATE POLICY dead_letters ON bus.subscriptions TO parley_relay
  USING (name = 'operators' AND topic_id = ANY (ARRAY(SELECT t.topic_id FROM bus.topics t WHERE t.name LIKE '%-dlq')));
CREATE POLICY dead_letters ON bus.consumers TO parley_relay USING (bus.sees_to_dead_letters(consumer_id));

GRANT USAGE ON SCHEMA bus TO parley_relay;
GRANT EXECUTE ON FUNCTION bus.sees_to_dead_letters(uuid), bus.backlog(integer, text),
  bus.publish(integer, integer[], bytea[], bytea[], bytea[]) TO parley_relay;
GRANT SELECT ON bus.topics, bus.partitions, bus.messages TO parley_relay;
-- Locking a row needs the right to update it.
GRANT SELECT, UPDATE (mode) ON bus.subscriptions TO parley_relay;
GRANT SELECT, UPDATE (owner_id) ON bus.cursors TO parley_relay;
GRANT SELECT, INSERT, DELETE ON bus.progress TO parley_relay;
GRANT SELECT, INSERT ON bus.members TO parley_relay;
GRANT SELECT, INSERT, UPDATE, DELETE ON bus.consumers, bus.deliveries TO parley_relay;
