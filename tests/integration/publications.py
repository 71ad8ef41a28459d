"""A publisher that keeps what is published on it."""

from __future__ import annotations

from collections.abc import Mapping

from backplane.ports.bus import Position
from event_schemas.codec import AnyEnvelope, decode


class Publications:
    def __init__(self) -> None:
        self.envelopes: list[AnyEnvelope] = []

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        key: str | None = None,
        partition: int | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> Position:
        self.envelopes.append(decode(payload))
        return Position(0, len(self.envelopes))

    async def backlog(self, topic: str, subscription: str) -> list[int]:
        return [0]
