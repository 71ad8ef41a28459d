-- Apps of tenants in Slack, Discord or Microsoft Teams, whose users ask there as who added the app.
CREATE TABLE control.chat_tools (
  chat_tool_id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL,
  kind text NOT NULL CHECK (kind IN ('slack', 'discord', 'teams')),
  name text NOT NULL,
  persona text,
  model text,
  key_id uuid NOT NULL,
  user_id uuid,
  sealed bytea,  -- null: its secrets are not known yet, and it is answered nothing
  added_at timestamptz NOT NULL DEFAULT now(),
  last_failure text,
  last_failed_at timestamptz
);
CREATE INDEX chat_tools_by_tenant ON control.chat_tools (tenant_id);

-- Which conversation a thread there is.
CREATE TABLE control.chat_threads (
  tenant_id uuid NOT NULL,
  chat_tool_id uuid NOT NULL REFERENCES control.chat_tools ON DELETE CASCADE,
  thread text NOT NULL,
  conversation_id uuid NOT NULL,
  PRIMARY KEY (chat_tool_id, thread)
);

-- Questions that were asked there, until days after each was answered there. `sealed` is the question, until it is a
-- prompt, and where the answer goes; `taker` has the lease on bringing it there.
CREATE TABLE control.chat_replies (
  chat_reply_id uuid PRIMARY KEY,
  tenant_id uuid NOT NULL,
  chat_tool_id uuid NOT NULL REFERENCES control.chat_tools ON DELETE CASCADE,
  event text NOT NULL,  -- the tool's own name of it, by which it is known when it comes again
  thread text NOT NULL,
  sealed bytea,
  generation_id uuid,
  refusal text,  -- what is said in place of an answer
  messages text[] NOT NULL DEFAULT '{}',  -- what the answer stands in there, in order
  told integer NOT NULL DEFAULT 0,  -- parts of it that were told whole, where nothing can be edited
  failures integer NOT NULL DEFAULT 0,
  next_try_at timestamptz NOT NULL DEFAULT now(),
  taker uuid,
  lease_until timestamptz,
  accepted_at timestamptz NOT NULL DEFAULT now(),
  ended_at timestamptz,
  UNIQUE (chat_tool_id, event),
  CHECK ((sealed IS NULL) = (ended_at IS NOT NULL))
);
CREATE INDEX chat_replies_due ON control.chat_replies (next_try_at) WHERE ended_at IS NULL;
CREATE INDEX chat_replies_asked ON control.chat_replies (chat_tool_id, thread, chat_reply_id);
CREATE INDEX chat_replies_ended ON control.chat_replies (ended_at) WHERE ended_at IS NOT NULL;

ALTER TABLE control.chat_tools ENABLE ROW LEVEL SECURITY;
ALTER TABLE control.chat_threads ENABLE ROW LEVEL SECURITY;
ALTER TABLE control.chat_replies ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON control.chat_tools TO parley_command_api USING (tenant_id = control.current_tenant());
CREATE POLICY tenant ON control.chat_threads TO parley_command_api USING (tenant_id = control.current_tenant());
CREATE POLICY tenant ON control.chat_replies TO parley_command_api USING (tenant_id = control.current_tenant());

-- What is sealed only the relay gets, by the functions below; it may do nothing else here.
GRANT SELECT (chat_tool_id, tenant_id, kind, name, persona, model, key_id, user_id, added_at, last_failure, last_failed_at)
  ON control.chat_tools TO parley_command_api;
GRANT INSERT, DELETE, UPDATE (sealed, last_failure, last_failed_at) ON control.chat_tools TO parley_command_api;
GRANT SELECT, INSERT, DELETE ON control.chat_threads TO parley_command_api;
GRANT SELECT (chat_reply_id, tenant_id, chat_tool_id, event, thread, generation_id, refusal, messages, told, failures,
              next_try_at, taker, lease_until, accepted_at, ended_at) ON control.chat_replies TO parley_command_api;
