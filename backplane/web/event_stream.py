"""Server-Sent Events as responses."""

from __future__ import annotations

from collections.abc import AsyncIterable

from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import AppStatus
from starlette.types import Message, Send

SEPARATOR = "\n"
"""Between lines. JSON holds no line breaks of its own, so each event has one data line."""

COMMENT = ServerSentEvent(comment="ping", sep=SEPARATOR)


class EventStream(EventSourceResponse):
    """Sends bytes that are events already, and ``ping`` every ``ping_s`` seconds.

    Without a time limit, as ``send_timeout=None`` asks, and without a cancel scope around each send for it.
    """

    def __init__(
        self,
        events: AsyncIterable[bytes],
        ping_s: float,
        headers: dict[str, str] | None = None,
        status_code: int = 200,  # FastAPI looks here for what the API pages say
        ping: ServerSentEvent = COMMENT,
    ) -> None:
        super().__init__(
            events,
            status_code,
            headers,
            sep=SEPARATOR,
            ping=ping_s,
            ping_message_factory=lambda: ping,
        )

    async def _send_with_timeout(self, send: Send, message: Message) -> None:
        await send(message)


def is_closing() -> bool:
    """Whether streams end because this process does, and not because their readers went away."""
    return AppStatus.should_exit
