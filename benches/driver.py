"""The load process: `python -m benches.driver`, an `Order` on standard input, `Said` lines on standard output.

One client of many streams, or the backend itself; the same code counts both.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Literal

import uvloop
from pydantic import BaseModel, ConfigDict, Field

from benches.answer import Answer, Broken, Source
from benches.client import Client
from benches.completeness import Completeness, check
from benches.direct import Direct, backend_for
from benches.figures import Figures, figures
from benches.load import Load, Order

Edge = Literal["opened", "closed", "ended"]
Connect = Callable[[], Awaitable[Source]]

_READERS = 8


class Outcome(BaseModel):
    model_config = ConfigDict(frozen=True)

    figures: Figures
    completeness: Completeness


class Said(BaseModel):
    """One line of the load process."""

    model_config = ConfigDict(frozen=True)

    what: Edge | Literal["outcome"] = Field(description="`ended`: the last client has its last answer")
    outcome: Outcome | None = None


async def drive(load: Load, connect: Connect, say: Callable[[Edge], None]) -> tuple[list[Answer], float]:
    """All answers, those outside the window included, and when the window began.

    Every client finishes the answer that it is at when the window closes. A client that is broken off stops.
    """
    answers: list[Answer] = []
    begin = time.monotonic()
    opened = begin + load.warm_up_s
    closed = opened + load.seconds

    async def ask_on(number: int) -> None:
        await _until(begin + load.ramp_s * number / load.clients)
        answer = Answer(time.monotonic())
        try:
            source = await connect()
            try:
                while (now := time.monotonic()) < closed:
                    answer = Answer(now)
                    answers.append(answer)
                    await source.answer(answer)
            finally:
                await source.close()
        except Broken as broken:
            answer.outcome = str(broken)
            if answer not in answers:
                answers.append(answer)

    async def tell() -> None:
        await _until(opened)
        say("opened")
        await _until(closed)
        say("closed")

    await asyncio.gather(tell(), *(ask_on(number) for number in range(load.clients)))
    say("ended")
    return answers, opened


async def serve(order: Order) -> Outcome:
    """What ``order`` asks for."""
    load, target = order.load, order.target
    if target is None:
        backend = await backend_for(load)

        async def direct() -> Source:
            return Direct(backend, load)

        answers, opened = await drive(load, direct, _say)
        await backend.close()
        return Outcome(figures=figures(load, answers, opened), completeness=await check(answers, load.tokens, []))

    async def client() -> Source:
        return await Client.open(target, load)

    answers, opened = await drive(load, client, _say)
    result = figures(load, answers, opened)
    stores = [await Client.open(target, load) for _ in range(_READERS)]
    try:
        return Outcome(figures=result, completeness=await check(answers, load.tokens, stores))
    finally:
        for store in stores:
            await store.close()


async def _until(moment: float) -> None:
    await asyncio.sleep(max(0.0, moment - time.monotonic()))


def _say(what: Edge) -> None:
    print(Said(what=what).model_dump_json(), flush=True)


def main() -> None:
    order = Order.model_validate_json(sys.stdin.readline())
    # What is kept until the end would be looked through again and again, in the middle of a measurement.
    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcome = runner.run(serve(order))
    print(Said(what="outcome", outcome=outcome).model_dump_json(), flush=True)
    # What we used is still to be looked up, until who asked for this closes the pipe or ends us.
    sys.stdin.read()


if __name__ == "__main__":
    main()
