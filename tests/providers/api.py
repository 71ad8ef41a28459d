"""What the server needs to know of an API, for one request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from aiohttp import web

from tests.providers.answer import Answer, Asked
from tests.providers.frame import Frame
from tests.providers.limiter import Limiter
from tests.providers.model import Model
from tests.providers.problem import Problem
from tests.providers.script import Script

Refusal = tuple[int, Any, dict[str, str]]
"""Status, JSON body and headers of an error."""


class Api(Protocol):
    """One request in the terms of its API."""

    stream_type: str
    """Content type of a streamed answer."""
    call_prefix: str
    """How the ids of tool calls begin."""
    interleaves: bool
    """Deltas of several tool calls may alternate."""

    def __init__(self, request: web.Request) -> None: ...

    def key(self) -> str | None:
        """The key that the request shows; None where it shows none, or not as this API wants it."""

    def user(self, body: Mapping[str, Any]) -> str | None:
        """The API's own field for the end user."""

    def asked(self, body: Any, models: Mapping[str, Model], extra: frozenset[str]) -> Asked:
        """What the request asks for. Raises `Problem`."""

    def frames(self, answer: Answer, asked: Asked, script: Script) -> Iterator[Frame]:
        """The events of a streamed answer."""

    def encode(self, frame: Frame) -> bytes:
        """An event as it is written."""

    def body(self, answer: Answer, asked: Asked, script: Script) -> dict[str, Any]:
        """An answer that does not stream."""

    def stream_error(self) -> bytes:
        """The event of a stream that fails."""

    def error(self, problem: Problem) -> Refusal:
        """An error status."""

    def headers(self, limiter: Limiter | None) -> dict[str, str]:
        """Headers of every response: the request's id, and what is left of the key's limits."""
