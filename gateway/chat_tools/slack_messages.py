"""Messages in Slack: https://docs.slack.dev/reference/methods/chat.postMessage"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.chat_tools.calls import Calls, Later, Unwanted
from gateway.chat_tools.splitting import utf16

_ESCAPED = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_PASSING = frozenset({"fatal_error", "internal_error", "ratelimited", "request_timeout", "service_unavailable"})
"""Errors that are none of the request's."""


class SlackMessages:
    """Those of one answer, in ``place``: its channel, and the thread in it."""

    limit = 3800
    """Slack wants 4,000 characters of a text at most."""
    interval_s = 1.2
    """It allows about 50 edits a minute."""

    def __init__(self, calls: Calls, url: str, bot_token: str, place: Mapping[str, str]) -> None:
        self._calls = calls
        self._url = url
        self._bot_token = bot_token
        self._place = place

    @staticmethod
    def cost(character: str) -> int:
        """As it is sent."""
        return len(_ESCAPED.get(character, "")) or utf16(character)

    async def put(self, at: int, text: str, message: str | None) -> str:
        """Show ``text`` as the message that is there, or as a new one. Returns its name. Raises Later, Unwanted."""
        if message is not None:
            await self._ask("chat.update", {"ts": message, "text": _escaped(text)})
            return message
        thread = {"thread_ts": self._place["thread"]} if "thread" in self._place else {}
        return str((await self._ask("chat.postMessage", {"text": _escaped(text), **thread}))["ts"])

    async def drop(self, message: str) -> None:
        """Raises Later, Unwanted."""
        await self._ask("chat.delete", {"ts": message})

    async def _ask(self, method: str, body: dict[str, Any]) -> Mapping[str, Any]:
        asked = {"channel": self._place["channel"], **body}
        url = f"{self._url}/{method}"
        answer = await self._calls.call("Slack", "POST", url, asked, f"Bearer {self._bot_token}")
        if answer.body.get("ok") is True:
            return answer.body
        error = str(answer.body.get("error", answer.status))[:100]
        raise (Later if error in _PASSING else Unwanted)(f"Slack says to {method}: {error}")


def _escaped(text: str) -> str:
    """As Slack shows it and no one is called by it: https://docs.slack.dev/messaging/formatting-message-text"""
    return "".join(_ESCAPED.get(character, character) for character in text)
