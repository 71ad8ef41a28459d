"""`python -m benches.chat_upstream`: the least server of chat completions that there can be, so that what is measured
is what stands before it. It says its port on standard output.

A request's ``max_tokens`` are the tokens of its answer, its ``seed`` the microseconds from one to the next.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import httptools
import orjson
import uvloop

WORD = "word"
"""Each one of an answer, so that its length tells how many there are, however they were put together."""

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def _event(body: Any) -> bytes:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    event = b"data: %b\n\n" % data
    return b"%x\r\n%b\r\n" % (len(event), event)


def _chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return _event({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "bench", "choices": [choice]})


_ROLE, _TOKEN, _END = _chunk({"role": "assistant", "content": ""}), _chunk({"content": WORD}), _chunk({}, "stop")


class _Upstream(asyncio.Protocol):
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._body = b""
        self._parser: Any = None
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, piece: bytes) -> None:
        self._body += piece

    def on_message_complete(self) -> None:
        asked, self._body = orjson.loads(self._body), b""
        tokens = asked.get("max_completion_tokens") or asked["max_tokens"]
        usage = {"prompt_tokens": 3, "completion_tokens": tokens, "total_tokens": tokens + 3}
        last = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "bench", "choices": []}
        end = _END + _event(last | {"usage": usage}) + _event(b"[DONE]") + b"0\r\n\r\n"
        delay_s = asked["seed"] / 1e6
        if not delay_s:
            self._transport.write(b"".join((_HEAD, _ROLE, _TOKEN * tokens, end)))
            return
        self._transport.write(_HEAD + _ROLE)
        self._say(self._loop.time(), delay_s, 0, tokens, end)

    def _say(self, began: float, delay_s: float, said: int, tokens: int, end: bytes) -> None:
        """One more token; ``said`` were before it."""
        if self._transport.is_closing():
            return
        said += 1
        if said == tokens:
            self._transport.write(_TOKEN + end)
            return
        self._transport.write(_TOKEN)
        self._loop.call_at(began + said * delay_s, self._say, began, delay_s, said, tokens, end)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Upstream, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve())


if __name__ == "__main__":
    main()
