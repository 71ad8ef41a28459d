-- The data key of each conversation, wrapped by the master key. Without its row, what was written there is gone.
CREATE TABLE control.data_keys (
  tenant_id uuid NOT NULL,
  conversation_id uuid NOT NULL,
  user_id uuid,
  wrapped bytea NOT NULL,
  dies_at_end boolean NOT NULL,  -- the tenant keeps no content: the worker deletes the row with the terminal event
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, conversation_id)
);
CREATE INDEX data_keys_by_user ON control.data_keys (tenant_id, user_id) WHERE user_id IS NOT NULL;

ALTER TABLE control.data_keys ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON control.data_keys TO parley_command_api, parley_query_api USING (tenant_id = control.current_tenant());
CREATE POLICY every_tenant ON control.data_keys FOR SELECT TO parley_worker USING (true);
CREATE POLICY dying ON control.data_keys FOR DELETE TO parley_worker USING (dies_at_end);
GRANT SELECT, INSERT, DELETE ON control.data_keys TO parley_command_api;
GRANT SELECT ON control.data_keys TO parley_query_api;
GRANT SELECT, DELETE ON control.data_keys TO parley_worker;

ALTER TABLE control.tenants
  ADD COLUMN keeps_content boolean NOT NULL DEFAULT true,
  ADD COLUMN content_days integer CHECK (content_days > 0);
GRANT UPDATE (keeps_content, content_days) ON control.tenants TO parley_command_api;
