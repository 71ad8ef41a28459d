"""Pulsar's admin API, as far as no broker is needed."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

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


@pytest.mark.parametrize(
    "known",
    [
        # As a broker says it that is being stopped, and has unloaded all of them.
        {"persistent://parley/main/commands-provider": {}},
        {"persistent://parley/main/commands-provider-partition-1": {"subscriptions": {}}},
        {},
    ],
)
async def test_a_broker_that_does_not_know_all_partitions_is_unavailable(known: dict[str, object]) -> None:
    with _saying({"metadata": {"partitions": 2}, "partitions": known}) as port:
        admin = Admin(PulsarAddress("pulsar://127.0.0.1:1", f"http://127.0.0.1:{port}", "parley", "main", None), 5)
        for ask in (lambda: admin.backlog("commands-provider", "workers"), lambda: admin.heads("commands-provider")):
            with pytest.raises(BusUnavailable, match="does not know all partitions of 'commands-provider'"):
                await ask()
        await admin.close()


async def test_partitions_stand_in_their_order() -> None:
    counts = {
        index: {"subscriptions": {"workers": {"msgBacklog": index}}} for index in (10, 2, *range(2), *range(3, 10))
    }
    known = {f"persistent://parley/main/some-topic-partition-{index}": count for index, count in counts.items()}
    with _saying({"metadata": {"partitions": 11}, "partitions": known}) as port:
        admin = Admin(PulsarAddress("pulsar://127.0.0.1:1", f"http://127.0.0.1:{port}", "parley", "main", None), 5)
        assert await admin.backlog("some-topic", "workers") == list(range(11))
        await admin.close()


@contextmanager
def _saying(answer: object) -> Iterator[int]:
    """A port where every request is answered so."""
    body = json.dumps(answer).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield server.server_port
        server.shutdown()
        serving.join()
