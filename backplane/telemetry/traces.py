"""Spans: what became of a request, step by step, over all services. Nothing is kept until a tracer is installed.

A trace begins with an HTTP request and nowhere else, so that work of Parley's own makes none. What is put into a span
leaves the installation: names, numbers and ids, never content and no secret.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from enum import Enum
from typing import Protocol

Attributes = Mapping[str, str | int | float | bool]

GENERATION = "parley.generation.id"
TENANT = "parley.tenant.id"
ATTEMPT = "parley.attempt"
POOL = "parley.pool"


class Kind(Enum):
    """As OpenTelemetry has them."""

    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"
    PRODUCER = "producer"
    CONSUMER = "consumer"


class Span(Protocol):
    """One step. To be ended once."""

    @property
    def traceparent(self) -> str | None:
        """For what this step causes, as W3C Trace Context writes it; None: there is no trace."""

    def rename(self, name: str) -> None: ...

    def note(self, attributes: Attributes) -> None: ...

    def happened(self, event: str) -> None:
        """At this moment."""

    def fail(self, kind: str) -> None:
        """It did not come to what it was for. ``kind`` is one of few words."""

    def end(self) -> None: ...


class Tracer(Protocol):
    def begin(self, name: str, kind: Kind, parent: str | None, attributes: Attributes, began: datetime | None) -> Span:
        """A step caused by ``parent``, a traceparent that a client may have sent; ``began``: now if None."""


class _NoSpan:
    @property
    def traceparent(self) -> None:
        return None

    def rename(self, name: str) -> None: ...

    def note(self, attributes: Attributes) -> None: ...

    def happened(self, event: str) -> None: ...

    def fail(self, kind: str) -> None: ...

    def end(self) -> None: ...


NO_SPAN: Span = _NoSpan()
_tracer: Tracer | None = None
_current: ContextVar[str | None] = ContextVar("traceparent", default=None)


def install(tracer: Tracer | None) -> None:
    """From now on spans go to ``tracer``; None: nowhere."""
    global _tracer
    _tracer = tracer


def are_kept() -> bool:
    """Whether anybody collects them."""
    return _tracer is not None


def current() -> str | None:
    """The traceparent of the step that this is part of; None where there is none, or nobody collects them."""
    return _current.get()


def begin(
    name: str,
    attributes: Attributes | None = None,
    *,
    kind: Kind = Kind.INTERNAL,
    parent: str | None = None,
    began: datetime | None = None,
) -> Span:
    """A step caused by ``parent``, else by what this is part of; without either only a request has a span.

    For generators, whose parts may run in different contexts; else ``span`` is better.
    """
    if _tracer is None:
        return NO_SPAN
    parent = parent or _current.get()
    if parent is None and kind is not Kind.SERVER:
        return NO_SPAN
    return _tracer.begin(name, kind, parent, attributes or {}, began)


@contextmanager
def span(
    name: str, attributes: Attributes | None = None, *, kind: Kind = Kind.INTERNAL, parent: str | None = None
) -> Iterator[Span]:
    """A step that lasts as long as this is open, and causes the steps within. What is raised makes it failed."""
    step = begin(name, attributes, kind=kind, parent=parent)
    outer = _current.set(step.traceparent)
    try:
        yield step
    except BaseException as error:
        step.fail(type(error).__name__)
        raise
    finally:
        _current.reset(outer)
        step.end()
