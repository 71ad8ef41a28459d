"""Logs: one JSON object a line on standard error. No secret, prompt or answer is in one above DEBUG."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from backplane.telemetry import traces

_OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


_KEYS = (
    (re.compile(r"(parley_[0-9a-f]{16})_[0-9a-f]{64}"), r"\1_…"),
    # Of a URL, whatever the key is: one that was mistyped, or somebody else's.
    (re.compile(r"([?&](?:key|api_key|token|access_token)=)[^&\s\"'\\]+", re.IGNORECASE), r"\1…"),
    (re.compile(r"(/chat/)[^/\s\"\\]+(/[^/\s\"\\]+/history)"), r"\1…\2"),
)


def without_keys(text: str) -> str:
    """``text`` with API keys replaced: those of Parley anywhere, others where URLs have them."""
    for found, instead in _KEYS:
        text = found.sub(instead, text)
    return text


_concerned: ContextVar[Mapping[str, str]] = ContextVar("concerned", default=MappingProxyType({}))


def concerns(**ids: object) -> None:
    """What this task logs from now on, and what tasks do that it starts, concerns these: fields of each line.

    A task that works for others too, or goes on for them, is started with a ``Context`` of its own.
    """
    _concerned.set({**_concerned.get(), **{name: str(id) for name, id in ids.items()}})


@contextmanager
def concerning(**ids: object) -> Iterator[None]:
    """As ``concerns``, while this is open."""
    before = _concerned.set(_concerned.get())
    concerns(**ids)
    try:
        yield
    finally:
        _concerned.reset(before)


class JsonLines(logging.Formatter):
    """Fields given as ``extra`` become fields of the line, beside those that ``concerns`` and the trace have;
    ``action`` names what happened, in snake case."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
            **_concerned.get(),
        }
        if (traceparent := traces.current()) is not None:
            line["trace_id"] = traceparent.split("-")[1]
        line |= {name: value for name, value in record.__dict__.items() if name not in _OWN}
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["trace"] = self.formatException(record.exc_info)
        return without_keys(json.dumps(line, default=str, ensure_ascii=False))


def configure(service: str, level: str) -> None:
    """Send this process's logs to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for chatty in ("httpx", "httpcore", "asyncio", "alembic", "sqlalchemy"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
