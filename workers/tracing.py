"""Spans of attempts, and of what they ask a backend."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from backplane.settings.pools import BackendName
from backplane.telemetry import traces
from event_schemas.codec import AnyEnvelope
from event_schemas.generation import GenerationCompleted, SubmitPrompt
from workers.inference.port import BackendError, Finished, InferenceRequest, Item

logger = logging.getLogger(__name__)

_PROVIDERS: Mapping[BackendName, str] = {
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "vertex": "gcp.vertex_ai",
}
"""Names that OpenTelemetry's conventions for generative AI give; others are called as we call them."""


@contextmanager
def attempting(envelope: AnyEnvelope, prompt: SubmitPrompt, attempt: int) -> Iterator[traces.Span]:
    """While ``attempt`` runs."""
    about: traces.Attributes = {
        traces.GENERATION: str(prompt.generation_id),
        traces.TENANT: str(envelope.tenantid),
        traces.POOL: prompt.pool,
        traces.ATTEMPT: attempt,
    }
    with traces.span("attempt", about, parent=envelope.traceparent) as span:
        yield span


def came_out(span: traces.Span, result: object) -> None:
    """An attempt's ``result``, an event where it was its end. Said in the log, too."""
    event = getattr(result, "data", None)
    outcome = type(result).__name__ if event is None else type(event).__name__
    logger.info("attempt ended", extra={"action": "attempt_ended", "outcome": outcome})
    span.note({"parley.outcome": outcome})
    if isinstance(event, GenerationCompleted):
        span.note({"parley.first_token_ms": event.first_token_ms})


class ProviderCall:
    """One request to a backend, from now on, after OpenTelemetry's conventions for generative AI."""

    def __init__(self, backend: BackendName, request: InferenceRequest) -> None:
        about: traces.Attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": _PROVIDERS.get(backend, backend),
            "gen_ai.request.model": request.model,
            "gen_ai.request.stream": True,
        }
        self._span = traces.begin(f"chat {request.model}", about, kind=traces.Kind.CLIENT)

    def answered(self) -> None:
        """The first of its answer came."""
        self._span.happened("answered")

    def failed(self, error: BackendError) -> None:
        self._span.fail(error.reason)

    def end(self, last: Item | None) -> None:
        """``last`` is what came last of its answer."""
        if isinstance(last, Finished):
            used = {"input_tokens": last.input_tokens, "output_tokens": last.output_tokens}
            self._span.note({f"gen_ai.usage.{name}": tokens for name, tokens in used.items() if tokens is not None})
            self._span.note({"parley.finish_reason": last.finish_reason})
        self._span.end()
