"""What was said before a prompt.

The read model holds it, and may be a moment behind; the claims hold the newest prompts and answers until it has them.
In both it is sealed. What cannot be opened any more, since its key is gone, is as if it had not been said.
"""

from __future__ import annotations

from uuid import UUID

from pydantic import TypeAdapter

from backplane.ports.database import Database, Row, TenantSession
from backplane.security.content import ContentErased, DataKey, opened
from event_schemas.chat import AnswerContent, ChatMessage
from event_schemas.codec import decode
from event_schemas.generation import (
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    PromptContent,
    SubmitPrompt,
)
from event_schemas.payload import Written

_ENDED = ("completed", "failed", "cancelled")
_WRITTEN: TypeAdapter[Written] = TypeAdapter(Written)


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


async def history(
    database: Database, tenant_id: UUID, prompt: SubmitPrompt, content: PromptContent, key: DataKey | None
) -> tuple[ChatMessage, ...]:
    """The whole conversation up to and with ``prompt``, oldest first; ``key`` is the conversation's, where it has one.

    Of several system messages the newest counts, and stands first.
    Raises NotProjected, CannotRead, DatabaseUnavailable.
    """
    before: list[ChatMessage] = []
    if prompt.parent_message_id is not None:
        async with database.tenant(tenant_id) as session:
            parent: UUID | None = prompt.parent_message_id
            while parent is not None:
                older, parent = await _claimed(session, parent, key) or (await _projected(session, parent, key), None)
                before[:0] = older
    said = [one for one in (*before, *content.messages) if one.content or one.tool_calls or one.tool_call_id]
    system = [message for message in said if message.role == "system"][-1:]
    return (*system, *(message for message in said if message.role != "system"))


async def _claimed(
    session: TenantSession, message_id: UUID, key: DataKey | None
) -> tuple[list[ChatMessage], UUID | None] | None:
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
    said = _asked(prompt.content, key)
    if message_id in prompt.input_message_ids:
        said = said[: prompt.input_message_ids.index(message_id) + 1]
    else:
        said += _answered(ended.content, isinstance(ended, GenerationCompleted), key)
    return said, prompt.parent_message_id


async def _projected(session: TenantSession, message_id: UUID, key: DataKey | None) -> list[ChatMessage]:
    rows: list[Row] = await session.all(_PATH, id=message_id)
    if not rows or rows[0]["parent_message_id"] is not None or any(r["status"] in ("queued", "running") for r in rows):
        raise NotProjected(f"message {message_id}")
    said: list[ChatMessage] = []
    asked: list[ChatMessage] = []
    for row in rows:
        if row["prompt"] is not None:
            asked = _asked(_WRITTEN.validate_python(row["prompt"]), key)
        elif row["begins"]:
            asked = []
        if row["id"] == row["generation_id"]:
            answer = None if row["answer"] is None else _WRITTEN.validate_python(row["answer"])
            said += _answered(answer, row["status"] == "completed", key)
        else:
            said += asked[row["ordinal"] : row["ordinal"] + 1]
    return said


def _asked(written: Written, key: DataKey | None) -> list[ChatMessage]:
    try:
        return list(opened(written, key, PromptContent).messages)
    except ContentErased:
        return []


def _answered(written: Written | None, completed: bool, key: DataKey | None) -> list[ChatMessage]:
    if written is None:
        return []
    try:
        answer = opened(written, key, AnswerContent)
    except ContentErased:
        return []
    # What an answer asked for before it broke off was never run by anybody.
    return [ChatMessage(role="assistant", content=answer.text, tool_calls=answer.tool_calls if completed else ())]


# The text of all messages of a prompt stands with its answer; it is fetched once for each generation on the path.
_PATH = """
WITH RECURSIVE path AS (
  SELECT id, parent_message_id, generation_id, ordinal, status, answer, 1 AS depth
  FROM read_models.messages WHERE id = :id
  UNION ALL
  SELECT m.id, m.parent_message_id, m.generation_id, m.ordinal, m.status, m.answer, path.depth + 1
  FROM read_models.messages m JOIN path ON m.id = path.parent_message_id
) CYCLE id SET looped USING visited
SELECT p.*, CASE WHEN p.begins THEN (
  SELECT g.prompt FROM read_models.messages g WHERE g.id = p.generation_id) END AS prompt
FROM (
  SELECT id, parent_message_id, generation_id, ordinal, status, answer, depth,
         row_number() OVER (PARTITION BY generation_id ORDER BY depth DESC) = 1 AS begins
  FROM path) p
ORDER BY p.depth DESC
"""
