"""What was said before a prompt.

The read model holds it, and may be a moment behind; the claims hold the newest prompts and answers until it has them.
In both it is sealed. What cannot be opened any more, since its key is gone, is as if it had not been said.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from pydantic import TypeAdapter

from backplane.ports.database import Database, DatabaseUnavailable, Row, TenantSession
from backplane.security.content import CannotRead, ContentErased, DataKey, opened
from event_schemas.chat import AnswerContent, ChatMessage
from event_schemas.codec import decode
from event_schemas.conversations import SummaryContent
from event_schemas.generation import (
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    PromptContent,
    SubmitPrompt,
)
from event_schemas.payload import Written
from workers.inference.port import BackendUnavailable, RequestRefused
from workers.keyring import Keyring
from workers.window import Said

_ENDED = ("completed", "failed", "cancelled")
_DEADLINE_S = 30.0
_POLL_S = 0.05
_WRITTEN: TypeAdapter[Written] = TypeAdapter(Written)

_Spoken = tuple[UUID, ChatMessage]
"""A message and its id."""


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


async def history_in_time(database: Database, keys: Keyring, prompt: SubmitPrompt, content: PromptContent) -> Said:
    """As ``history``, waiting for the projections for a while. Raises RequestRefused, BackendUnavailable."""
    deadline = time.monotonic() + _DEADLINE_S
    while True:
        try:
            return await history(database, keys, prompt, content)
        except CannotRead as error:
            raise RequestRefused("content_unreadable", str(error)) from None
        except (NotProjected, DatabaseUnavailable) as error:
            if time.monotonic() > deadline:
                raise BackendUnavailable("history_unavailable", "the conversation could not be read") from error
            await asyncio.sleep(_POLL_S)


async def history(database: Database, keys: Keyring, prompt: SubmitPrompt, content: PromptContent) -> Said:
    """The whole conversation up to and with ``prompt``. Of several system messages the newest counts.

    Of several system messages the newest counts; an empty one takes back those before it.
    Raises NotProjected, CannotRead, DatabaseUnavailable, BackendUnavailable.
    """
    before: list[_Spoken] = []
    summary: str | None = None
    covered = 0
    forked = False
    if prompt.parent_message_id is not None:
        async with database.tenant(keys.tenant_id) as session:
            parent: UUID | None = prompt.parent_message_id
            while parent is not None:
                older, parent = await _claimed(session, parent, keys) or (await _projected(session, parent, keys), None)
                before[:0] = older
            forked = keys.conversations != {prompt.conversation_id}
            if prompt.window == "summarise":
                summary, covered = await _summary(session, keys, [message_id for message_id, _ in before])
    said = [message for _, message in before]
    system = [one for one in (*said, *content.messages) if one.role == "system"][-1:]
    return Said(
        before=_spoken(said[covered:]),
        own=_spoken(content.messages),
        system=next((one for one in system if one.content), None),
        summary=summary,
        covered=len(_spoken(said[:covered])),
        forked=forked,
    )


def _spoken(messages: Sequence[ChatMessage]) -> tuple[ChatMessage, ...]:
    """Those that say something, without the system's."""
    return tuple(
        one for one in messages if one.role != "system" and (one.content or one.tool_calls or one.tool_call_id)
    )


async def _summary(session: TenantSession, keys: Keyring, path: Sequence[UUID]) -> tuple[str | None, int]:
    """The summary that stands for the most of ``path``, messages from the oldest on, and for how many of them."""
    rows = await session.all(
        "SELECT conversation_id, up_to_message_id, content FROM read_models.conversation_summaries"
        " WHERE up_to_message_id = ANY(CAST(:ids AS uuid[])) ORDER BY created_at DESC",
        ids=list(path),
    )
    for row in sorted(rows, key=lambda row: path.index(row["up_to_message_id"]), reverse=True):
        key = await keys.of(session, row["conversation_id"])
        with suppress(ContentErased):
            content = opened(_WRITTEN.validate_python(row["content"]), key, SummaryContent)
            return content.summary, path.index(row["up_to_message_id"]) + 1
    return None, 0


async def _claimed(session: TenantSession, message_id: UUID, keys: Keyring) -> tuple[list[_Spoken], UUID | None] | None:
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
    key = await keys.of(session, prompt.conversation_id)
    # Where it was erased there are no messages.
    said = list(zip(prompt.input_message_ids, _asked(prompt.content, key), strict=False))
    if message_id in prompt.input_message_ids:
        said = said[: prompt.input_message_ids.index(message_id) + 1]
    else:
        answer = _answered(ended.content, isinstance(ended, GenerationCompleted), key)
        said += [(prompt.generation_id, message) for message in answer]
    return said, prompt.parent_message_id


async def _projected(session: TenantSession, message_id: UUID, keys: Keyring) -> list[_Spoken]:
    rows: list[Row] = await session.all(_PATH, id=message_id)
    if not rows or rows[0]["parent_message_id"] is not None or any(r["status"] in ("queued", "running") for r in rows):
        raise NotProjected(f"message {message_id}")
    said: list[_Spoken] = []
    asked: list[ChatMessage] = []
    for row in rows:
        key = await keys.of(session, row["conversation_id"])
        if row["prompt"] is not None:
            asked = _asked(_WRITTEN.validate_python(row["prompt"]), key)
        elif row["begins"]:
            asked = []
        if row["id"] == row["generation_id"]:
            answer = None if row["answer"] is None else _WRITTEN.validate_python(row["answer"])
            spoken = _answered(answer, row["status"] == "completed", key)
        else:
            spoken = asked[row["ordinal"] : row["ordinal"] + 1]
        said += [(row["id"], message) for message in spoken]
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
  SELECT id, conversation_id, parent_message_id, generation_id, ordinal, status, answer, 1 AS depth
  FROM read_models.messages WHERE id = :id
  UNION ALL
  SELECT m.id, m.conversation_id, m.parent_message_id, m.generation_id, m.ordinal, m.status, m.answer, path.depth + 1
  FROM read_models.messages m JOIN path ON m.id = path.parent_message_id
) CYCLE id SET looped USING visited
SELECT p.*, CASE WHEN p.begins THEN (
  SELECT g.prompt FROM read_models.messages g WHERE g.id = p.generation_id) END AS prompt
FROM (
  SELECT id, conversation_id, parent_message_id, generation_id, ordinal, status, answer, depth,
         row_number() OVER (PARTITION BY generation_id ORDER BY depth DESC) = 1 AS begins
  FROM path) p
ORDER BY p.depth DESC
"""
