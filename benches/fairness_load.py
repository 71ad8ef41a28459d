"""What tenants ask: one a flood that it does not follow, others a prompt now and then."""

from __future__ import annotations

import asyncio
import time

from benches.answer import Answer, Broken
from benches.child import LoadFailed
from benches.client import Client
from benches.figures import Spread, spread
from benches.load import Load, Target

LOAD = Load(clients=1, tokens=10, delay_s=0.02, seconds=1)
"""Each prompt's, also in the flood: its answer begins at once, and takes 0.2 s."""

_CONNECTIONS = 64


async def flood(target: Target, prompts: int) -> None:
    """Post as many, as fast as they are accepted. Raises LoadFailed."""
    left = iter(range(prompts))

    async def post_on() -> None:
        client = await Client.open(target, LOAD)
        try:
            for _ in left:
                await client.submit(Answer(time.monotonic()))
        finally:
            await client.close()

    try:
        await asyncio.gather(*(post_on() for _ in range(min(_CONNECTIONS, prompts))))
    except Broken as broken:
        raise LoadFailed(f"the flood: {broken}") from None


class Light:
    """Asks ``prompts`` times, whatever became of what it asked before, and follows each answer."""

    def __init__(self, target: Target, prompts: int, every_s: float) -> None:
        self._target = target
        self._prompts = prompts
        self._every_s = every_s
        self.answers: list[Answer] = []

    @property
    def under_way(self) -> int:
        """Prompts that have not ended."""
        return sum(1 for answer in self.answers if not answer.outcome)

    @property
    def wait(self) -> Spread | None:
        """From the 202 to the first token, which the script gives as soon as its prompt has started."""
        return spread(
            answer.times[0] - answer.accepted for answer in self.answers if answer.times and answer.accepted is not None
        )

    @property
    def wrong(self) -> list[str]:
        """A line for each answer that did not come, or not whole."""
        return [
            f"a light tenant's answer: {answer.outcome}, {answer.seqs[-1] if answer.seqs else 0} tokens"
            for answer in self.answers
            if not answer.came_through(LOAD.tokens)
        ]

    async def ask(self) -> None:
        """Ask, and return once all have ended."""
        begun = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._prompts):
                await asyncio.sleep(max(0.0, begun + number * self._every_s - time.monotonic()))
                tasks.create_task(self._ask())

    async def _ask(self) -> None:
        answer = Answer(time.monotonic())
        self.answers.append(answer)
        try:
            client = await Client.open(self._target, LOAD)
            try:
                await client.answer(answer)
            finally:
                await client.close()
        except Broken as broken:
            answer.outcome = str(broken)
