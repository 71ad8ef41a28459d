"""Questions that were asked in chat tools, and how far each answer has been brought there.

A question is durable before its tool is answered. Who holds the lease of its row makes it a prompt and brings the
answer; a row whose holder died is taken by another once its lease has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import NamedTuple
from uuid import UUID

import orjson

from backplane.ports.database import Database
from backplane.ports.identifiers import new_id
from backplane.security.principal import Principal
from backplane.security.sealing import MasterKey
from command_api.asker import as_now
from command_api.chat_tools import ChatToolKind, Known, opened

LEASE_S = 15.0


class NotOurs(Exception):
    """The lease is somebody else's by now, or the tool was removed."""


@dataclass(frozen=True, slots=True)
class Question:
    """What was asked, and where the answer goes."""

    text: str | None
    """None once it is a prompt."""
    place: Mapping[str, str]
    """As its kind of tool needs it."""

    def __repr__(self) -> str:
        return "Question(…)"


class Standing(NamedTuple):
    """What became of a question."""

    chat_reply_id: UUID
    generation_id: UUID | None
    refusal: str | None
    told: int
    """Parts of the answer that were told whole, where nothing can be edited."""
    key_id: UUID
    user_id: UUID | None


@dataclass(frozen=True, slots=True)
class Taken:
    """A question whose lease is ours."""

    chat_reply_id: UUID
    tenant_id: UUID
    chat_tool_id: UUID
    kind: ChatToolKind
    persona: str | None
    model: str | None
    key_id: UUID
    user_id: UUID | None
    secrets: bytes | None = field(repr=False)
    event: str
    thread: str
    sealed: bytes = field(repr=False)
    generation_id: UUID | None
    refusal: str | None
    """What is said in place of an answer."""
    messages: list[str]
    """What the answer stands in there, in order."""
    failures: int
    age_s: float
    """Since it was asked."""
    taker: UUID

    @property
    def idempotency_key(self) -> str:
        """None of a client's: a header holds no newline."""
        return f"chat tool\n{self.chat_tool_id}\n{self.event}"


