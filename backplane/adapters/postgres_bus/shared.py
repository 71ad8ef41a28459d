"""A consumer of a shared subscription: each message is leased to one of its consumers."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from backplane.adapters.postgres_bus.consumer import Consumer, Membership, Node, message_of
from backplane.ports.bus import BusError, BusUnavailable, Message
from backplane.ports.group_commit import GroupCommit

_TAKE = "SELECT * FROM bus.take($1, $2, $3, $4, $5)"
# IS NOT DISTINCT FROM keeps the planner off the index by consumer, which walks all that this consumer ever had for as
# long as a long transaction elsewhere keeps it.
_ACK = """
DELETE FROM bus.deliveries d USING unnest($2::integer[], $3::integer[], $4::bigint[]) AS u (sub, part, entry)
WHERE d.subscription_id = u.sub AND d.partition = u.part AND d.entry = u.entry
  AND d.consumer_id IS NOT DISTINCT FROM $1
"""
_NACK = """
WITH freed AS (
  UPDATE bus.deliveries d
  SET consumer_id = NULL, available_at = clock_timestamp() + make_interval(secs => u.delay)
  FROM unnest($2::integer[], $3::integer[], $4::bigint[], $5::double precision[]) AS u (sub, part, entry, delay)
  WHERE d.subscription_id = u.sub AND d.partition = u.part AND d.entry = u.entry
  AND d.consumer_id IS NOT DISTINCT FROM $1
  RETURNING d.subscription_id)
SELECT pg_notify('bus_subscription_' || subscription_id, '') FROM freed GROUP BY subscription_id
"""
_KEEP_ONLY = "SELECT bus.keep_only($1, $2, $3, $4)"

_Place = tuple[int, int, int]
"""(subscription, partition, entry)"""


class SharedConsumer(Consumer):
    """Takes what a pending ``receive`` asks for and not more: what waits here could be with an idle consumer."""

    def __init__(
        self, node: Node, memberships: Sequence[Membership], prefetch: int, closed: Callable[[], None]
    ) -> None:
        super().__init__(node, memberships, prefetch, closed)
        self._subscriptions = {membership.topic.name: membership.subscription_id for membership in memberships}
        self._buffer: deque[Message] = deque()
        self._look: set[tuple[int, int]] = set()
        self._held: set[_Place] = set()
        self._unsettled: dict[_Place, float] = {}
        """Acks and nacks that failed → when (monotonic seconds) to give the message back, unless they are repeated."""
        self._reconcile_at: list[float] = []
        """When (monotonic seconds) to compare what is held here with what the server thinks."""
        self._acks: GroupCommit[tuple[_Place, ...], None] = GroupCommit(self._write_acks)
        self._nacks: GroupCommit[tuple[_Place, float], None] = GroupCommit(self._write_nacks)

    async def ack(self, *messages: Message) -> None:
        places = tuple(place for message in messages if (place := self._place(message)) in self._held)
        if not places:
            return
        try:
            await self._acks.submit(places)
        except BusUnavailable:
            give_back_at = time.monotonic() + self.node.leases.lease_s
            self._unsettled.update((place, give_back_at) for place in places if place in self._held)
            raise
        self._settled(places)

    async def nack(self, message: Message, *, delay: float = 0.0) -> None:
        place = self._place(message)
        if place not in self._held:
            return
        try:
            await self._nacks.submit((place, max(0.0, delay)))
        except BusUnavailable:
            self._unsettled[place] = time.monotonic() + max(0.0, delay)
        else:
            self._settled([place])

    def hand_out(self, limit: int) -> list[Message]:
        return [self._buffer.popleft() for _ in range(min(limit, len(self._buffer)))]

    def drop_all(self) -> None:
        self._buffer.clear()
        self._held.clear()
        self._unsettled.clear()

    def look_at(self, membership: Membership, partitions: Sequence[int]) -> None:
        self._look.update((membership.subscription_id, partition) for partition in partitions)

    def members_changed(self) -> None:
        """Nothing to note: every take also looks at what came back."""

    def after_outage(self) -> None:
        # A take whose reply was lost may have been carried out, or still be on its way to the server.
        now = time.monotonic()
        self._reconcile_at = [now, now + self.node.leases.lease_s]
        self.look_everywhere()

    async def fetch(self) -> float:
        await self._reconcile()
        if not self.wanted or self._buffer:
            return self.node.poll_s
        look, self._look = self._look, set()
        epoch, wanted = self.epoch, self.wanted
        rows = await self.node.connections.fetch(
            _TAKE,
            self.id,
            wanted,
            list(self.memberships),
            [subscription for subscription, _ in look],
            [partition for _, partition in look],
        )
        if epoch != self.epoch:
            return 0.0
        wait_s = self.node.poll_s
        taken: list[tuple[_Place, Message]] = []
        for row in rows:
            match row["state"]:
                case "message":
                    place = (row["subscription_id"], row["partition"], row["entry"])
                    taken.append((place, message_of(self.memberships[place[0]].topic.name, row)))
                case "busy":
                    self._look |= look
                    wait_s = random.uniform(0.001, 0.005)
                case "due":
                    wait_s = min(wait_s, row["seconds"])
                case "gone":
                    self.lost()
                    return 0.0
                case state:
                    raise BusError(f"bus.take answers {state!r}: the database is of another release")
        if taken:
            taken.sort(key=lambda item: item[0])
            self._held.update(place for place, _ in taken)
            self._buffer.extend(message for _, message in taken)
            if len(taken) >= wanted:
                # There may be more where these came from.
                self._look |= look
            self.deliverable()
        return wait_s

    async def _reconcile(self) -> None:
        now = time.monotonic()
        given_up = [place for place, deadline in self._unsettled.items() if deadline <= now]
        later = [at for at in self._reconcile_at if at > now]
        if not given_up and len(later) == len(self._reconcile_at):
            return
        keep = self._held.difference(given_up)
        await self.node.connections.fetch(
            _KEEP_ONLY,
            self.id,
            [subscription for subscription, _, _ in keep],
            [partition for _, partition, _ in keep],
            [entry for _, _, entry in keep],
        )
        self._reconcile_at = later
        self._settled(given_up)

    def _settled(self, places: Iterable[_Place]) -> None:
        for place in places:
            self._held.discard(place)
            self._unsettled.pop(place, None)

    async def _write_acks(self, groups: list[tuple[_Place, ...]]) -> list[Exception | None]:
        places = [place for group in groups for place in group]
        await self.node.connections.fetch(
            _ACK, self.id, [p[0] for p in places], [p[1] for p in places], [p[2] for p in places]
        )
        return [None] * len(groups)

    async def _write_nacks(self, nacks: list[tuple[_Place, float]]) -> list[Exception | None]:
        await self.node.connections.fetch(
            _NACK,
            self.id,
            [place[0] for place, _ in nacks],
            [place[1] for place, _ in nacks],
            [place[2] for place, _ in nacks],
            [delay for _, delay in nacks],
        )
        return [None] * len(nacks)

    def _place(self, message: Message) -> _Place:
        try:
            return self._subscriptions[message.topic], message.partition, message.position.entry
        except KeyError:
            raise ValueError(f"this consumer has no topic {message.topic!r}") from None
