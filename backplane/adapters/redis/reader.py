"""The followers' side of the token stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from uuid import UUID

from backplane.adapters.redis import frames
from backplane.adapters.redis.connection import FAILED, client
from backplane.adapters.redis.hub import Hub, Listener
from backplane.ports.token_stream import Frame, StreamUnavailable

_BUFFERED = 1024
_MOST_DELTAS = 64


class RedisStreamReader:
    """The ``StreamReader`` port. A follower who is behind gets runs of tokens joined to one frame."""

    def __init__(self, url: str, hub: Hub, *, buffered: int = _BUFFERED) -> None:
        """``buffered`` is the most frames that wait for a slow follower; it is then told to read the backlog."""
        self._client = client(url)
        self._hub = hub
        self._buffered = buffered

    async def backlog(self, tenant_id: UUID, generation_id: UUID) -> list[Frame]:
        try:
            entries: list[tuple[bytes, dict[bytes, bytes]]] = await self._client.execute_command(  # type: ignore[no-untyped-call]
                "XRANGE", frames.stream_name(tenant_id, generation_id), "-", "+"
            )
            return list(frames.coalesced(frames.decode(fields[frames.FIELD]) for _, fields in entries))
        except (*FAILED, frames.UnreadableFrame) as error:
            raise StreamUnavailable(f"cannot read the token stream: {type(error).__name__}") from error

    def follow(self, tenant_id: UUID, generation_id: UUID) -> AbstractAsyncContextManager[AsyncIterator[Frame | None]]:
        return self._follow(frames.stream_name(tenant_id, generation_id))

    @asynccontextmanager
    async def _follow(self, name: bytes) -> AsyncIterator[AsyncIterator[Frame | None]]:
        listener = Listener(name, capacity=self._buffered, patient=False)
        await self._hub.enter(listener)
        try:
            yield _Live(listener)
        finally:
            self._hub.leave(listener)

    async def close(self) -> None:
        """Close the reader's own connections; the hub is closed by whoever made it."""
        await self._client.aclose()


class _Live:
    """Frames as they arrive. A pending ``anext`` may be cancelled and loses nothing."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._held: Frame | None = None

    def __aiter__(self) -> _Live:
        return self

    async def __anext__(self) -> Frame | None:
        frame, self._held = self._held, None
        if frame is None:
            raw = await self._listener.next()
            if raw is None:
                return None
            frame = _decoded(raw)
        raw = self._listener.at_hand()
        if raw is None:
            return frame
        run, deltas = [frame], len(frame.deltas)
        while raw is not None:
            following = _decoded(raw)
            if not frames.follows(run[-1], following):
                self._held = following
                break
            run.append(following)
            deltas += len(following.deltas)
            raw = self._listener.at_hand() if deltas < _MOST_DELTAS else None
        return frames.joined(run)


def _decoded(raw: bytes) -> Frame:
    try:
        return frames.decode(raw)
    except frames.UnreadableFrame as error:
        raise StreamUnavailable(str(error)) from error
