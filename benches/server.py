"""A server of a bench's own, for as long as it is measured."""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from backplane.settings import PulsarSettings, Settings
from backplane.wiring.embedded import EmbeddedServer, embedded_postgres, embedded_valkey, standalone_pulsar
from cli.programs import server_program
from cli.supervisor import Supervisor


class Deaths:
    """Hears of a child that is started again."""

    def __init__(self, deaths: list[str]) -> None:
        self._deaths = deaths

    def line(self, text: str) -> None:
        self._deaths.append(text)

    def progress(self, source: str, what: str, share: float) -> None:
        pass

    def done(self, source: str) -> None:
        pass


@asynccontextmanager
async def running_server(server: EmbeddedServer, logs: Path, deaths: list[str]) -> AsyncIterator[int]:
    """Its process id, once it works. ``deaths`` gets a line where it died meanwhile.

    Raises ChildFailed.
    """
    supervisor = Supervisor(logs, Deaths(deaths))
    try:
        await supervisor.start(server_program(server))
        pid = supervisor.children[0].pid
        assert pid is not None
        yield pid
    finally:
        await supervisor.stop()


@asynccontextmanager
async def running_alone(settings: Settings, deaths: list[str]) -> AsyncIterator[int]:
    """The embedded Postgres, whose process id it gives, and beside it Valkey, without which projections are not ready.

    ``deaths`` as in ``running_server``. Raises ChildFailed.
    """
    logs = settings.data_dir / "logs"
    postgres, valkey = embedded_postgres(settings), embedded_valkey(settings)
    assert postgres is not None
    assert valkey is not None
    async with running_server(postgres, logs, deaths) as pid, running_server(valkey, logs, deaths):
        yield pid


class Broker:
    """A Pulsar broker that keeps its data in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._port, self._admin_port, bookie_port = free_ports(3)
        self.server = standalone_pulsar(folder, self._port, self._admin_port, bookie_port)

    def namespace(self, name: str) -> PulsarSettings:
        """The settings of a Parley that has this namespace of it to itself."""
        return PulsarSettings(
            url=f"pulsar://127.0.0.1:{self._port}", admin_url=f"http://127.0.0.1:{self._admin_port}", namespace=name
        )


def free_ports(count: int) -> set[int]:
    """Below those that the kernel gives to outgoing connections, one of which could else have it first."""
    found: set[int] = set()
    while len(found) < count:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.add(port)
    return found
