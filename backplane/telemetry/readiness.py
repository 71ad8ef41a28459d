"""What keeps a process from doing its work, by name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from prometheus_client import Gauge

from backplane.telemetry import status

_blocked = Gauge("parley_blocked", "1 while this keeps the process from its work; what it is tells /readyz", ["what"])

Check = Callable[[], Awaitable[None]]


class Readiness:
    """Reasons why a process is not ready: those it set itself, and checks that are asked when somebody looks."""

    def __init__(self, **checks: Check) -> None:
        self._checks = checks
        self._blocks: dict[str, str] = {}

    def block(self, name: str, reason: str) -> None:
        """Not ready from now on, because of ``reason``. Whoever started the process is told, once a reason."""
        if self._blocks.get(name) != reason:
            self._blocks[name] = reason
            _blocked.labels(name).set(1)
            status.blocked(name, reason)

    def unblock(self, name: str) -> None:
        if self._blocks.pop(name, None) is not None:
            _blocked.labels(name).set(0)

    async def reasons(self, deadline_s: float = 2.0) -> dict[str, str]:
        """Name → reason; empty when ready. A check that takes over ``deadline_s`` seconds is a reason."""

        async def ask(check: Check) -> str | None:
            try:
                await asyncio.wait_for(check(), deadline_s)
            except TimeoutError:
                return f"no answer within {deadline_s:g} s"
            except Exception as error:
                return str(error) or type(error).__name__
            return None

        answers = await asyncio.gather(*(ask(check) for check in self._checks.values()))
        asked = {name: answer for name, answer in zip(self._checks, answers, strict=True) if answer is not None}
        return asked | self._blocks
