-- Who only publishes reads nobody's messages: the APIs publish and count through functions that act with the owner's
-- rights, and have no right to the tables behind them. The relay publishes as the command API and needs no bus at all.
ALTER FUNCTION bus.publish(integer, integer[], bytea[], bytea[], bytea[])
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

-- The newest entry of each partition; 0 where nothing was ever published.
CREATE FUNCTION bus.heads(topic integer) RETURNS TABLE (partition integer, newest bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT p.partition, bus.newest(p.topic_id, p.partition) FROM bus.partitions p WHERE p.topic_id = topic ORDER BY p.partition
$$;

-- Messages of each partition that a subscription has not acknowledged. One that is not there yet would begin with the
-- oldest message kept.
CREATE FUNCTION bus.backlog(topic integer, subscription text) RETURNS TABLE (partition integer, messages bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT p.partition,
         bus.newest(p.topic_id, p.partition) + 1
         - coalesce(bus.next_entry(s.subscription_id, p.partition), p.dropped + 1) + (
           SELECT count(*) FROM bus.deliveries d
           WHERE d.subscription_id = s.subscription_id AND d.partition = p.partition)
  FROM bus.partitions p
  LEFT JOIN bus.subscriptions s ON s.topic_id = p.topic_id AND s.name = subscription
  WHERE p.topic_id = topic
  ORDER BY p.partition
$$;

REVOKE ALL ON FUNCTION bus.publish(integer, integer[], bytea[], bytea[], bytea[]), bus.heads(integer),
  bus.backlog(integer, text) FROM public;
GRANT EXECUTE ON FUNCTION bus.publish(integer, integer[], bytea[], bytea[], bytea[]), bus.heads(integer),
  bus.backlog(integer, text) TO parley_command_api, parley_query_api, parley_worker, parley_projections;

REVOKE ALL ON ALL TABLES IN SCHEMA bus FROM parley_command_api, parley_query_api, parley_relay;
GRANT SELECT ON bus.topics TO parley_command_api, parley_query_api;
REVOKE EXECUTE ON FUNCTION bus.create_topic(text, integer), bus.drop_day(integer, date)
  FROM parley_command_api, parley_query_api, parley_relay;
REVOKE EXECUTE ON FUNCTION bus.make_day(integer, date) FROM parley_relay;
REVOKE USAGE ON SCHEMA bus FROM parley_relay;
