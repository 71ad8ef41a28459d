from __future__ import annotations

import asyncio
from collections import Counter
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_schemas.share import Priority, Share
from workers.round import QUANTUM
from workers.turns import MOST_PASSED, Turns

A, B, C = (UUID(int=number) for number in (1, 2, 3))
PRIORITIES: tuple[Priority, ...] = ("high", "normal", "low")


class Office:
    """Prompts that wait for their turns, in the order in which they come."""

    def __init__(self, slots: int = 1, shares: dict[UUID, Share] | None = None) -> None:
        self.turns = Turns(slots)
        self._shares = shares or {}
        self.went: list[tuple[UUID, int]] = []
        self.answers = True
        """Whoever asks for room gets an answer at once."""
        self.tasks: list[asyncio.Task[None]] = []

    async def come(self, tenant_id: UUID, cost: int, ring: str = "", times: int = 1, *, idle: bool = False) -> None:
        for _ in range(times):
            self.tasks.append(asyncio.create_task(self._wait(tenant_id, cost, ring, idle)))
        await settled()

    async def _wait(self, tenant_id: UUID, cost: int, ring: str, idle: bool) -> None:
        await self.turns.take(tenant_id, self._shares.get(tenant_id, Share()), cost, ring, idle=idle)
        self.went.append((tenant_id, cost))
        if self.answers:
            self.turns.asked(ring)

    async def free(self, times: int = 1) -> None:
        for _ in range(times):
            self.turns.free()
            await settled()

    @property
    def who(self) -> list[UUID]:
        return [tenant_id for tenant_id, _ in self.went]


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_slots_bound_how_many_run() -> None:
    office = Office(slots=2)
    await office.come(A, 10, times=3)
    assert office.who == [A, A]
    assert office.turns.waiting(A) == 1
    await office.free()
    assert office.who == [A, A, A]


async def test_one_prompt_does_not_wait_for_a_flood() -> None:
    office = Office()
    await office.come(A, 500, times=1000)
    await office.come(B, 500)
    await office.free(4)
    assert B in office.who[:4]


async def test_shares_are_counted_in_tokens() -> None:
    office = Office()
    await office.come(A, QUANTUM * 4, times=50)
    await office.come(B, QUANTUM, times=200)
    await office.free(100)
    share = Counter[UUID]()
    for tenant_id, cost in office.went:
        share[tenant_id] += cost
    assert share[A] / share[B] == pytest.approx(1, rel=0.1)


async def test_weights_share_out() -> None:
    office = Office(shares={A: Share(weight=3)})
    await office.come(A, QUANTUM, times=100)
    await office.come(B, QUANTUM, times=100)
    await office.free(79)
    assert Counter(office.who[4:])[A] / Counter(office.who[4:])[B] == pytest.approx(3, rel=0.15)


async def test_a_higher_priority_goes_first_in_nine_of_ten_turns() -> None:
    office = Office(shares={A: Share(priority="low", weight=100), B: Share(priority="high"), C: Share()})
    await office.come(A, 10, times=100)
    await office.come(C, 10, times=100)
    await office.come(B, 10, times=100)
    await office.free(100)
    assert Counter(office.who) == pytest.approx({B: 80, C: 10, A: 10}, abs=1)


async def test_batches_come_after_all_priorities_also_those_of_a_tenant_whose_own_is_high() -> None:
    office = Office(shares={A: Share(priority="high", weight=100), B: Share(priority="low")})
    await office.come(A, 10, times=100, idle=True)
    await office.come(B, 10, times=100)
    await office.free(49)
    assert Counter(office.who[1:]) == {B: 45, A: 4}


async def test_a_higher_priority_that_comes_late_has_the_next_turn() -> None:
    office = Office(shares={B: Share(priority="high")})
    await office.come(A, 10, times=50)
    await office.free(20)
    await office.come(B, 10)
    await office.free()
    assert office.who[-1] == B


async def test_a_ring_without_room_holds_up_only_those_who_need_it() -> None:
    office = Office()
    await office.come(C, 1)
    office.turns.close("platform", 0.05)
    await office.come(A, 10, "platform", times=2)
    await office.come(B, 10, "its own")
    await office.free()
    assert office.who == [C, B]
    await office.free(2)
    async with asyncio.timeout(5):
        await asyncio.gather(*office.tasks)
    assert office.who == [C, B, A, A]


async def test_a_ring_that_may_have_room_again_is_asked_at_once() -> None:
    office = Office(slots=2)
    office.turns.close("platform", 3600)
    await office.come(A, 10, "platform", times=2)
    assert office.who == []
    office.turns.reopen()
    await settled()
    assert office.who == [A, A]
    assert not office.turns.is_closed("platform")


async def test_one_at_a_time_asks_for_room_in_a_ring() -> None:
    office = Office(slots=4)
    office.answers = False
    await office.come(A, 10, "platform", times=3)
    await office.come(B, 10, "its own")
    assert office.who == [A, B]
    office.turns.asked("platform")
    await settled()
    assert office.who == [A, B, A]
    office.turns.close("platform", 60)
    office.turns.asked("platform")
    await settled()
    assert office.who == [A, B, A]


async def test_whoever_came_in_vain_stands_first_in_line() -> None:
    office = Office()
    await office.come(A, 1)
    await office.come(A, 2)
    again = asyncio.create_task(office.turns.take(A, Share(), 3, again=True))
    await settled()
    await office.free()
    assert again.done()
    assert office.who == [A]


async def test_who_leaves_while_waiting_costs_nobody_a_turn() -> None:
    office = Office()
    await office.come(A, 10, times=2)
    await office.come(B, 10)
    office.tasks[1].cancel()
    await settled()
    await office.free()
    assert office.who == [A, B]
    assert office.turns.waiting(A) == 0


