"""SQL of messages."""

from __future__ import annotations

from uuid import UUID

from backplane.ports.database import Row, TenantSession

# Of a fork, what was said before it, too, which stands in the conversations that it came from, under their keys. A
# prompt stands with its answer, which need not be on the way to where it was forked.
_MESSAGES = """
    WITH RECURSIVE shared AS (
      SELECT m.id, m.parent_message_id FROM read_models.conversations c
      JOIN read_models.messages m ON m.tenant_id = c.tenant_id AND m.id = c.forked_at_message
      WHERE c.tenant_id = :tenant AND c.id = :id
      UNION
      SELECT m.id, m.parent_message_id FROM shared s
      JOIN read_models.messages m ON m.tenant_id = :tenant AND m.id = s.parent_message_id)
    SELECT m.id, m.conversation_id, m.parent_message_id, m.role, m.answer, m.ordinal, m.status, m.attempt, m.model,
           m.served_model, m.generation_id, m.created_at, m.erased, coalesce(m.prompt, a.prompt) AS prompt,
           CASE WHEN m.conversation_id <> :id THEN (
             SELECT k.wrapped FROM control.data_keys k WHERE k.tenant_id = m.tenant_id
               AND k.conversation_id = m.conversation_id AND k.generation_id IS NULL) END AS wrapped
    FROM read_models.messages m
    LEFT JOIN read_models.messages a
      ON m.conversation_id <> :id AND a.tenant_id = m.tenant_id AND a.id = m.generation_id
    WHERE m.tenant_id = :tenant AND (m.conversation_id = :id OR m.id IN (SELECT id FROM shared))
    ORDER BY m.created_at, m.generation_id, m.ordinal
"""


async def messages(session: TenantSession, conversation_id: UUID) -> list[Row]:
    """Oldest first; of a prompt, in the order of its messages."""
    return await session.all(_MESSAGES, tenant=session.tenant_id, id=conversation_id)


# Up from the answer over what its own prompt wrote.
_ANSWER_BEFORE = """
    WITH RECURSIVE own AS (
      SELECT m.parent_message_id, m.generation_id FROM read_models.messages m WHERE m.tenant_id = :tenant AND m.id = :id
      UNION ALL
      SELECT m.parent_message_id, m.generation_id FROM own o
      JOIN read_models.messages m
        ON m.tenant_id = :tenant AND m.id = o.parent_message_id AND m.generation_id = o.generation_id)
    SELECT m.id FROM own o JOIN read_models.messages m ON m.tenant_id = :tenant AND m.id = o.parent_message_id
    WHERE m.generation_id <> o.generation_id AND m.role = 'assistant'
"""


async def answer_before(session: TenantSession, generation_id: UUID) -> UUID | None:
    """The answer that this one's prompt goes on from; None where it goes on from none."""
    row = await session.one(_ANSWER_BEFORE, tenant=session.tenant_id, id=generation_id)
    return None if row is None else UUID(str(row["id"]))
