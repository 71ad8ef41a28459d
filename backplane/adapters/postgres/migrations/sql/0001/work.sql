-- Who runs a generation, which attempt it is, and how it ended. Decides; Redis never does.
CREATE TABLE work.claims (
  generation_id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL,
  conversation_id uuid NOT NULL,
  pool text NOT NULL,
  attempt integer NOT NULL,
  worker text,
  lease_until timestamptz,
  cancel_requested boolean NOT NULL DEFAULT false,
  message_ids uuid[] NOT NULL,
  command bytea,
  terminal bytea,
  created_at timestamptz NOT NULL DEFAULT now(),
  ended_at timestamptz
);
-- A conversation runs one generation at a time.
CREATE UNIQUE INDEX claims_one_running ON work.claims (conversation_id) WHERE terminal IS NULL;
CREATE INDEX claims_by_worker ON work.claims (worker) WHERE terminal IS NULL;
CREATE INDEX claims_by_message ON work.claims USING gin (message_ids);
CREATE INDEX claims_by_end ON work.claims (ended_at) WHERE terminal IS NOT NULL;
GRANT SELECT, INSERT, UPDATE, DELETE ON work.claims TO parley_worker;
