"""One delivery to a webhook, and what became of it. Reads nothing of an answer but its head."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

import httpx

from backplane.security.public_address import NotPublic
from command_api.webhook_message import Message, headers
from command_api.webhooks import Target

TIMEOUT_S = 15.0
_CONNECT_S = 5.0
_LONGEST_RETRY_AFTER_S = 24 * 3600.0


class Answer(NamedTuple):
    status: int | None
    """None where none came."""
    failure: str | None
    """For people, without any secret; None: it was delivered."""
    retry_after_s: float = 0.0
    """How long it asks to be left alone."""

    @property
    def wants_none(self) -> bool:
        return self.status == httpx.codes.GONE


class WebhookClient:
    """Closes ``transport`` with itself."""

    def __init__(
        self, transport: httpx.AsyncBaseTransport, timeout_s: float = TIMEOUT_S, clock: Callable[[], float] = time.time
    ) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._http = httpx.AsyncClient(
            transport=transport,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(timeout_s, connect=_CONNECT_S),
            headers={"user-agent": "Parley-Webhooks/1", "accept": "*/*"},
        )

    async def post(self, target: Target, sent: Message) -> Answer:
        """Within the timeout, whatever the receiver does. Raises nothing of the network's."""
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._http.stream(
                    "POST", target.url, content=sent.body, headers=headers(sent, target.secret, int(self._clock()))
                ) as response,
            ):
                failure = None if response.is_success else f"it answered {response.status_code}"
                return Answer(response.status_code, failure, _retry_after_s(response))
        except (TimeoutError, httpx.TimeoutException):
            return Answer(None, f"it did not answer within {self._timeout_s:g} s")
        except NotPublic as error:
            return Answer(None, str(error))
        except httpx.InvalidURL as error:
            return Answer(None, f"its URL cannot be used: {error}")
        except httpx.ConnectError as error:
            return Answer(None, f"no connection could be made: {error}")
        except httpx.HTTPError as error:
            # What these say may hold what the receiver sent.
            return Answer(None, f"the connection broke, or what came was not HTTP ({type(error).__name__})")

    async def aclose(self) -> None:
        await self._http.aclose()


def _retry_after_s(response: httpx.Response) -> float:
    asked = response.headers.get("retry-after", "")
    return min(float(asked), _LONGEST_RETRY_AFTER_S) if asked.isdecimal() and asked.isascii() else 0.0
