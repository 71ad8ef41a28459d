"""What was said before a prompt.

The read model holds it, and may be a moment behind; the claims hold the newest prompts and answers until it has them.
"""

from __future__ import annotations

from uuid import UUID

from backplane.ports.database import Database, Row, TenantSession
from event_schemas.chat import ChatMessage
from event_schemas.codec import decode
from event_schemas.generation import (
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    SubmitPrompt,
)

_ENDED = ("completed", "failed", "cancelled")
_KEPT = ("complete", "completed")


class NotProjected(LookupError):
    """A message that neither the read model nor a claim has. Only lag of the projections explains it: try again."""


async def has_ended(session: TenantSession, message_id: UUID) -> bool:
    """Whether the generation that this message belongs to has ended."""
    claim = await session.one(
        "SELECT terminal IS NOT NULL AS ended FROM work.claims"
        " WHERE message_ids @> ARRAY[CAST(:id AS uuid)] AND tenant_id = :tenant_id",
        id=message_id,
        tenant_id=session.tenant_id,
    )
    if claim is not None:
        ended: bool = claim["ended"]
        return ended
    answer = await session.one(
        "SELECT a.status FROM read_models.messages m JOIN read_models.messages a ON a.id = m.generation_id"
        " WHERE m.id = :id",
        id=message_id,
    )
    return answer is not None and answer["status"] in _ENDED


async def history(database: Database, tenant_id: UUID, prompt: SubmitPrompt) -> tuple[ChatMessage, ...]:
    """The whole conversation up to and with ``prompt``, oldest first.

    Of several system messages the newest counts, and stands first. Raises NotProjected, DatabaseUnavailable.
    """
    before: list[ChatMessage] = []
    if prompt.parent_message_id is not None:
        async with database.tenant(tenant_id) as session:
            parent: UUID | None = prompt.parent_message_id
            while parent is not None:
                older, parent = await _claimed(session, parent) or (await _projected(session, parent), None)
                before[:0] = older
    said = [one for one in (*before, *prompt.content.messages) if one.content or one.tool_calls or one.tool_call_id]
    system = [message for message in said if message.role == "system"][-1:]
    return (*system, *(message for message in said if message.role != "system"))


async def _claimed(session: TenantSession, message_id: UUID) -> tuple[list[ChatMessage], UUID | None] | None:
    """The messages of the generation that ``message_id`` belongs to, up to it, and what that generation followed."""
    claim = await session.one(
        "SELECT command, terminal FROM work.claims WHERE message_ids @> ARRAY[CAST(:id AS uuid)]"
        " AND tenant_id = :tenant_id AND command IS NOT NULL AND terminal IS NOT NULL",
        id=message_id,
        tenant_id=session.tenant_id,
    )
    if claim is None:
        return None
    prompt = decode(claim["command"]).data
    ended = decode(claim["terminal"]).data
    assert isinstance(prompt, SubmitPrompt)
    assert isinstance(ended, (GenerationCompleted, GenerationFailed, GenerationCancelled))
    said = list(prompt.content.messages)
    if message_id in prompt.input_message_ids:
        said = said[: prompt.input_message_ids.index(message_id) + 1]
    else:
        calls = ended.content.tool_calls if isinstance(ended, GenerationCompleted) else ()
        said.append(ChatMessage(role="assistant", content=ended.content.text, tool_calls=calls))
    return said, prompt.parent_message_id


async def _projected(session: TenantSession, message_id: UUID) -> list[ChatMessage]:
    rows: list[Row] = await session.all(
        """
        WITH RECURSIVE path AS (
          SELECT id, parent_message_id, role, content, parts, tool_calls, tool_call_id, status, 1 AS depth
          FROM read_models.messages WHERE id = :id
          UNION ALL
          SELECT m.id, m.parent_message_id, m.role, m.content, m.parts, m.tool_calls, m.tool_call_id, m.status,
                 path.depth + 1
          FROM read_models.messages m JOIN path ON m.id = path.parent_message_id
        ) CYCLE id SET looped USING visited
        SELECT parent_message_id, role, content, parts, tool_calls, tool_call_id, status FROM path ORDER BY depth DESC
        """,
        id=message_id,
    )
    if not rows or rows[0]["parent_message_id"] is not None or any(r["status"] in ("queued", "running") for r in rows):
        raise NotProjected(f"message {message_id}")
    return [
        ChatMessage(
            role=row["role"],
            content=row["content"] if row["parts"] is None else row["parts"],
            # What an answer asked for before it broke off was never run by anybody.
            tool_calls=row["tool_calls"] if row["tool_calls"] and row["status"] in _KEPT else (),
            tool_call_id=row["tool_call_id"],
        )
        for row in rows
        if row["content"] is not None
    ]
