"""A real Pulsar broker for the tests, that they may kill and start again."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from backplane.adapters.embedded.pulsar import EmbeddedPulsar
from backplane.adapters.pulsar_bus import PulsarAddress
from tests.conftest import Server
from tests.ports import lasting_ports

TENANT, NAMESPACE = "parley", "main"


class PulsarBroker:
    def __init__(self, folder: Path, admin_token: str | None = None, **settings: str) -> None:
        self.folder = folder
        self._headers = {} if admin_token is None else {"Authorization": f"Bearer {admin_token}"}
        port, admin_port, bookie_port = lasting_ports(3)
        self.embedded = EmbeddedPulsar(folder, port, admin_port, bookie_port, **settings)
        self.server = Server(self.embedded.command(), self._answers, signal.SIGTERM)

    @property
    def url(self) -> str:
        return self.embedded.url

    @property
    def admin_url(self) -> str:
        return self.embedded.admin_url

    @property
    def environment(self) -> dict[str, str]:
        """The settings of a Parley that uses this broker."""
        return {"PARLEY_BUS__PULSAR__URL": self.url, "PARLEY_BUS__PULSAR__ADMIN_URL": self.admin_url}

    def address(self, tenant: str = TENANT, namespace: str = NAMESPACE, token: str | None = None) -> PulsarAddress:
        return PulsarAddress(self.url, self.admin_url, tenant, namespace, token)

    def start(self) -> None:
        """Return once the broker takes messages."""
        self.server.start()

    def kill(self) -> None:
        """kill -9."""
        self.server.kill()

    def stop(self) -> None:
        # Its orderly end takes seconds and keeps nothing that a kill loses.
        if self.server.runs:
            self.server.kill()

    def admin(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Ask the admin API; what it refuses is an error."""
        answer = httpx.request(
            method,
            f"{self.admin_url}/admin/v2/{path}",
            json=body,
            headers=self._headers,
            timeout=30.0,
            trust_env=False,
        )
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer

    def _answers(self) -> None:
        # The last thing a standalone broker makes before it is ready.
        assert self.admin("GET", "namespaces/public").json()


@contextlib.contextmanager
def pulsar_broker(folder: Path, admin_token: str | None = None, **settings: str) -> Iterator[PulsarBroker]:
    """A running broker."""
    broker = PulsarBroker(folder, admin_token, **settings)
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()


@pytest.fixture(scope="session")
def shared_broker(short_folder: Path) -> Iterator[PulsarBroker]:
    """One broker for the tests of a process that don't kill it."""
    with pulsar_broker(short_folder / "pulsar") as broker:
        yield broker
