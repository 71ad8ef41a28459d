"""Pulsar's admin API, as far as no broker is needed."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator

import pytest
import uvloop

from backplane.adapters.pulsar_bus.address import PulsarAddress
from backplane.adapters.pulsar_bus.admin import Admin
from backplane.ports.bus import BusUnavailable

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on, for no time: a close is a reset, as when a process is killed."""


@pytest.fixture
def resetting_port() -> Iterator[int]:
    """Where every connection is reset as soon as it is made."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(100)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                connection.close()

        serving = threading.Thread(target=serve)
        serving.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        serving.join()


def test_a_broker_that_dies_at_any_moment_of_a_connect_is_unavailable(resetting_port: int) -> None:
    async def ask() -> None:
        admin = Admin(
            PulsarAddress("pulsar://127.0.0.1:1", f"http://127.0.0.1:{resetting_port}", "parley", "main", None), 5
        )
        for _ in range(200):
            with pytest.raises(BusUnavailable, match="does not answer"):
                await admin.backlog("events", "projections")
        await admin.close()

    # On the services' own event loop, whose connections forget their socket at once.
    uvloop.run(ask())
