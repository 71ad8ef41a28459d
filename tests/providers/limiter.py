"""The limits of one key, in a sliding window."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass
class Admitted:
    """A request within the window."""

    at: float
    tokens: int
    """Input tokens plus ``max_tokens`` at first; what was really used once it is over."""


@dataclass(frozen=True)
class OverLimit:
    """Why a request is refused."""

    kind: Literal["requests", "tokens", "concurrent"]
    limit: int
    used: int
    asked: int
    retry_after_s: float
    """When there would be room if nobody else asked. For ``concurrent`` nobody knows: it says one second."""


@dataclass(frozen=True)
class Room:
    """How much of a limit is left."""

    limit: int
    remaining: int
    reset_s: float
    """Seconds until the limit is whole again, as both providers define their reset headers."""


class Limiter:
    """Counts exactly: of every moment's last ``window_s`` seconds, no more than the limits was admitted.

    A refused request counts nothing. (OpenAI's guide "Rate limits" says that theirs do count.)
    """

    def __init__(
        self,
        requests: int | None,
        tokens: int | None,
        concurrent: int | None,
        window_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._requests = requests
        self._tokens = tokens
        self._concurrent = concurrent
        self._window_s = window_s
        self._clock = clock
        self._admitted: deque[Admitted] = deque()

    def admit(self, tokens: int, running: int) -> Admitted | OverLimit:
        """Counts a request of ``tokens`` while ``running`` others of its key are being answered."""
        now = self._clock()
        self._forget(now)
        if self._concurrent is not None and running >= self._concurrent:
            return OverLimit("concurrent", self._concurrent, running, 1, 1.0)
        if self._requests is not None and len(self._admitted) >= self._requests:
            wait = self._admitted[len(self._admitted) - self._requests].at + self._window_s - now
            return OverLimit("requests", self._requests, len(self._admitted), 1, max(wait, 0.0))
        used = sum(request.tokens for request in self._admitted)
        if self._tokens is not None and used + tokens > self._tokens:
            return OverLimit("tokens", self._tokens, used, tokens, self._until_free(used + tokens - self._tokens, now))
        request = Admitted(now, tokens)
        self._admitted.append(request)
        return request

    def requests(self) -> Room | None:
        """What is left of the requests. None: there is no such limit."""
        return self._room(self._requests, lambda: len(self._admitted))

    def tokens(self) -> Room | None:
        """What is left of the tokens. None: there is no such limit."""
        return self._room(self._tokens, lambda: sum(request.tokens for request in self._admitted))

    def _room(self, limit: int | None, used: Callable[[], int]) -> Room | None:
        if limit is None:
            return None
        now = self._clock()
        self._forget(now)
        reset = self._admitted[-1].at + self._window_s - now if self._admitted else 0.0
        return Room(limit, max(0, limit - used()), reset)

    def _until_free(self, tokens: int, now: float) -> float:
        for request in self._admitted:
            tokens -= request.tokens
            if tokens <= 0:
                return max(request.at + self._window_s - now, 0.0)
        return self._window_s

    def _forget(self, now: float) -> None:
        while self._admitted and self._admitted[0].at <= now - self._window_s:
            self._admitted.popleft()