GRANT INSERT, UPDATE (thread, sealed, generation_id, refusal, messages, told, failures, next_try_at, taker, lease_until,
                      ended_at) ON control.chat_replies TO parley_command_api;

-- Whose tool it is that a request names, and what proves that the request is the tool's. Whether its tenant is known is
-- proved only by that.
CREATE FUNCTION control.chat_tool(wanted uuid)
RETURNS TABLE (chat_tool_id uuid, tenant_id uuid, kind text, sealed bytea)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT t.chat_tool_id, t.tenant_id, t.kind, t.sealed FROM control.chat_tools t WHERE t.chat_tool_id = wanted $$;

-- Leases on questions that are open, of all tenants, so with the owner's eyes; in a thread none before those that were
-- asked earlier are prompts.
CREATE FUNCTION control.take_chat_replies(new_taker uuid, lease_s float8, most integer)
RETURNS TABLE (chat_reply_id uuid, tenant_id uuid, chat_tool_id uuid, kind text, persona text, model text, key_id uuid,
               user_id uuid, secrets bytea, event text, thread text, sealed bytea, generation_id uuid, refusal text,
               messages text[], failures integer, age_s float8)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
  -- One at a time, each with a snapshot of its own: of two questions in a thread the later one may be committed first, and
  -- whoever takes the other must see that it is being asked.
  PERFORM pg_advisory_xact_lock(hashtextextended('control.take_chat_replies', 0));
  RETURN QUERY WITH due AS MATERIALIZED (
    SELECT r.chat_reply_id FROM control.chat_replies r
    WHERE r.ended_at IS NULL AND r.next_try_at <= statement_timestamp()
      AND (r.lease_until IS NULL OR r.lease_until <= statement_timestamp())
      AND (r.generation_id IS NOT NULL OR r.refusal IS NOT NULL OR NOT EXISTS (
        SELECT FROM control.chat_replies e
        WHERE e.chat_tool_id = r.chat_tool_id AND e.thread = r.thread AND e.chat_reply_id <> r.chat_reply_id
          AND (e.chat_reply_id < r.chat_reply_id OR e.lease_until > statement_timestamp())
          AND e.ended_at IS NULL AND e.generation_id IS NULL AND e.refusal IS NULL))
    ORDER BY r.next_try_at LIMIT most FOR UPDATE OF r SKIP LOCKED)
  UPDATE control.chat_replies r
  SET taker = new_taker, lease_until = statement_timestamp() + make_interval(secs => lease_s)
  FROM due, control.chat_tools t
  WHERE r.chat_reply_id = due.chat_reply_id AND t.chat_tool_id = r.chat_tool_id
  RETURNING r.chat_reply_id, r.tenant_id, r.chat_tool_id, t.kind, t.persona, t.model, t.key_id, t.user_id, t.sealed, r.event,
    r.thread, r.sealed, r.generation_id, r.refusal, r.messages, r.failures,
    extract(epoch FROM statement_timestamp() - r.accepted_at)::float8;
END $$;

-- What was answered days ago, when no tool asks again. Returns how many.
CREATE FUNCTION control.forget_chat_replies() RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  WITH gone AS (
    DELETE FROM control.chat_replies WHERE ended_at < now() - interval '2 days' RETURNING 1)
  SELECT count(*) FROM gone
$$;

REVOKE ALL ON FUNCTION control.chat_tool(uuid) FROM public;
REVOKE ALL ON FUNCTION control.take_chat_replies(uuid, float8, integer) FROM public;
REVOKE ALL ON FUNCTION control.forget_chat_replies() FROM public;
GRANT EXECUTE ON FUNCTION control.chat_tool(uuid) TO parley_relay;
GRANT EXECUTE ON FUNCTION control.take_chat_replies(uuid, float8, integer) TO parley_relay;
GRANT EXECUTE ON FUNCTION control.forget_chat_replies() TO parley_relay;
