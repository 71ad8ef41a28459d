"""Bringing answers to where they were asked for: edited as they grow, whole at the end, whoever dies in between."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Protocol

from backplane.ports.budget import BudgetUnavailable
from backplane.ports.bus import BusError
from backplane.ports.database import DatabaseUnavailable
from backplane.ports.key_wrapping import WrappingUnavailable
from backplane.ports.token_stream import StreamUnavailable
from backplane.settings.doors import DoorSettings
from command_api.chat_replies import ChatReplies, NotOurs, Question, Taken
from command_api.ports import CommandPorts
from command_api.submission import ProjectionsLag
from gateway.chat_tools.asking import MAY_NOT_ASK, Asking, NotAsked
from gateway.chat_tools.calls import Calls, Later, Unwanted
from gateway.chat_tools.discord_messages import DiscordMessages
from gateway.chat_tools.growing import Growing
from gateway.chat_tools.pace import Pace
from gateway.chat_tools.slack_messages import SlackMessages
from gateway.chat_tools.splitting import parts
from query_api import freshness
from query_api.service import QueryPorts

logger = logging.getLogger(__name__)

PAUSES_S = (1, 2, 5, 15, 60, 300, 900, 1800)
"""After each failure of the same answer's tool; one after all of them, about an hour later, gives up."""

_MOST_AT_ONCE = 256
_OUTAGE_S = 2.0
_OUTAGES = (
    DatabaseUnavailable,
    BusError,
    BudgetUnavailable,
    StreamUnavailable,
    WrappingUnavailable,
    ProjectionsLag,
    freshness.ProjectionsLag,
)


class Messages(Protocol):
    """Where an answer stands."""

    @property
    def limit(self) -> int: ...
    @property
    def interval_s(self) -> float: ...
    def cost(self, character: str, /) -> int: ...
    async def put(self, at: int, text: str, message: str | None) -> str: ...
    async def drop(self, message: str) -> None: ...


