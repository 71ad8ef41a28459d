"""What is written in one turn of the event loop goes out as one piece, before anything that ends the connection."""

from __future__ import annotations

import asyncio
from typing import cast

from backplane.web.gathering import Gathering


class Recorded:
    """A transport that notes what is asked of it."""

    def __init__(self) -> None:
        self.calls: list[bytes | str] = []

    def write(self, piece: bytes) -> None:
        self.calls.append(piece)

    def close(self) -> None:
        self.calls.append("close")

    def is_closing(self) -> bool:
        return "close" in self.calls


def gathering(transport: Recorded) -> Gathering:
    return Gathering(cast(asyncio.Transport, transport))


async def test_one_turn_is_one_write() -> None:
    transport = Recorded()
    writing = gathering(transport)
    for turn in (b"1", b"2"):
        writing.write(b"head" + turn)
        writing.write(b"body" + turn)
        assert (b"head" + turn) not in b"".join(cast(list[bytes], transport.calls))
        await asyncio.sleep(0)
    assert transport.calls == [b"head1body1", b"head2body2"]


async def test_what_was_written_before_a_close_is_sent_first_and_once() -> None:
    transport = Recorded()
    writing = gathering(transport)
    writing.write(b"last words")
    writing.close()
    await asyncio.sleep(0)
    assert transport.calls == [b"last words", "close"]
    assert writing.is_closing()