class ChatReplies:
    """``leases`` is the database as the role that may take questions of all tenants; ``database`` as the API's own."""

    def __init__(
        self, database: Database, leases: Database, master_key: MasterKey, *, lease_s: float = LEASE_S
    ) -> None:
        self._database = database
        self._leases = leases
        self._master_key = master_key
        self.lease_s = lease_s
        self.more = asyncio.Event()
        """Set when something new was asked here."""

    async def ask(self, tool: Known, event: str, thread: str, question: Question) -> None:
        """Durable when this returns; nothing where the tool has asked it before. Raises DatabaseUnavailable."""
        reply_id = new_id()
        async with self._database.tenant(tool.tenant_id) as session:
            await session.execute(
                """INSERT INTO control.chat_replies (chat_reply_id, tenant_id, chat_tool_id, event, thread, sealed)
                   SELECT :id, tenant_id, chat_tool_id, :event, :thread, :sealed FROM control.chat_tools
                   WHERE chat_tool_id = :tool ON CONFLICT (chat_tool_id, event) DO NOTHING""",
                id=reply_id,
                event=event,
                thread=thread,
                sealed=self._sealed(question, tool.tenant_id, reply_id),
                tool=tool.id,
            )
        self.more.set()

    async def standing(self, tool: Known, event: str) -> Standing | None:
        """Of what the tool asked under this name. Raises DatabaseUnavailable."""
        return await self._standing(tool, "r.event = :value", event)

    async def newest(self, tool: Known, thread: str) -> Standing | None:
        """Of what was asked last in this thread. Raises DatabaseUnavailable."""
        return await self._standing(tool, "r.thread = :value", thread)

    async def _standing(self, tool: Known, which: str, value: str) -> Standing | None:
        async with self._database.tenant(tool.tenant_id) as session:
            row = await session.one(
                "SELECT r.chat_reply_id, r.generation_id, r.refusal, r.told, t.key_id, t.user_id"  # noqa: S608
                " FROM control.chat_replies r JOIN control.chat_tools t USING (chat_tool_id)"
                f" WHERE r.chat_tool_id = :tool AND {which} ORDER BY r.chat_reply_id DESC LIMIT 1",
                tool=tool.id,
                value=value,
            )
        return None if row is None else Standing(**row)

    async def tell(self, tool: Known, chat_reply_id: UUID, told: int) -> None:
        """So many parts of the answer were told whole. Raises DatabaseUnavailable."""
        async with self._database.tenant(tool.tenant_id) as session:
            await session.execute(
                "UPDATE control.chat_replies SET told = greatest(told, :told) WHERE chat_reply_id = :id",
                told=told,
                id=chat_reply_id,
            )

    async def asker(self, tenant_id: UUID, key_id: UUID, user_id: UUID | None) -> Principal | None:
        """In whose name it is asked, as they are now; None while they may not ask. Raises DatabaseUnavailable."""
        async with self._database.tenant(tenant_id) as session:
            return await as_now(session, key_id, user_id)

    async def take(self, most: int) -> list[Taken]:
        """Leases on questions whose turn it is. Raises DatabaseUnavailable."""
        taker = new_id()
        rows = await self._leases.at_once(
            "SELECT * FROM control.take_chat_replies(:taker, :lease_s, :most)",
            taker=taker,
            lease_s=self.lease_s,
            most=most,
        )
        return [Taken(**row, taker=taker) for row in rows]

    def question(self, taken: Taken) -> Question:
        """Raises CannotOpen."""
        place = _place(taken.tenant_id, taken.chat_reply_id)
        return Question(**orjson.loads(self._master_key.open(taken.sealed, place)))

    def secrets(self, taken: Taken) -> dict[str, str]:
        """Of its tool. Raises CannotOpen."""
        if taken.secrets is None:
            return {}
        return opened(self._master_key, taken.secrets, taken.tenant_id, taken.chat_tool_id)

    async def conversation(self, taken: Taken) -> UUID | None:
        """Which one its thread is. Raises DatabaseUnavailable."""
        async with self._database.tenant(taken.tenant_id) as session:
            row = await session.one(
                "SELECT conversation_id FROM control.chat_threads WHERE chat_tool_id = :tool AND thread = :thread",
                tool=taken.chat_tool_id,
                thread=taken.thread,
            )
        return None if row is None else row["conversation_id"]

    async def begin_anew(self, taken: Taken) -> None:
        """Its thread is no conversation any more. Raises DatabaseUnavailable."""
        async with self._database.tenant(taken.tenant_id) as session:
            await session.execute(
                "DELETE FROM control.chat_threads WHERE chat_tool_id = :tool AND thread = :thread",
                tool=taken.chat_tool_id,
                thread=taken.thread,
            )

    async def moved(self, taken: Taken, thread: str, question: Question) -> Taken:
        """It is asked in this thread, which was made for it. Raises NotOurs, DatabaseUnavailable."""
        sealed = self._sealed(question, taken.tenant_id, taken.chat_reply_id)
        await self._change(taken, "thread = :thread, sealed = :sealed", thread=thread, sealed=sealed)
        return replace(taken, thread=thread, sealed=sealed)

    async def became(self, taken: Taken, place: Mapping[str, str], generation_id: UUID, conversation_id: UUID) -> None:
        """It is a prompt; what was asked is not kept here any more. Raises NotOurs, DatabaseUnavailable."""
        async with self._database.tenant(taken.tenant_id) as session:
            # The tool before what is its own, as who removes it locks them: else each would wait for the other.
            await session.one(
                "SELECT 1 FROM control.chat_tools WHERE chat_tool_id = :tool FOR KEY SHARE", tool=taken.chat_tool_id
            )
            changed = await session.execute(
                "UPDATE control.chat_replies SET generation_id = :generation_id, sealed = :sealed, failures = 0"
                " WHERE chat_reply_id = :id AND taker = :taker",
                generation_id=generation_id,
                sealed=self._sealed(Question(None, place), taken.tenant_id, taken.chat_reply_id),
                id=taken.chat_reply_id,
                taker=taken.taker,
            )
            if not changed:
                raise NotOurs
            await session.execute(
                "INSERT INTO control.chat_threads (tenant_id, chat_tool_id, thread, conversation_id)"
                " VALUES (:tenant_id, :tool, :thread, :conversation_id) ON CONFLICT DO NOTHING",
                tenant_id=taken.tenant_id,
                tool=taken.chat_tool_id,
                thread=taken.thread,
                conversation_id=conversation_id,
            )
        self.more.set()  # what was asked after it in its thread

    async def refused(self, taken: Taken, place: Mapping[str, str], refusal: str) -> None:
        """It is no prompt, and this is said instead. Raises NotOurs, DatabaseUnavailable."""
        sealed = self._sealed(Question(None, place), taken.tenant_id, taken.chat_reply_id)
        await self._change(taken, "refusal = :refusal, sealed = :sealed, failures = 0", refusal=refusal, sealed=sealed)
        self.more.set()

    async def renew(self, taken: Taken) -> None:
        """Raises NotOurs, DatabaseUnavailable."""
        await self._change(
            taken, "lease_until = statement_timestamp() + make_interval(secs => :lease_s)", lease_s=self.lease_s
        )

    async def stands_in(self, taken: Taken, messages: Sequence[str]) -> None:
        """The answer stands in these messages there, so its tool takes it. Raises NotOurs, DatabaseUnavailable."""
        await self._change(taken, "messages = :messages, failures = 0", messages=list(messages))

    async def failed(self, taken: Taken) -> int:
        """Its tool did not take it. Returns how often since it last did. Raises NotOurs, DatabaseUnavailable."""
        async with self._database.tenant(taken.tenant_id) as session:
            row = await session.one(
                "UPDATE control.chat_replies SET failures = failures + 1"
                " WHERE chat_reply_id = :id AND taker = :taker RETURNING failures",
                id=taken.chat_reply_id,
                taker=taken.taker,
            )
        if row is None:
            raise NotOurs
        return int(row["failures"])

    async def later(self, taken: Taken, pause_s: float) -> None:
        """Somebody goes on after ``pause_s`` seconds. Raises NotOurs, DatabaseUnavailable."""
        await self._change(
            taken,
            """taker = NULL, lease_until = NULL,
               next_try_at = statement_timestamp() + make_interval(secs => :pause_s)""",
            pause_s=pause_s,
        )

    async def end(self, taken: Taken, failure: str | None = None) -> None:
        """The answer is there, or will never be. Raises NotOurs, DatabaseUnavailable."""
        await self._change(taken, "ended_at = now(), sealed = NULL, taker = NULL, lease_until = NULL")
        if failure is not None:
            async with self._database.tenant(taken.tenant_id) as session:
                await session.execute(
                    "UPDATE control.chat_tools SET last_failure = :failure, last_failed_at = now()"
                    " WHERE chat_tool_id = :id",
                    failure=failure,
                    id=taken.chat_tool_id,
                )

    async def _change(self, taken: Taken, assignments: str, **parameters: object) -> None:
        async with self._database.tenant(taken.tenant_id) as session:
            changed = await session.execute(
                f"UPDATE control.chat_replies SET {assignments} WHERE chat_reply_id = :id AND taker = :taker",  # noqa: S608
                id=taken.chat_reply_id,
                taker=taken.taker,
                **parameters,
            )
        if not changed:
            raise NotOurs

    def _sealed(self, question: Question, owner: UUID, chat_reply_id: UUID) -> bytes:
        return self._master_key.seal(orjson.dumps(asdict(question)).decode(), _place(owner, chat_reply_id))


def _place(owner: UUID, chat_reply_id: UUID) -> str:
    return f"chat-reply/{owner}/{chat_reply_id}"
