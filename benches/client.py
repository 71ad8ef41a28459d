"""A client of a running Parley: posts a prompt, and follows the answer as soon as it has the 202."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import orjson

from benches.answer import Answer, Broken
from benches.connection import Connection
from benches.events import EventParser
from benches.load import PROMPT, Load, Target

_ENDS = frozenset({"completed", "failed", "cancelled"})
_GRACE_S = 60.0
_RETRY_S = 0.1


class Client:
    """One `Source` on one connection."""

    def __init__(self, connection: Connection, target: Target, load: Load) -> None:
        body = orjson.dumps({"input": PROMPT, "metadata": {"script": load.script}})
        self._post = _head("POST", "/v1/prompts", target, body)
        self._target = target
        self._connection = connection
        self._deadline_s = load.answer_s + _GRACE_S

    @classmethod
    async def open(cls, target: Target, load: Load) -> Client:
        """Raises Broken."""
        return cls(await Connection.open(target.host, target.port), target, load)

    async def answer(self, into: Answer) -> None:
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._answer(into)
        except TimeoutError:
            raise Broken(f"no end after {self._deadline_s:.0f} s, {len(into.times)} frames") from None

    async def stored(self, url: str) -> dict[str, Any] | None:
        """The generation as the query API knows it; None where that says to come again later. Raises Broken."""
        body: list[bytes] = []
        status = await self._connection.ask(_head("GET", url, self._target), body.append)
        if status == 503 and self._connection.retry_after_s is not None:
            return None
        if status != 200:
            raise Broken(f"GET {url} was answered {status}")
        generation: dict[str, Any] = orjson.loads(b"".join(body))
        return generation

    async def close(self) -> None:
        await self._connection.close()

    async def submit(self, into: Answer) -> str:
        """Post the prompt; returns the URL of its stream once it is accepted. Raises Broken."""
        connection = self._connection
        body: list[bytes] = []
        status = await connection.ask(self._post, body.append)
        if status != 202:
            raise Broken(f"POST /v1/prompts was answered {status}: {_problem(body)}")
        into.accepted = connection.received
        accepted = orjson.loads(b"".join(body))
        into.url = accepted["generation_url"]
        return str(accepted["stream_url"])

    async def _answer(self, into: Answer) -> None:
        url = await self.submit(into)
        # There is nothing here to wait on; the server says when to come again.
        while not await self._follow(url, into):  # noqa: ASYNC110
            await asyncio.sleep(self._connection.retry_after_s or _RETRY_S)

    async def _follow(self, url: str, into: Answer) -> bool:
        """Note the answer to its end; False where the stream is to be asked for again, later. Raises Broken."""
        connection = self._connection
        parser = EventParser()
        other: list[bytes] = []

        def take(piece: bytes) -> None:
            now = connection.received
            events = parser.feed(piece)
            for event in events:
                if event.name == b"token":
                    into.times.append(now)
                    into.seqs.append(int(event.id.partition(b"-")[2]))
                    into.data.append(event.data)
                elif (name := event.name.decode()) in _ENDS:
                    into.ended, into.outcome = now, name
                elif name == "restarted":
                    into.times.clear()
                    into.seqs.clear()
                    into.data.clear()
            if not events:
                other.append(piece)

        status = await connection.ask(_head("GET", url, self._target), take)
        if status == 503 and connection.retry_after_s is not None:
            into.unavailable.append(_problem(other, "service"))
            return False
        if status != 200:
            raise Broken(f"the stream was answered {status}: {_problem(other)}")
        if into.ended is None:
            raise Broken(f"the stream ended {time.monotonic() - into.asked:.1f} s after the prompt, before its answer")
        return True


def _head(method: str, path: str, target: Target, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"Host: {target.host}:{target.port}", f"Authorization: Bearer {target.key}"]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _problem(body: list[bytes], member: str = "type") -> str:
    """A member of the problem that is stable and says nothing of the prompt."""
    try:
        return str(orjson.loads(b"".join(body)).get(member))
    except (ValueError, AttributeError):
        return "no problem document"
