"""A consumer of a failover subscription: it owns partitions, reads them in order, and remembers one number for each."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from uuid import UUID

import asyncpg

from backplane.adapters.postgres_bus.assignment import quota
from backplane.adapters.postgres_bus.consumer import Consumer, Membership, Node, message_of
from backplane.adapters.postgres_bus.owned_partition import OwnedPartition, columns
from backplane.ports.bus import BusUnavailable, Message
from backplane.ports.group_commit import GroupCommit

_MOST_BYTES = 16 * 1024 * 1024
"""One read ends after this much payload, so that a backlog of large messages does not fill the memory."""

_PICTURE = """
SELECT c.subscription_id, c.partition, c.owner_id,
       ARRAY(SELECT m.consumer_id FROM bus.members m WHERE m.subscription_id = c.subscription_id) AS members
FROM bus.cursors c WHERE c.subscription_id = ANY ($1)
ORDER BY c.subscription_id, c.partition
"""
_CLAIM = "SELECT subscription_id, partition, next_entry FROM bus.claim($1, $2, $3)"
_READ = """
SELECT w.place::integer AS place, w.part AS partition, m.entry, m.key, m.payload, m.properties
FROM unnest($1::integer[], $2::integer[], $3::bigint[]) WITH ORDINALITY AS w (topic, part, start, place)
CROSS JOIN LATERAL (
  SELECT * FROM (
    SELECT b.entry, b.key, b.payload, b.properties,
           sum(octet_length(b.payload)) OVER (ORDER BY b.entry) - octet_length(b.payload) AS bytes_before
    FROM bus.messages b WHERE b.topic_id = w.topic AND b.partition = w.part AND b.entry >= w.start
    ORDER BY b.entry LIMIT $4) x
  WHERE x.bytes_before < $5) m
ORDER BY w.place, m.entry
"""
_ACK = """
WITH mine AS MATERIALIZED (
  SELECT c.subscription_id, c.partition, u.next
  FROM unnest($2::integer[], $3::integer[], $4::bigint[]) AS u (sub, part, next)
  JOIN bus.cursors c ON c.subscription_id = u.sub AND c.partition = u.part
  WHERE c.owner_id = $1
  FOR NO KEY UPDATE OF c),
moved AS (
  INSERT INTO bus.progress (subscription_id, partition, next_entry)
  SELECT subscription_id, partition, next FROM mine ON CONFLICT DO NOTHING)
SELECT subscription_id, partition FROM mine
"""
_RELEASE = """
WITH released AS (
  UPDATE bus.cursors c SET owner_id = NULL
  FROM unnest($2::integer[], $3::integer[], $4::bigint[]) AS u (sub, part, next)
  WHERE c.subscription_id = u.sub AND c.partition = u.part AND c.owner_id = $1
  RETURNING c.subscription_id, c.partition, u.next),
moved AS (
  INSERT INTO bus.progress (subscription_id, partition, next_entry)
  SELECT subscription_id, partition, next FROM released ON CONFLICT DO NOTHING)
