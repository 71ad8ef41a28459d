"""People who talk to Parley whatever breaks: they ask until they are heard, and resume their streams at every cut."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx

from tests.chaos.house import House, Tenant
from tests.e2e.client import Answer, Client, Json

PATIENCE_S = 240.0
"""How long everything may take to end once nothing is killed any more. Until then, nobody gives up."""

_SCRIPTED_ATTEMPTS = 4
_LONGEST_TALK = 3


@dataclass
class Talk:
    """One prompt, and what its client saw."""

    tenant: Tenant
    scripts: list[list[str]]
    """The backend's tokens, for each attempt; the last one's for all that come after."""
    delay_s: float
    asked_words: int
    """Words of the whole conversation up to and with the prompt: what the scripted backend counts as input."""
    cancel_at: int | None
    """Its client asks for its end once so many tokens were seen."""
    accepted: Json = field(default_factory=dict)
    accepted_at: datetime | None = None
    repeats: int = 0
    """How often the prompt had to be sent again."""
    answer: Answer = field(default_factory=Answer)
    cancelled: bool = False
    """The wish was accepted."""
    broken: str | None = None
    """What its client was told that it must not be told."""

    @property
    def generation_id(self) -> str:
        return str(self.accepted["generation_id"])

    def tokens(self, attempt: int) -> list[str]:
        return self.scripts[min(attempt, len(self.scripts)) - 1]


class Talker:
    """Asks one prompt after the other, some of them in one conversation. What it asks follows from ``dice``."""

    def __init__(self, name: str, tenant: Tenant, commands: Client, queries: Client, dice: random.Random) -> None:
        self._name = name
        self._tenant = tenant
        self._commands = commands
        self._queries = queries
        self._dice = dice
        self.talks: list[Talk] = []

    async def run(self, stop: asyncio.Event) -> None:
        parent: Talk | None = None
        depth = 0
        while not stop.is_set():
            talk = self._next(parent)
            self.talks.append(talk)
            try:
                await self._submit(talk, parent)
                cancelling = asyncio.create_task(self._cancel(talk))
                try:
                    await self._queries.follow_through(talk.generation_id, talk.answer, within=None)
                    await cancelling
                finally:
                    cancelling.cancel()
            except asyncio.CancelledError:
                talk.broken = f"its client still waited {PATIENCE_S:g} s after the last kill"
                raise
            except Exception as error:
                talk.broken = f"{type(error).__name__}: {error}".splitlines()[0]
            depth += 1
            goes_on = talk.broken is None and talk.answer.told[-1] == "completed" and depth < _LONGEST_TALK
            parent, depth = (talk, depth) if goes_on else (None, 0)

    def _next(self, parent: Talk | None) -> Talk:
        dice = self._dice
        name = f"{self._name}.{len(self.talks)}"
        count = dice.randint(20, 30)
        # Every attempt says something else, so that no two can be mixed unseen; and in fewer words, to get to an end.
        scripts = [
            [f"{name}/{attempt}.{place} " for place in range(count // attempt)]
            for attempt in range(1, _SCRIPTED_ATTEMPTS + 1)
        ]
        words = 2
        if parent is not None:
            words += parent.asked_words + len(parent.tokens(parent.answer.attempt))
        cancel_at = dice.randrange(count) if dice.random() < 0.08 else None
        return Talk(self._tenant, scripts, dice.uniform(0.5, 1.0), words, cancel_at)

    async def _submit(self, talk: Talk, parent: Talk | None) -> None:
        """Ask until it is accepted. Raises AssertionError on any answer but 202 and 503."""
        key = f"{self._name}.{len(self.talks)}"
        script = [{"tokens": tokens, "delay_s": talk.delay_s} for tokens in talk.scripts]
        body = {} if parent is None else {"parent_message_id": parent.accepted["message_id"]}
        while True:
            try:
                response = await self._commands.post_prompt(f"prompt {key}", script=script, idempotency_key=key, **body)
            except httpx.TransportError:
                await asyncio.sleep(random.uniform(0.2, 1))
            else:
                if response.status_code == 202:
                    break
                await _later(response)
            talk.repeats += 1
        talk.accepted, talk.accepted_at = response.json(), datetime.now(UTC)

    async def _cancel(self, talk: Talk) -> None:
        if talk.cancel_at is None:
            return
        while talk.answer.seq < talk.cancel_at and not talk.answer.ended:
            await asyncio.sleep(0.05)
        while not talk.cancelled:
            try:
                response = await self._commands.http.post(f"/v1/generations/{talk.generation_id}/cancel")
            except httpx.TransportError:
                await asyncio.sleep(random.uniform(0.2, 1))
                continue
            if response.status_code == 202:
                talk.cancelled = True
            else:
                await _later(response)


async def _later(response: httpx.Response) -> None:
    """As clients do: a 503 says when to ask again, and nothing else may be answered."""
    assert response.status_code == 503, f"{response.status_code}: {response.text}"
    await asyncio.sleep(float(response.headers["retry-after"]) * random.uniform(0.5, 1))


class Crowd:
    """All talkers at work."""

    def __init__(self, talkers: list[Talker], tasks: list[asyncio.Task[None]], stop: asyncio.Event) -> None:
        self._talkers = talkers
        self._tasks = tasks
        self._stop = stop

    @property
    def open(self) -> int:
        """Streams that are followed: their prompts were accepted and have not ended, as far as their clients know."""
        newest = [talker.talks[-1] for talker in self._talkers if talker.talks]
        return sum(talk.accepted_at is not None and not talk.answer.ended for talk in newest)

    @property
    def talks(self) -> list[Talk]:
        return [talk for talker in self._talkers for talk in talker.talks]

    async def finish(self) -> None:
        """Begin nothing new, and follow to its end what was begun."""
        self._stop.set()
        await asyncio.wait(self._tasks, timeout=PATIENCE_S)


@asynccontextmanager
async def crowd(house: House, size: int, seed: int) -> AsyncIterator[Crowd]:
    """``size`` talkers, divided among the tenants."""
    stop = asyncio.Event()
    clients = [
        (Client(house.commands_url, tenant.key), Client(house.queries_url, tenant.key)) for tenant in house.tenants
    ]
    talkers = [
        Talker(str(number), house.tenants[number % len(clients)], *clients[number % len(clients)], dice)
        for number, dice in enumerate(random.Random(f"{seed}-{number}") for number in range(size))
    ]
    tasks = [asyncio.create_task(talker.run(stop)) for talker in talkers]
    try:
        yield Crowd(talkers, tasks, stop)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for pair in clients:
            for client in pair:
                await client.http.aclose()
