-- What a model wrote of a conversation up to a message, as it was published.
CREATE TABLE conversation_summaries (
  generation_id uuid NOT NULL,
  tenant_id uuid NOT NULL,
  conversation_id uuid NOT NULL,
  up_to_message_id uuid NOT NULL,
  content jsonb,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (tenant_id, generation_id)
);
CREATE INDEX summaries_by_conversation ON conversation_summaries (tenant_id, conversation_id, created_at DESC);
CREATE INDEX summaries_by_message ON conversation_summaries (tenant_id, up_to_message_id);
ALTER TABLE conversation_summaries ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON conversation_summaries TO parley_query_api, parley_worker USING (tenant_id = control.current_tenant());
CREATE POLICY every_tenant ON conversation_summaries TO parley_projections USING (true);
GRANT SELECT ON conversation_summaries TO parley_query_api, parley_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON conversation_summaries TO parley_projections;
