from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from benches.answer import Answer, Broken
from benches.client import Client
from benches.connection import Connection
from benches.load import Load, Target

TARGET = Target(host="127.0.0.1", port=1, key="parley_1_secret")
LOAD = Load(clients=1, tokens=2, delay_s=0.02, seconds=1)
ACCEPTED = json.dumps({"generation_url": "/v1/generations/1", "stream_url": "/v1/generations/1/stream"}).encode()
EVENTS = (
    b'id: 1-0\nevent: started\ndata: {"attempt":1}\n\n',
    b'id: 1-1\nevent: token\ndata: {"text":"the","seq":1,"attempt":1}\n\n',
    b'id: 1-2\nevent: token\ndata: {"text":" rain","seq":2,"attempt":1}\n\n',
    b'id: 1-2\nevent: completed\ndata: {"finish_reason":"stop"}\n\n',
)


def whole(status: int, body: bytes) -> list[bytes]:
    return [b"HTTP/1.1 %d Some\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)]


def chunked(events: tuple[bytes, ...], *, ends: bool = True) -> list[bytes]:
    pieces = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]
    return [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *pieces, *([b"0\r\n\r\n"] if ends else [])]


class Wire(asyncio.Transport):
    """A server at the other end: answers each request with the next of its answers, a piece a loop tick."""

    def __init__(self, connection: Connection, answers: list[list[bytes]], cut: Callable[[bytes], list[bytes]]) -> None:
        super().__init__()
        self._connection = connection
        self._answers = answers
        self._cut = cut
        self.requests: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.requests.append(bytes(data))
        loop = asyncio.get_running_loop()
        for piece in self._answers.pop(0):
            for part in self._cut(piece):
                loop.call_soon(self._connection.data_received, part)
        if not self._answers:
            loop.call_soon(self._connection.connection_lost, None)

    def close(self) -> None:
        self._connection.connection_lost(None)


def client(*answers: list[bytes], cut: Callable[[bytes], list[bytes]] = lambda piece: [piece]) -> tuple[Client, Wire]:
    connection = Connection()
    wire = Wire(connection, list(answers), cut)
    connection.connection_made(wire)
    return Client(connection, TARGET, LOAD), wire


def bytewise(piece: bytes) -> list[bytes]:
    return [piece[at : at + 1] for at in range(len(piece))]


@pytest.mark.parametrize("cut", [lambda piece: [piece], bytewise], ids=["whole", "byte by byte"])
async def test_an_answer_is_noted_as_it_comes(cut: Callable[[bytes], list[bytes]]) -> None:
    asking, wire = client(whole(202, ACCEPTED), chunked(EVENTS), cut=cut)
    answer = Answer(0.0)
    await asking.answer(answer)
    assert (answer.text, answer.seqs, answer.outcome, answer.url) == (
        "the rain",
        [1, 2],
        "completed",
        "/v1/generations/1",
    )
    assert answer.came_through(2)
    assert answer.accepted is not None
    assert answer.ended is not None
    assert answer.accepted <= answer.times[0] <= answer.times[1] <= answer.ended
    post, get = wire.requests
    head, _, body = post.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/prompts HTTP/1.1\r\n")
    assert b"Authorization: Bearer parley_1_secret" in head
    assert f"Content-Length: {len(body)}".encode() in head
    assert json.loads(json.loads(body)["metadata"]["script"]) == {"count": 2, "delay_s": 0.02}
    assert get.startswith(b"GET /v1/generations/1/stream HTTP/1.1\r\n")


async def test_after_a_restart_the_answer_begins_anew() -> None:
    restarted = b'id: 2-0\nevent: restarted\ndata: {"attempt":2}\n\n'
    again = tuple(event.replace(b"id: 1-", b"id: 2-") for event in EVENTS[1:])
    asking, _ = client(whole(202, ACCEPTED), chunked((*EVENTS[:2], restarted, *again)))
    answer = Answer(0.0)
    await asking.answer(answer)
    assert (answer.text, answer.seqs) == ("the rain", [1, 2])


async def test_a_stream_that_is_not_there_yet_is_asked_for_again() -> None:
    body = b'{"type":"unavailable","service":"projections"}'
    later = [b"HTTP/1.1 503 No\r\nRetry-After: 0\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)]
    asking, wire = client(whole(202, ACCEPTED), later, chunked(EVENTS))
    answer = Answer(0.0)
    await asking.answer(answer)
    assert answer.unavailable == ["projections"]
    assert answer.came_through(2)
    assert wire.requests[1] == wire.requests[2]


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([whole(429, b'{"type":"rate-limited"}')], "POST /v1/prompts was answered 429: rate-limited"),
        ([whole(502, b"Bad Gateway")], "POST /v1/prompts was answered 502: no problem document"),
        ([whole(202, ACCEPTED), whole(404, b'{"type":"not-found"}')], "the stream was answered 404: not-found"),
        ([whole(202, ACCEPTED), chunked(EVENTS[:2], ends=False)], "the server closed it"),
        ([[b"nonsense\r\n\r\n"]], "not HTTP"),
    ],
)
async def test_what_goes_wrong_is_told(answers: list[list[bytes]], said: str) -> None:
    asking, _ = client(*answers)
    with pytest.raises(Broken, match=said):
        await asking.answer(Answer(0.0))


async def test_a_stream_that_ends_before_its_answer_is_broken() -> None:
    asking, _ = client(whole(202, ACCEPTED), chunked(EVENTS[:3]), whole(200, b""))
    answer = Answer(0.0)
    with pytest.raises(Broken, match="before its answer"):
        await asking.answer(answer)
    assert not answer.came_through(2)


async def test_a_read_model_that_lags_is_no_answer_yet() -> None:
    later = [b"HTTP/1.1 503 No\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"]
    broken = [b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"]
    asking, _ = client(later, whole(200, b'{"status":"completed"}'), broken)
    assert await asking.stored("/v1/generations/1") is None
    assert await asking.stored("/v1/generations/1") == {"status": "completed"}
    with pytest.raises(Broken, match="was answered 503"):
        await asking.stored("/v1/generations/1")


async def test_a_lost_connection_takes_no_more_requests() -> None:
    asking, _ = client(whole(200, b'{"status":"completed"}'))
    assert await asking.stored("/v1/generations/1") == {"status": "completed"}
    await asyncio.sleep(0)
    with pytest.raises(Broken, match="the connection is gone"):
        await asking.stored("/v1/generations/1")
