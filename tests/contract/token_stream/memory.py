"""The token stream in memory, for tests of what stands on the port. It runs the contract suite like the real one."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

from backplane.ports.token_stream import Cursor, Frame, Kind, StreamUnavailable

Key = tuple[UUID, UUID]


class Inbox:
    """One follower's frames, as an iterator whose pending ``anext`` may be cancelled."""

    def __init__(self, capacity: int) -> None:
        self._frames: deque[Frame | None] = deque()
        self._capacity = capacity
        self._arrived = asyncio.Event()
        self._broken = False

    def put(self, frame: Frame | None) -> None:
        if len(self._frames) >= self._capacity:
            self._frames.clear()
            self._frames.append(None)
        self._frames.append(frame)
        self._arrived.set()

    def break_off(self) -> None:
        self._broken = True
        self._arrived.set()

    def __aiter__(self) -> Inbox:
        return self

    async def __anext__(self) -> Frame | None:
        while not self._frames:
            if self._broken:
                raise StreamUnavailable("broken off by the test")
            self._arrived.clear()
            await self._arrived.wait()
        return self._frames.popleft()


class MemoryStream:
    """``StreamWriter``, ``StreamReader`` and ``StreamEraser`` in one."""

    def __init__(self, capacity: int = 64) -> None:
        self.kept: defaultdict[Key, list[Frame]] = defaultdict(list)
        self.followers: defaultdict[Key, list[Inbox]] = defaultdict(list)
        self.down = False
        self._capacity = capacity

    def append(self, tenant_id: UUID, generation_id: UUID, frame: Frame) -> None:
        if self.down:
            return
        self.kept[tenant_id, generation_id].append(frame)
        for inbox in self.followers[tenant_id, generation_id]:
            inbox.put(frame)

    async def flush(self) -> None:
        await asyncio.sleep(0)

    async def last(self, tenant_id: UUID, generation_id: UUID) -> Cursor | None:
        self._check()
        tokens = [frame for frame in self.kept[tenant_id, generation_id] if frame.kind is Kind.TOKEN]
        return Cursor(tokens[-1].attempt, tokens[-1].seq) if tokens else None

    async def erase(self, tenant_id: UUID, generation_ids: Sequence[UUID]) -> None:
        self._check()
        for generation_id in generation_ids:
            self.kept.pop((tenant_id, generation_id), None)

    async def backlog(self, tenant_id: UUID, generation_id: UUID) -> list[Frame]:
        await asyncio.sleep(0)
        self._check()
        return list(self.kept[tenant_id, generation_id])

    @asynccontextmanager
    async def follow(self, tenant_id: UUID, generation_id: UUID) -> AsyncIterator[AsyncIterator[Frame | None]]:
        await asyncio.sleep(0)
        self._check()
        inbox = Inbox(self._capacity)
        self.followers[tenant_id, generation_id].append(inbox)
        try:
            yield inbox
        finally:
            self.followers[tenant_id, generation_id].remove(inbox)

    def fail(self) -> None:
        """Unreachable from now on; followers are told."""
        self.down = True
        for inboxes in self.followers.values():
            for inbox in inboxes:
                inbox.break_off()

    def recover(self) -> None:
        self.down = False

    def _check(self) -> None:
        if self.down:
            raise StreamUnavailable("down by the test")
