"""Taking token streams away before they expire."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from backplane.adapters.redis.connection import FAILED, client
from backplane.adapters.redis.frames import stream_name
from backplane.ports.token_stream import StreamUnavailable

_AT_ONCE = 1000


class RedisStreamEraser:
    """The ``StreamEraser`` port."""

    def __init__(self, url: str) -> None:
        self._client = client(url)

    async def erase(self, tenant_id: UUID, generation_ids: Sequence[UUID]) -> None:
        try:
            for begin in range(0, len(generation_ids), _AT_ONCE):
                async with self._client.pipeline(transaction=False) as pipeline:
                    for generation_id in generation_ids[begin : begin + _AT_ONCE]:
                        pipeline.unlink(stream_name(tenant_id, generation_id))
                    await pipeline.execute()
        except FAILED as error:
            raise StreamUnavailable(f"cannot erase token streams: {type(error).__name__}") from error

    async def close(self) -> None:
        await self._client.aclose()
