"""Accepting alone: `python -m benches.burst` posts prompts as fast as they are accepted, and follows none of them.

Who runs it lets nobody work on them meanwhile. Then it waits until all have their answers, and checks each.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time

import uvloop
from pydantic import BaseModel, ConfigDict, Field

from benches.answer import COMPLETED, Answer, Broken
from benches.client import Client
from benches.completeness import Completeness, check
from benches.direct import Direct, backend_for
from benches.driver import Said
from benches.figures import Spread, spread
from benches.load import Load, Target

CLIENTS = 64
_READERS = 8
_DEADLINE_S = 300.0


class BurstOrder(BaseModel):
    model_config = ConfigDict(frozen=True)

    target: Target
    seconds: float = Field(gt=0)
    tokens: int = Field(ge=1, description="of each answer")


class Burst(BaseModel):
    model_config = ConfigDict(frozen=True)

    seconds: float
    accepted: int = Field(description="prompts that were answered 202 in that time")
    latency: Spread | None = Field(description="from before a prompt is sent to its 202")
    completeness: Completeness = Field(description="`settled_s` counts from when work on them began")

    @property
    def accepted_per_s(self) -> float:
        return self.accepted / self.seconds


async def burst(order: BurstOrder) -> Burst:
    """Says `closed` when it posts no more."""
    load = Load(clients=CLIENTS, tokens=order.tokens, delay_s=0, seconds=order.seconds)
    template = await _answer(load)
    clients = [await Client.open(order.target, load) for _ in range(CLIENTS)]
    answers: list[Answer] = []
    closed = time.monotonic() + order.seconds

    async def post_on(client: Client) -> None:
        while (now := time.monotonic()) < closed:
            answer = Answer(now)
            answers.append(answer)
            try:
                await client.submit(answer)
            except Broken as broken:
                answer.outcome = str(broken)
                return
            # What its stream would have said, were it followed.
            answer.outcome, answer.seqs, answer.data = COMPLETED, template.seqs, template.data

    await asyncio.gather(*(post_on(client) for client in clients))
    print(Said(what="closed").model_dump_json(), flush=True)
    found = await check(answers, order.tokens, clients[:_READERS], _DEADLINE_S)
    for client in clients:
        await client.close()
    in_time = [each for each in answers if each.accepted is not None and each.accepted < closed]
    return Burst(
        seconds=order.seconds,
        accepted=len(in_time),
        latency=spread(each.accepted - each.asked for each in in_time if each.accepted is not None),
        completeness=found,
    )


async def _answer(load: Load) -> Answer:
    """What the backend answers to such a prompt, which is the same every time."""
    backend = await backend_for(load)
    answer = Answer(time.monotonic())
    await Direct(backend, load).answer(answer)
    await backend.close()
    return answer


def main() -> None:
    order = BurstOrder.model_validate_json(sys.stdin.readline())
    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(runner.run(burst(order)).model_dump_json(), flush=True)


if __name__ == "__main__":
    main()