async def test_a_turn_that_nobody_is_there_to_take_goes_on() -> None:
    office = Office()
    await office.come(A, 10, times=3)
    office.turns.free()
    office.tasks[1].cancel()
    await settled()
    assert len(office.who) == 2, "the third one has the turn of the second"


async def test_at_the_end_nobody_waits() -> None:
    office = Office()
    office.turns.close("platform", 60)
    await office.come(A, 10, "platform", times=2)
    await office.come(B, 10, times=2)
    office.turns.let_all_go()
    async with asyncio.timeout(5):
        await asyncio.gather(*office.tasks)
        await office.turns.take(C, Share(), 10, "platform")


@given(
    st.lists(st.tuples(st.sampled_from([A, B, C]), st.integers(1, 5 * QUANTUM)), min_size=1, max_size=60),
    st.integers(1, 4),
)
def test_all_go_once_in_their_tenants_order_and_nobody_falls_behind(
    prompts: list[tuple[UUID, int]], slots: int
) -> None:
    async def run() -> None:
        office = Office(slots)
        for tenant_id, cost in prompts:
            await office.come(tenant_id, cost)
        while len(office.went) < len(prompts):
            before = len(office.went)
            await office.free()
            assert len(office.went) == before + 1, "a slot was free and somebody waited"
        for tenant_id in (A, B, C):
            mine = [one for one in prompts if one[0] == tenant_id]
            assert [one for one in office.went if one[0] == tenant_id] == mine

    asyncio.run(run())


async def one_an_opening(turns: Turns, tenant_id: UUID, share: Share, room: list[int], went: list[UUID]) -> None:
    """A prompt that asks for room in a ring where there is room for ``room[0]`` now."""
    in_vain = False
    while True:
        await turns.take(tenant_id, share, QUANTUM, "platform", again=in_vain)
        in_vain = room[0] == 0
        if in_vain:
            turns.close("platform", 60)
        else:
            room[0] -= 1
            went.append(tenant_id)
        turns.asked("platform")
        turns.free()
        if not in_vain:
            return


@pytest.mark.parametrize("priority", ["normal", "low"])
async def test_where_room_comes_singly_nobody_always_comes_in_vain(priority: Priority) -> None:
    turns, room, went = Turns(4), [0], list[UUID]()
    flood = [asyncio.create_task(one_an_opening(turns, A, Share(), room, went)) for _ in range(40)]
    await settled()
    light = asyncio.create_task(one_an_opening(turns, B, Share(priority=priority), room, went))
    async with asyncio.timeout(10):
        for opening in range(1, 31):
            room[0] = 1
            turns.close("platform", 0)
            while len(went) < opening:
                await asyncio.sleep(0)
            await settled()
        turns.let_all_go()
        room[0] = len(flood)
        await asyncio.gather(*flood, light)
    assert B in went[:12]


class Queue:
    """One slot and tenants that never run out of prompts."""

    def __init__(self, shares: dict[UUID, Share], costs: dict[UUID, int]) -> None:
        self.shares = shares
        self.costs = costs
        self.office = Office(slots=0, shares=shares)

    async def run(self, turns: int) -> None:
        # Three of each always wait.
        for tenant_id in self.shares:
            await self.office.come(tenant_id, self.costs[tenant_id], times=3)
        for _ in range(turns):
            await self.office.free()
            await self.office.come(*self.office.went[-1])

    def served(self, tenant_id: UUID) -> float:
        """Tokens by weight."""
        return sum(cost for who, cost in self.office.went if who == tenant_id) / self.shares[tenant_id].weight


shares = st.builds(Share, weight=st.integers(1, 100), priority=st.sampled_from(PRIORITIES))
costs = st.integers(1, 8 * QUANTUM)


@given(st.lists(st.tuples(st.integers(1, 100), costs), min_size=2, max_size=4), st.integers(1, 300))
def test_within_a_priority_what_is_served_goes_by_the_weights(tenants: list[tuple[int, int]], turns: int) -> None:
    ids = [UUID(int=number) for number in range(1, len(tenants) + 1)]
    queue = Queue(
        {id: Share(weight=weight) for id, (weight, _) in zip(ids, tenants, strict=True)},
        {id: cost for id, (_, cost) in zip(ids, tenants, strict=True)},
    )
    asyncio.run(queue.run(turns))
    for one in ids:
        for other in ids:
            # The bound of the paper's lemma 3: a quantum and what each can have saved.
            saved = sum(queue.costs[id] / queue.shares[id].weight for id in (one, other))
            assert abs(queue.served(one) - queue.served(other)) <= QUANTUM + saved


@given(st.dictionaries(st.sampled_from([A, B, C]), st.tuples(shares, costs), min_size=2), st.integers(30, 120))
def test_whoever_waits_gets_a_turn_and_higher_priorities_get_more(
    tenants: dict[UUID, tuple[Share, int]], turns: int
) -> None:
    queue = Queue(
        {id: share for id, (share, _) in tenants.items()},
        {id: cost for id, (_, cost) in tenants.items()},
    )
    asyncio.run(queue.run(turns))
    classes = [queue.shares[id].priority for id in queue.office.who]
    waiting = [priority for priority in PRIORITIES if any(share.priority == priority for share, _ in tenants.values())]
    for lower in waiting[1:]:
        gaps = "".join("x" if each == lower else "." for each in classes).split("x")
        assert max(map(len, gaps)) <= MOST_PASSED + len(waiting) - 2
        assert classes.count(waiting[0]) >= classes.count(lower)
