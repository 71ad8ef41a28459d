from __future__ import annotations

import asyncio

from benches.delivery import Receipts, delivered


async def test_each_message_is_waited_for() -> None:
    receipts = Receipts("shared")
    published: list[bytes] = []

    async def publish(payload: bytes) -> None:
        published.append(payload)
        asyncio.get_running_loop().call_soon(receipts.take, payload)

    found = await delivered(publish, receipts, 10)
    assert found.publish.count == found.receive.count == 10
    assert found.receive.p50 >= found.publish.p50
    assert len(set(published)) == len(published) == 12
    assert receipts.wrong == []


async def test_what_comes_twice_or_changed_is_wrong() -> None:
    receipts = Receipts("shared")
    arrival = receipts.expect(b"one")
    receipts.take(b"another")
    assert not arrival.done()
    receipts.take(b"one")
    assert arrival.done()
    assert len(receipts.wrong) == 1
    receipts.take(b"one")
    assert len(receipts.wrong) == 2
    assert all(line.startswith("shared: message 1 ") for line in receipts.wrong)
