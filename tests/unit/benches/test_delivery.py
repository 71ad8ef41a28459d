from __future__ import annotations

import asyncio

from benches.delivery import Receipts, Way, carry_in_turn


async def test_each_message_is_waited_for_one_way_after_the_other() -> None:
    published: list[tuple[str, bytes]] = []

    def way(name: str) -> Way:
        receipts = Receipts(name)

        async def publish(payload: bytes) -> None:
            published.append((name, payload))
            asyncio.get_running_loop().call_soon(receipts.take, payload)

        return Way(publish, receipts)

    ways = [way("shared"), way("bare")]
    await carry_in_turn(ways, 10)
    assert [name for name, _ in published] == ["shared", "bare"] * 12
    assert len({payload for _, payload in published}) == 24
    for each in ways:
        found = each.delivery()
        assert found.publish.count == found.receive.count == 10
        assert found.receive.p50 >= found.publish.p50
        assert each.receipts.wrong == []


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