SELECT pg_notify('bus_subscription_' || subscription_id, '') FROM released GROUP BY subscription_id
"""


class FailoverConsumer(Consumer):
    def __init__(
        self, node: Node, memberships: Sequence[Membership], prefetch: int, closed: Callable[[], None]
    ) -> None:
        super().__init__(node, memberships, prefetch, closed)
        self._subscriptions = {membership.topic.name: membership.subscription_id for membership in memberships}
        self._owned: dict[tuple[int, int], OwnedPartition] = {}
        self._buffer: deque[tuple[OwnedPartition, Message]] = deque()
        self._nacked: list[tuple[float, int, OwnedPartition, Message]] = []
        self._nacks = itertools.count()
        self._balance_due = True
        self._behind = False
        """A read was full, so it pays to have the next one at hand before it is asked for."""
        self._catch_up = False
        """An acknowledgement could not be recorded: do it when the bus is back, even if no other one follows."""
        self._acks: GroupCommit[tuple[OwnedPartition, ...], None] = GroupCommit(self._write_acks)

    async def ack(self, *messages: Message) -> None:
        touched: dict[tuple[int, int], OwnedPartition] = {}
        for message in messages:
            owned = self._owner_of(message)
            if owned is not None:
                owned.mark.ack(message.position.entry)
                touched[owned.place] = owned
        moved = tuple(owned for owned in touched.values() if owned.mark.next > owned.persisted)
        if moved:
            try:
                await self._acks.submit(moved)
            except BusUnavailable:
                self._catch_up = True
                raise
        if any(owned.release_at is not None for owned in touched.values()):
            self.wake()

    async def nack(self, message: Message, *, delay: float = 0.0) -> None:
        owned = self._owner_of(message)
        if owned is None or not owned.mark.is_open(message.position.entry):
            return
        owned.nacked += 1
        heapq.heappush(self._nacked, (time.monotonic() + max(0.0, delay), next(self._nacks), owned, message))
        self.wake()

    def hand_out(self, limit: int) -> list[Message]:
        batch: list[Message] = []
        while self._buffer and len(batch) < limit:
            owned, message = self._buffer.popleft()
            if self._owned.get(owned.place) is not owned:
                continue
            if message.position.entry >= owned.mark.delivered_next:
                owned.mark.deliver(message.position.entry)
            elif not owned.mark.is_open(message.position.entry):
                continue  # acknowledged after it was nacked
            batch.append(message)
        if len(self._buffer) <= self.prefetch // 2:
            self.wake()
        return batch

    def drop_all(self) -> None:
        self._owned.clear()
        self._buffer.clear()
        self._nacked.clear()

    def look_at(self, membership: Membership, partitions: Sequence[int]) -> None:
        for partition in partitions:
            owned = self._owned.get((membership.subscription_id, partition))
            if owned is not None:
                owned.look = True

    def members_changed(self) -> None:
        self._balance_due = True

    def after_outage(self) -> None:
        self._balance_due = True
        self.look_everywhere()

    async def fetch(self) -> float:
        if self._balance_due:
            self._balance_due = False
            await self._balance()
        await self._release()
        if self._catch_up:
            behind = tuple(owned for owned in self._owned.values() if owned.mark.next > owned.persisted)
            if behind:
                await self._acks.submit(behind)
            self._catch_up = False
        wait_s = self._bring_back()
        if self._wants_more():
            await self._read(self.prefetch - len(self._buffer))
        if self._buffer:
            self.deliverable()
        return wait_s

    def _wants_more(self) -> bool:
        # A read for every single message, while the one before is still being handled, would cost more than they do.
        return (
            (self.wanted > 0 or self._behind)
            and len(self._buffer) <= self.prefetch // 2
            and sum(len(message.payload) for _, message in self._buffer) < _MOST_BYTES
        )

    async def _read(self, room: int) -> None:
        owned = [each for each in self._owned.values() if each.look and each.release_at is None]
        self._behind = False
        if not owned:
            return
        for each in owned:
            each.look = False
        limit = -(-room // len(owned))
        rows = await self.node.connections.fetch(
            _READ,
            [each.membership.topic.id for each in owned],
            [each.partition for each in owned],
            [each.read_next for each in owned],
            limit,
            _MOST_BYTES,
        )
        by_place: defaultdict[int, list[Message]] = defaultdict(list)
        for row in rows:
            by_place[row["place"]].append(message_of(owned[row["place"] - 1].membership.topic.name, row))
        for place, messages in by_place.items():
            each = owned[place - 1]
            each.read_next = messages[-1].position.entry + 1
            if len(messages) == limit or sum(len(message.payload) for message in messages) >= _MOST_BYTES:
                each.look = self._behind = True
            self._buffer.extend((each, message) for message in messages)
        if self._behind:
            self.wake()

    def _bring_back(self) -> float:
        """Put nacked messages whose time has come first in the buffer; return seconds until the next one."""
        due: list[tuple[OwnedPartition, Message]] = []
        now = time.monotonic()
        while self._nacked and self._nacked[0][0] <= now:
            _, _, owned, message = heapq.heappop(self._nacked)
            if owned.release_at is None and self._owned.get(owned.place) is owned:
                owned.nacked -= 1
                due.append((owned, message))
        self._buffer.extendleft(reversed(due))
        waits = [at - now for at, *_ in self._nacked[:1]]
        waits += [owned.release_at - now for owned in self._owned.values() if owned.release_at is not None]
        return max(0.0, min([self.node.poll_s, *waits]))

    async def _balance(self) -> None:
        epoch = self.epoch
        rows = await self.node.connections.fetch(_PICTURE, list(self.memberships))
        if epoch != self.epoch:
            return
        by_subscription: defaultdict[int, list[asyncpg.Record]] = defaultdict(list)
        for row in rows:
            by_subscription[row["subscription_id"]].append(row)
        wanted: list[tuple[int, int]] = []
        for subscription_id, cursors in by_subscription.items():
            members = cursors[0]["members"]
            if self.id not in members:
                self.lost()
                return
            wanted += self._reassign(subscription_id, members, cursors)
        if not wanted:
            return
        claimed = await self.node.connections.fetch(
            _CLAIM, self.id, [subscription for subscription, _ in wanted], [partition for _, partition in wanted]
        )
        if epoch == self.epoch:
            for row in claimed:
                owned = OwnedPartition(self.memberships[row["subscription_id"]], row["partition"], row["next_entry"])
                self._owned[owned.place] = owned

    def _reassign(
        self, subscription_id: int, members: list[UUID], cursors: list[asyncpg.Record]
    ) -> list[tuple[int, int]]:
        """Let go of what we own too much of; return what we want to claim."""
        owners = Counter(cursor["owner_id"] for cursor in cursors if cursor["owner_id"] is not None)
        allowed = quota(self.id, subscription_id, members, owners, len(cursors))
        mine: list[OwnedPartition] = []
        wanted: list[tuple[int, int]] = []
        for cursor in cursors:
            place = (subscription_id, cursor["partition"])
            owned = self._owned.get(place)
            if cursor["owner_id"] != self.id:
                self._owned.pop(place, None)
            elif owned is None:
                wanted.append(place)  # the reply to our claim was lost
            else:
                mine.append(owned)
        # What is on its way out counts first among those to let go: a release that has begun is carried out.
        mine.sort(key=lambda owned: owned.release_at is not None)
        for owned in mine[allowed:]:
            if owned.release_at is None:
                self._begin_release(owned)
        free = [(subscription_id, cursor["partition"]) for cursor in cursors if cursor["owner_id"] is None]
        return wanted + free[: max(0, allowed - len(mine) - len(wanted))]

    def _begin_release(self, owned: OwnedPartition) -> None:
        owned.release_at = time.monotonic() + self.node.leases.lease_s
        for each, message in self._buffer:
            if each is owned and owned.mark.is_open(message.position.entry):
                owned.nacked += 1
        self._buffer = deque(item for item in self._buffer if item[0] is not owned)

    async def _release(self) -> None:
        """Give up partitions that others are to read, once our caller is done with what it has of them."""
        now = time.monotonic()
        done = [
            owned
            for owned in self._owned.values()
            if owned.release_at is not None and (owned.mark.outstanding <= owned.nacked or owned.release_at <= now)
        ]
        if not done:
            return
        await self.node.connections.fetch(_RELEASE, self.id, *columns((owned.place, owned.mark.next) for owned in done))
        for owned in done:
            if self._owned.get(owned.place) is owned:
                del self._owned[owned.place]
        self._balance_due = True

    async def _write_acks(self, groups: list[tuple[OwnedPartition, ...]]) -> list[Exception | None]:
        moved = {owned.place: (owned, owned.mark.next) for group in groups for owned in group}
        rows = await self.node.connections.fetch(
            _ACK, self.id, *columns((place, reached) for place, (_, reached) in moved.items())
        )
        still_mine = {(row["subscription_id"], row["partition"]) for row in rows}
        for place, (owned, reached) in moved.items():
            if place in still_mine:
                owned.persisted = max(owned.persisted, reached)
            elif self._owned.get(place) is owned:
                del self._owned[place]
        return [None] * len(groups)

    def _owner_of(self, message: Message) -> OwnedPartition | None:
        try:
            return self._owned.get((self._subscriptions[message.topic], message.partition))
        except KeyError:
            raise ValueError(f"this consumer has no topic {message.topic!r}") from None
