"""Calling a chat tool's API."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

import httpx
import orjson

from backplane.security.public_address import NotPublic

TIMEOUT_S = 5.0
_LONGEST_RETRY_AFTER_S = 3600.0


class Later(Exception):
    """It may go well another time. The message is for people, without any secret."""

    def __init__(self, why: str, retry_after_s: float = 0.0) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s
        """How long the tool asks to be left alone."""


class Unwanted(Exception):
    """It will never go well. The message is for people, without any secret."""


class Answer(NamedTuple):
    status: int
    body: Mapping[str, Any]
    """Empty where none came, or no JSON object."""


class Calls:
    """Closes ``transport`` with itself."""

    def __init__(self, transport: httpx.AsyncBaseTransport, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._http = httpx.AsyncClient(
            transport=transport,
            trust_env=False,
            follow_redirects=False,
            timeout=timeout_s,
            headers={"user-agent": "Parley/1", "accept": "application/json"},
        )

    async def call(
        self, tool: str, method: str, url: str, body: Mapping[str, Any] | None, token: str | None = None
    ) -> Answer:
        """``tool`` is its name for people. Raises Later, also where it asks to be left alone or is out of order."""
        headers = {} if token is None else {"authorization": token}
        if body is not None:
            headers["content-type"] = "application/json; charset=utf-8"
        content = None if body is None else orjson.dumps(body)
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._http.request(method, url, content=content, headers=headers)
        except (TimeoutError, httpx.TimeoutException):
            raise Later(f"{tool} did not answer within {self._timeout_s:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, NotPublic) as error:
            # What these say may hold the URL, in which Discord's tokens stand.
            raise Later(f"{tool} could not be reached ({type(error).__name__})") from None
        if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise Later(f"{tool} has had enough for now", _retry_after_s(answer))
        if answer.is_server_error:
            raise Later(f"{tool} answered {answer.status_code}")
        return Answer(answer.status_code, _object(answer.content))

    async def aclose(self) -> None:
        await self._http.aclose()


def _object(content: bytes) -> Mapping[str, Any]:
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _retry_after_s(answer: httpx.Response) -> float:
    try:
        asked = float(answer.headers.get("retry-after", "1"))
    except ValueError:
        return 1.0
    return min(max(asked, 0.0), _LONGEST_RETRY_AFTER_S)