class Replying:
    """Makes questions prompts, and brings their answers."""

    def __init__(
        self,
        commands: CommandPorts,
        queries: QueryPorts,
        calls: Calls,
        doors: DoorSettings,
        *,
        poll_s: float = 0.5,
    ) -> None:
        self._replies: ChatReplies = commands.chat_replies
        self._asking = Asking(commands)
        self._queries = queries
        self._calls = calls
        self._doors = doors
        self._poll_s = poll_s

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop`` is set. Whoever goes on brings what is on its way then."""
        running: set[asyncio.Task[None]] = set()
        stopped = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                self._replies.more.clear()
                for taken in await self._take(_MOST_AT_ONCE - len(running)):
                    turn = asyncio.create_task(self._turn(taken))
                    running.add(turn)
                    turn.add_done_callback(running.discard)
                more = asyncio.create_task(self._replies.more.wait())
                await asyncio.wait({more, stopped}, timeout=self._poll_s, return_when=asyncio.FIRST_COMPLETED)
                more.cancel()
        finally:
            stopped.cancel()
            for turn in running:
                turn.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _take(self, most: int) -> list[Taken]:
        try:
            return await self._replies.take(most)
        except DatabaseUnavailable as error:
            logger.warning("chat replies wait", extra={"action": "chat_replies_wait", "cause": str(error)})
            return []

    async def _turn(self, taken: Taken) -> None:
        about = {"chat_reply_id": str(taken.chat_reply_id), "chat_tool_id": str(taken.chat_tool_id)}
        try:
            await self._bring(taken)
        except NotOurs:
            return
        except _OUTAGES as error:
            logger.warning(
                "a chat reply waits", extra={"action": "chat_reply_waits", "cause": type(error).__name__} | about
            )
            await self._later(taken, _OUTAGE_S)
        except Later as failure:
            await self._failed(taken, str(failure), failure.retry_after_s)
        except Unwanted as failure:
            await self._give_up(taken, str(failure))
        except asyncio.CancelledError:
            await self._later(taken, 0.0)
            raise
        except Exception as bug:
            # Its text may hold what people wrote; and nobody else's answer stops for this one.
            logger.error(
                "a chat reply broke", extra={"action": "chat_reply_broke", "cause": type(bug).__name__} | about
            )
            logger.debug("what it said", exc_info=bug)
            await self._failed(taken, "a fault of Parley's, which was logged")

    async def _bring(self, taken: Taken) -> None:
        question = self._replies.question(taken)
        if taken.kind == "teams":
            # Nothing can be posted there: who asked waits for the prompt, and tells what there is.
            if taken.generation_id is None and taken.refusal is None:
                await self._ask(taken, question)
            await self._replies.end(taken)
            return
        messages = self._messages(taken, question.place)
        if taken.kind == "slack" and "thread" not in question.place:
            taken, question = await self._threaded(taken, question, messages)
            messages = self._messages(taken, question.place)
        await self._show(taken, messages, await self._ask(taken, question))

    async def _threaded(self, taken: Taken, question: Question, messages: Messages) -> tuple[Taken, Question]:
        """Nothing stands where a slash command was given that could be answered; so the question is posted first."""
        shown = parts(f"{question.place['asked_by']}: {question.text}", messages.limit, messages.cost)
        thread = await messages.put(0, shown[0], None)
        moved = Question(question.text, {**question.place, "thread": thread})
        return await self._replies.moved(taken, f"{question.place['channel']}/{thread}", moved), moved

    async def _ask(self, taken: Taken, question: Question) -> Growing:
        """The answer, which grows from now on if it is one."""
        asker = await self._replies.asker(taken.tenant_id, taken.key_id, taken.user_id)
        generation_id = taken.generation_id
        if taken.refusal is not None:
            return Growing(text=taken.refusal)
        if generation_id is None:
            try:
                accepted = await self._asking.ask(taken, question, asker)
            except NotAsked as refused:
                await self._replies.refused(taken, question.place, str(refused))
                return Growing(text=str(refused))
            generation_id = accepted.generation_id
            await self._replies.became(taken, question.place, generation_id, accepted.conversation_id)
        if asker is None:
            return Growing(text=MAY_NOT_ASK)
        return Growing.of(self._queries, asker, generation_id)

    async def _show(self, taken: Taken, messages: Messages, growing: Growing) -> None:
        reading = asyncio.create_task(growing.follow())
        try:
            shown: list[str] = []
            names = list(taken.messages)
            pace, lease = Pace(messages.interval_s), Pace(self._replies.lease_s / 3)
            while True:
                if lease.wait_s <= 0:
                    await self._replies.renew(taken)
                    lease.called()
                ended = growing.has_ended
                wanted = parts(growing.text, messages.limit, messages.cost)
                stands = wanted == shown and len(names) == len(wanted)
                # What stands there already, of whoever brought it before, is better than nothing.
                if stands or (names and not growing.has_begun):
                    if ended:
                        break
                    await growing.changed(lease.wait_s)
                elif pace.wait_s > 0:
                    await asyncio.sleep(min(pace.wait_s, lease.wait_s))
                else:
                    await self._one_step(taken, messages, pace, wanted, shown, names)
                if reading.done():
                    reading.result()
            await self._replies.end(taken)
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await reading

    async def _one_step(
        self, taken: Taken, messages: Messages, pace: Pace, wanted: list[str], shown: list[str], names: list[str]
    ) -> None:
        """One call that brings what is shown nearer to what is wanted."""
        at = next((at for at, text in enumerate(wanted) if shown[at : at + 1] != [text]), len(wanted))
        before, has_failed = list(names), taken.failures > 0 and not shown
        try:
            if at == len(wanted):
                with suppress(Unwanted):  # somebody else has dropped it
                    await messages.drop(names.pop())
                del shown[at:]
            else:
                name = await messages.put(at, wanted[at], names[at] if at < len(names) else None)
                names[at : at + 1] = [name]
                shown[at : at + 1] = [wanted[at]]
        except Later as failure:
            names[:] = before
            if not 0 < failure.retry_after_s <= self._replies.lease_s * 4:
                raise
            pace.called(failure.retry_after_s)
            return
        pace.called()
        if names != before or has_failed:
            await self._replies.stands_in(taken, names)

    def _messages(self, taken: Taken, place: Mapping[str, str]) -> Messages:
        secrets = self._replies.secrets(taken)
        if taken.kind == "slack":
            return SlackMessages(self._calls, self._doors.slack_url, secrets["bot_token"], place)
        return DiscordMessages(self._calls, self._doors.discord_url, secrets.get("bot_token"), place)

    async def _later(self, taken: Taken, pause_s: float) -> None:
        with suppress(NotOurs, DatabaseUnavailable):  # then the lease ends by itself
            await self._replies.later(taken, pause_s)

    async def _failed(self, taken: Taken, failure: str, retry_after_s: float = 0.0) -> None:
        with suppress(NotOurs, DatabaseUnavailable):
            failures = await self._replies.failed(taken)
            if failures > len(PAUSES_S):
                await self._give_up(taken, failure)
            else:
                await self._replies.later(taken, max(PAUSES_S[failures - 1], retry_after_s))

    async def _give_up(self, taken: Taken, failure: str) -> None:
        about = {"chat_reply_id": str(taken.chat_reply_id), "chat_tool_id": str(taken.chat_tool_id)}
        logger.warning("a chat reply never arrives", extra={"action": "chat_reply_gave_up", "cause": failure} | about)
        with suppress(NotOurs, DatabaseUnavailable):
            await self._replies.end(taken, failure)
