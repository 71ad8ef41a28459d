"""Messages in Discord that answer an interaction:
https://docs.discord.com/developers/interactions/receiving-and-responding"""

from __future__ import annotations

from collections.abc import Mapping

from gateway.chat_tools.calls import Answer, Calls, Unwanted
from gateway.chat_tools.splitting import utf16

_ORIGINAL = "@original"
_OF_CHANNEL = "channel:"
"""How the names of messages begin that the bot posted by itself."""
_ENDED = (401, 404)
"""Statuses of a token that holds no more, 15 minutes after its interaction."""


class DiscordMessages:
    """Those of one answer, in ``place``: the application, its interaction's token, and the channel.

    A token holds for 15 minutes. Later ones are posted by the bot itself, where ``bot_token`` is known.
    """

    limit = 2000
    interval_s = 1.0

    def __init__(self, calls: Calls, url: str, bot_token: str | None, place: Mapping[str, str]) -> None:
        self._calls = calls
        self._hook = f"{url}/webhooks/{place['application']}/{place['token']}"
        self._channel = f"{url}/channels/{place['channel']}/messages"
        self._bot_token = None if bot_token is None else f"Bot {bot_token}"

    @staticmethod
    def cost(character: str) -> int:
        return utf16(character)

    async def put(self, at: int, text: str, message: str | None) -> str:
        """Show ``text`` as the message that is there, or as a new one; the first is there, as the reply that was
        promised. Returns its name. Raises Later, Unwanted."""
        body = {"content": text, "allowed_mentions": {"parse": []}}
        message = message or (_ORIGINAL if at == 0 else None)
        if message is not None and message.startswith(_OF_CHANNEL):
            named = message.removeprefix(_OF_CHANNEL)
            self._checked(await self._call("PATCH", f"{self._channel}/{named}", body, by_bot=True))
            return message
        if message is not None:
            answer = await self._call("PATCH", f"{self._hook}/messages/{message}", body)
        else:
            answer = await self._call("POST", f"{self._hook}?wait=true", body)
        if answer.status in _ENDED and self._bot_token is not None:
            answer = await self._call("POST", self._channel, body, by_bot=True)
            return _OF_CHANNEL + self._checked(answer)
        told = self._checked(answer)
        return message or told

    async def drop(self, message: str) -> None:
        """Raises Later, Unwanted."""
        if message.startswith(_OF_CHANNEL):
            url = f"{self._channel}/{message.removeprefix(_OF_CHANNEL)}"
            self._checked(await self._call("DELETE", url, None, by_bot=True))
        else:
            self._checked(await self._call("DELETE", f"{self._hook}/messages/{message}", None))

    async def _call(self, method: str, url: str, body: Mapping[str, object] | None, *, by_bot: bool = False) -> Answer:
        return await self._calls.call("Discord", method, url, body, self._bot_token if by_bot else None)

    def _checked(self, answer: Answer) -> str:
        """The id of the message that it tells of."""
        if not 200 <= answer.status < 300:
            why = str(answer.body.get("message", ""))[:100]
            raise Unwanted(f"Discord answered {answer.status} {why}".strip())
        return str(answer.body.get("id", ""))
