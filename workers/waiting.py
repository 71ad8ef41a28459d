"""Since when prompts wait, and for how long they did."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from prometheus_client import Histogram

from backplane.telemetry import traces
from event_schemas.codec import AnyEnvelope
from event_schemas.generation import SubmitPrompt

_queue_time = Histogram(
    "parley_worker_queue_seconds",
    "From a prompt's acceptance to its first claim",
    ["pool"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800),
)


def waited(envelope: AnyEnvelope, prompt: SubmitPrompt) -> None:
    """``prompt`` was claimed for the first time just now."""
    _queue_time.labels(prompt.pool).observe(max(0.0, (datetime.now(UTC) - envelope.time).total_seconds()))
    if envelope.traceparent is not None:
        about = {traces.GENERATION: str(prompt.generation_id), traces.POOL: prompt.pool}
        kind = traces.Kind.CONSUMER
        traces.begin("queue", about, kind=kind, parent=envelope.traceparent, began=envelope.time).end()


class Waiting:
    def __init__(self) -> None:
        self._since: dict[object, datetime] = {}

    @contextmanager
    def since(self, submitted: datetime) -> Iterator[None]:
        """A prompt that was submitted then waits while the context lasts."""
        mine = object()
        self._since[mine] = submitted
        try:
            yield
        finally:
            del self._since[mine]

    def oldest_s(self) -> float:
        """Age in seconds of the oldest prompt that waits; 0 where none does."""
        if not self._since:
            return 0.0
        return max(0.0, (datetime.now(UTC) - min(self._since.values())).total_seconds())
