"""Slack and Discord to test against: a server that speaks as much of their web APIs as Parley calls, and keeps what was
posted; and the requests that they, and Teams, send, signed as they sign them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from backplane.ports.identifiers import new_id

BOT_TOKEN = "xoxb-canary-of-a-test"
DISCORD_BOT_TOKEN = "canary.of.a.discord.test"
CHANNEL, NOWHERE = "C0LAN2Q65", "C0NOWHERE"
APPLICATION = "845027738276462632"


@dataclass
class Call:
    """One request, as it came."""

    what: str
    message: str
    text: str
    at: float


@dataclass
class ChatPlatforms:
    calls: list[Call] = field(default_factory=list)
    messages: dict[str, str] = field(default_factory=dict)
    """What stands there now, by the message's name, in the order that they were posted."""
    threads: dict[str, str] = field(default_factory=dict)
    """Message → the one that it answers to."""
    tokens: set[str] = field(default_factory=set)
    """Of Discord's interactions, that hold."""
    faults: deque[web.Response] = field(default_factory=deque)
    """What the next requests get in place of an answer."""
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, holds: Callable[[], object], within_s: float = 60.0) -> None:
        """Wait until ``holds``, which is asked whenever something was called."""
        try:
            async with asyncio.timeout(within_s), self._changed:
                await self._changed.wait_for(holds)
        except TimeoutError:
            calls = [(f"{one.at - self.calls[0].at:.1f} s", one.what, len(one.text)) for one in self.calls]
            raise AssertionError(f"after {within_s:g} s there is still {self.messages}, by {calls}") from None

    def was_spared(self) -> None:
        """It was called about once a second at most; single calls may have been held up on their way."""
        took_s = self.calls[-1].at - self.calls[0].at
        assert len(self.calls) <= took_s + 2, f"{len(self.calls)} calls within {took_s:.1f} s"

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_post("/slack/{method}", self._slack)
        application.router.add_route("*", "/discord/webhooks/{application}/{token}", self._discord)
        application.router.add_route("*", "/discord/webhooks/{application}/{token}/messages/{id}", self._discord)
        application.router.add_route("*", "/discord/channels/{channel}/messages", self._discord)
        application.router.add_route("*", "/discord/channels/{channel}/messages/{id}", self._discord)
        return application

    async def _slack(self, request: web.Request) -> web.Response:
        body, method = await request.json(), request.match_info["method"]
        if (fault := await self._noted(method, body.get("ts", ""), body.get("text", ""))) is not None:
            return fault
        if request.headers.get("authorization") != f"Bearer {BOT_TOKEN}":
            return _slack_error("invalid_auth")
        if body["channel"] == NOWHERE:
            return _slack_error("not_in_channel")
        if len(body.get("text", "")) > 4000:
            return _slack_error("msg_too_long")
        if method == "chat.postMessage":
            ts = f"1515449{next(self._numbers):03}.000016"
            self.threads[ts] = body.get("thread_ts", "")
        else:
            ts = body["ts"]
            if ts not in self.messages:
                return _slack_error("message_not_found")
        await self._stands(ts, None if method == "chat.delete" else body["text"])
        return web.json_response({"ok": True, "channel": body["channel"], "ts": ts})

    async def _discord(self, request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else {}
        named = request.match_info.get("id", "")
        if (fault := await self._noted(request.method, named, body.get("content", ""))) is not None:
            return fault
        token = request.match_info.get("token")
        if token is None:
            if request.headers.get("authorization") != f"Bot {DISCORD_BOT_TOKEN}":
                return web.json_response({"message": "401: Unauthorized", "code": 0}, status=401)
        elif token not in self.tokens:
            return web.json_response({"message": "Invalid Webhook Token", "code": 50027}, status=401)
        if len(body.get("content", "")) > 2000 or (request.method != "DELETE" and not body.get("content")):
            return web.json_response({"message": "Invalid Form Body", "code": 50035}, status=400)
        if request.method != "DELETE" and body.get("allowed_mentions") != {"parse": []}:
            return web.json_response({"message": "somebody would be called"}, status=400)
        place = token or request.match_info["channel"]
        name = f"{place}/{named or next(self._numbers)}"
        if request.method != "POST" and named != "@original" and name not in self.messages:
            return web.json_response({"message": "Unknown Message", "code": 10008}, status=404)
        await self._stands(name, None if request.method == "DELETE" else body["content"])
        return web.json_response({"id": name.rpartition("/")[2]}, status=204 if request.method == "DELETE" else 200)

    async def _noted(self, what: str, message: str, text: str) -> web.Response | None:
        async with self._changed:
            self.calls.append(Call(what, message, text, time.monotonic()))
            self._changed.notify_all()
        return self.faults.popleft() if self.faults else None

    async def _stands(self, message: str, text: str | None) -> None:
        async with self._changed:
            if text is None:
                self.messages.pop(message, None)
            else:
                self.messages[message] = text
            self._changed.notify_all()


def _slack_error(error: str) -> web.Response:
    return web.json_response({"ok": False, "error": error})


def too_many(retry_after_s: int) -> web.Response:
    return web.json_response(
        {"ok": False, "error": "ratelimited"}, status=429, headers={"Retry-After": str(retry_after_s)}
    )


@asynccontextmanager
async def chat_platforms(port: int) -> AsyncIterator[ChatPlatforms]:
    """Serves on this port of 127.0.0.1 until the block ends."""
    server = ChatPlatforms()
    runner = web.AppRunner(server.application(), shutdown_timeout=0, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield server
    finally:
        await runner.cleanup()


@dataclass(frozen=True)
class Signed:
    """One request of a tool's."""

    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True)
class Slack:
    """An app there."""

    signing_secret: str = "8f742231b10e8888abcd99yyyzzz85a5"
    kind: str = "slack"

    @property
    def secrets(self) -> dict[str, str]:
        return {"signing_secret": self.signing_secret, "bot_token": BOT_TOKEN}

    def signed(self, body: bytes, content_type: str = "application/json", at: float | None = None) -> Signed:
        timestamp = str(int(time.time() if at is None else at))
        mac = hmac.new(self.signing_secret.encode(), f"v0:{timestamp}:".encode() + body, hashlib.sha256)
        headers = {"X-Slack-Request-Timestamp": timestamp, "X-Slack-Signature": f"v0={mac.hexdigest()}"}
        return Signed(body, headers | {"Content-Type": content_type})

    def event(
        self, text: str, *, thread: str | None = None, channel: str = CHANNEL, at: float | None = None, **event: Any
    ) -> Signed:
        """A mention, as Slack's Events API sends it; ``event`` are fields that are otherwise."""
        ts = f"1515449522.{new_id().int % 10**6:06}"
        said: dict[str, Any] = {
            "type": "app_mention",
            "user": "U061F7AUR",
            "text": f"<@U0LAN0Z89> {text}",
            "ts": ts,
            "channel": channel,
            "event_ts": ts,
            **({} if thread is None else {"thread_ts": thread}),
            **event,
        }
        payload = {
            "token": "ZZZZZZWSxiZZZ2yIvs3peJ",
            "team_id": "T061EG9R6",
            "api_app_id": "A0MDYCDME",
            "event": said,
            "type": "event_callback",
            "event_id": f"Ev{new_id().hex[:10].upper()}{new_id().hex[-6:]}",
            "event_time": 1515449522,
            "authed_users": ["U0LAN0Z89"],
            "authorizations": [{"team_id": "T061EG9R6", "user_id": "U0LAN0Z89", "is_bot": True}],
        }
        return self.signed(json.dumps(payload).encode(), at=at)

    def command(self, text: str, channel: str = CHANNEL) -> Signed:
        """A slash command."""
        form = {
            "token": "gIkuvaNzQIHg97ATvDxqgjtO",
            "team_id": "T061EG9R6",
            "team_domain": "example",
            "channel_id": channel,
            "channel_name": "test",
            "user_id": "U2147483697",
            "user_name": "ada",
            "command": "/parley",
            "text": text,
            "response_url": "https://hooks.slack.com/commands/1234/5678",
            "trigger_id": f"13345224609.738474920.{new_id().hex}",
            "api_app_id": "A0MDYCDME",
        }
        return self.signed(urlencode(form).encode(), "application/x-www-form-urlencoded")


@dataclass(frozen=True)
class Discord:
    """An application there."""

    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    kind: str = "discord"

    @property
    def secrets(self) -> dict[str, str]:
        return {"public_key": self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()}

    def signed(self, payload: dict[str, Any], at: float | None = None) -> Signed:
        timestamp, body = str(int(time.time() if at is None else at)), json.dumps(payload).encode()
        signature = self.key.sign(timestamp.encode() + body).hex()
        headers = {"X-Signature-Timestamp": timestamp, "X-Signature-Ed25519": signature}
        return Signed(body, headers | {"Content-Type": "application/json"})

    def command(self, text: str | None, token: str, channel: str = "645027906669510667") -> Signed:
        """A slash command with a text."""
        options = [] if text is None else [{"type": 3, "name": "question", "value": text}]
        return self.signed(
            {
                "type": 2,
                "id": str(new_id().int % 10**18),
                "application_id": APPLICATION,
                "token": token,
                "version": 1,
                "guild_id": "290926798626357999",
                "channel_id": channel,
                "member": {"user": {"id": "53908232506183680", "username": "ada"}},
                "data": {"id": "771825006014889984", "name": "ask", "type": 1, "options": options},
            }
        )


@dataclass(frozen=True)
class Teams:
    """An outgoing webhook there."""

    security_token: str = base64.b64encode(bytes(range(32))).decode()
    kind: str = "teams"

    @property
    def secrets(self) -> dict[str, str]:
        return {"security_token": self.security_token}

    def message(
        self, text: str, conversation: str = "19:253b1f34@thread.skype;messageid=1485983194839", at: float | None = None
    ) -> Signed:
        sent = datetime.fromtimestamp(time.time() if at is None else at, UTC)
        payload = {
            "type": "message",
            "id": str(new_id().int % 10**13),
            "timestamp": sent.isoformat().replace("+00:00", "Z"),
            "serviceUrl": "https://smba.trafficmanager.net/emea/",
            "channelId": "msteams",
            "from": {"id": "29:1abc", "name": "Ada"},
            "conversation": {"isGroup": True, "id": conversation, "conversationType": "channel"},
            "recipient": None,
            "textFormat": "plain",
            "attachmentLayout": None,
            "membersAdded": [],
            "text": f"<at>Parley</at>&nbsp;{text}\n",
            "entities": [{"type": "clientInfo", "locale": "en-US", "country": "US", "platform": "Windows"}],
        }
        body = json.dumps(payload).encode()
        mac = hmac.new(base64.b64decode(self.security_token), body, hashlib.sha256)
        return Signed(
            body,
            {
                "Authorization": f"HMAC {base64.b64encode(mac.digest()).decode()}",
                "Content-Type": "application/json; charset=utf-8",
            },
        )
