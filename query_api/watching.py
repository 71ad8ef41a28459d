"""Somebody who follows a generation: counted, and traced."""

from __future__ import annotations

from types import TracebackType
from uuid import UUID

from prometheus_client import Gauge

from backplane.telemetry import traces
from query_api.assembly import TOKEN, Step

_followers = Gauge("parley_stream_followers", "Who follows a generation in this process now")


class Watch:
    """While it is open. It may be closed from another task, as generators are."""

    def __init__(self, generation_id: UUID) -> None:
        self._generation_id = generation_id
        self._sees_tokens = False

    def __enter__(self) -> Watch:
        _followers.inc()
        self._span = traces.begin("follow", {traces.GENERATION: str(self._generation_id)})
        return self

    def told(self, step: Step) -> None:
        """The follower is told of ``step``."""
        if not self._sees_tokens and step.event == TOKEN:
            self._sees_tokens = True
            self._span.happened("first_token")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        _followers.dec()
        self._span.end()
