"""`python -m benches.door_client`: many clients of a chat completions endpoint. A `DoorOrder` on standard input, `Said`
lines on standard output, as the load process of the other benches."""

from __future__ import annotations

import asyncio
import gc
import sys

import orjson
import uvloop
from pydantic import BaseModel, ConfigDict

from benches.answer import COMPLETED, Answer, Broken, Source
from benches.chat_upstream import WORD
from benches.connection import Connection
from benches.driver import Edge, drive
from benches.figures import Figures, figures
from benches.load import PROMPT, Load, Target

_GRACE_S = 60.0


class DoorOrder(BaseModel):
    model_config = ConfigDict(frozen=True)

    load: Load
    target: Target
    model: str


class DoorSaid(BaseModel):
    """One line: an edge of the window, or how it came out. ``broken``: why answers did not come whole."""

    model_config = ConfigDict(frozen=True)

    what: Edge | None = None
    figures: Figures | None = None
    broken: dict[str, int] = {}


class DoorClient:
    """One `Source` on one connection."""

    def __init__(self, connection: Connection, order: DoorOrder) -> None:
        load, target = order.load, order.target
        asked = {
            "model": order.model,
            "messages": [{"role": "user", "content": PROMPT}],
            "stream": True,
            "max_tokens": load.tokens,
            "seed": round(load.delay_s * 1e6),
        }
        body = orjson.dumps(asked)
        lines = (
            "POST /v1/chat/completions HTTP/1.1",
            f"Host: {target.host}:{target.port}",
            f"Authorization: Bearer {target.key}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        )
        self._request = "\r\n".join([*lines, "", ""]).encode() + body
        self._connection = connection
        self._load = load

    async def answer(self, into: Answer) -> None:
        rest, said = b"", 0

        def take(piece: bytes) -> None:
            nonlocal rest, said
            *events, rest = (rest + piece).split(b"\n\n")
            before = said
            for event in events:
                if event.startswith(b"data: {"):
                    chunk = orjson.loads(event[6:])
                    if "error" in chunk:
                        into.outcome = str(chunk["error"].get("code"))
                    for choice in chunk.get("choices", ()):
                        said += len(choice["delta"].get("content") or "") // len(WORD)
                elif event.startswith(b"data: [DONE]"):
                    into.ended, into.outcome = self._connection.received, COMPLETED
            if said > before:
                into.times.append(self._connection.received)
                into.seqs.append(said)

        try:
            async with asyncio.timeout(self._load.answer_s + _GRACE_S):
                status = await self._connection.ask(self._request, take)
        except TimeoutError:
            raise Broken("no end") from None
        if status != 200:
            raise Broken(f"answered {status}")

    async def close(self) -> None:
        await self._connection.close()


async def _serve(order: DoorOrder) -> DoorSaid:
    target = order.target

    async def connect() -> Source:
        return DoorClient(await Connection.open(target.host, target.port), order)

    answers, opened = await drive(order.load, connect, lambda edge: _say(DoorSaid(what=edge)))
    broken: dict[str, int] = {}
    for one in answers:
        if not one.came_through(order.load.tokens):
            broken[one.outcome or "short"] = broken.get(one.outcome or "short", 0) + 1
    return DoorSaid(figures=figures(order.load, answers, opened), broken=broken)


def _say(said: DoorSaid) -> None:
    print(said.model_dump_json(), flush=True)


def main() -> None:
    order = DoorOrder.model_validate_json(sys.stdin.readline())
    gc.disable()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        _say(runner.run(_serve(order)))


if __name__ == "__main__":
    main()
