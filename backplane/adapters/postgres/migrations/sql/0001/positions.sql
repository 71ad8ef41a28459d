-- How far the projections have come on each partition of the bus, moved in the transaction of the writes.
CREATE TABLE read_models.positions (
  topic text NOT NULL,
  partition integer NOT NULL,
  ledger bigint NOT NULL,
  entry bigint NOT NULL,
  PRIMARY KEY (topic, partition)
);
GRANT SELECT ON read_models.positions TO parley_query_api, parley_command_api;
GRANT SELECT, INSERT, UPDATE ON read_models.positions TO parley_projections;
