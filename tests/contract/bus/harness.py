"""How the suite opens a bus of any adapter, here and in child processes."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backplane.adapters.postgres_bus import PostgresBus
from backplane.adapters.pulsar_bus import PulsarAddress, PulsarBus
from backplane.ports.bus import Bus, Consumer, Message

ROOT = Path(__file__).parents[3]
LEASE_S = 0.7
NEVER_S = 60.0
"""A lease that no test outlives: what is freed sooner was freed by something else."""
DEADLINE_S = 60.0
QUIET_S = 0.3
"""How long nothing must happen for a test to believe that nothing will."""


@dataclass(frozen=True)
class BusSpec:
    """Enough to open the same bus in another process."""

    adapter: str
    url: str
    lease_s: float = LEASE_S
    namespace: str = "contract/bus"

    def open(self) -> Bus:
        match self.adapter:
            case "postgres":
                return PostgresBus(self.url, lease_s=self.lease_s)
            case "pulsar":
                url, admin_url = self.url.split(" ")
                tenant, namespace = self.namespace.split("/")
                return PulsarBus(PulsarAddress(url, admin_url, tenant, namespace), watch_s=0.2)
            case _:
                raise ValueError(f"no adapter {self.adapter!r}")


class Child:
    """A process that uses the bus (see child.py) and tells of each message on a line of its output."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, spec: BusSpec, **task: Any) -> Child:
        return cls(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.contract.bus.child", json.dumps(asdict(spec)), json.dumps(task)),
                cwd=ROOT,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
            )
        )

    async def lines(self, count: int) -> list[str]:
        return [await self.line() for _ in range(count)]

    async def line(self) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            line = await self._process.stdout.readline()
        assert line, "the child ended"
        return line.decode().strip()

    async def kill(self) -> list[str]:
        """kill -9; returns what it said and was not read yet."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
        rest, _ = await self._process.communicate()
        return rest.decode().split()


async def collect(consumer: Consumer, count: int, *, limit: int = 10, ack: bool = True) -> list[Message]:
    """Receive until there are ``count`` messages."""
    messages: list[Message] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(messages) < count:
            batch = await consumer.receive(limit)
            assert 1 <= len(batch) <= limit
            messages += batch
            if ack:
                await consumer.ack(*batch)
    return messages


async def nothing_comes(consumer: Consumer, seconds: float = QUIET_S) -> None:
    """Nothing is received for ``seconds``."""
    pending = asyncio.create_task(consumer.receive())
    done, _ = await asyncio.wait([pending], timeout=seconds)
    pending.cancel()
    await asyncio.wait([pending])
    assert not done, f"received {[m.payload[:40] for m in pending.result()]}"


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return once the condition holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not await condition():
        assert time.monotonic() < deadline, "it did not come true"
        await asyncio.sleep(0.01)


async def backlog_becomes(bus: Bus, topic: str, wanted: int | list[int]) -> None:
    """Return once the subscription ``s`` has this backlog, in all or by partition; it may be a moment old."""
    found: int | list[int] = -1

    async def is_wanted() -> bool:
        nonlocal found
        counts = await bus.backlog(topic, "s")
        found = sum(counts) if isinstance(wanted, int) else counts
        return found == wanted

    try:
        await eventually(is_wanted)
    except AssertionError:
        raise AssertionError(f"the backlog is {found}, not {wanted}") from None


def payloads(messages: Sequence[Message]) -> list[bytes]:
    return [message.payload for message in messages]
