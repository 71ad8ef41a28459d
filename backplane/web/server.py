"""Running an application under uvicorn inside a service's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Generator

import uvicorn
from fastapi import FastAPI
from sse_starlette.sse import AppStatus

from backplane.settings import Settings
from backplane.telemetry import status
from backplane.telemetry.readiness import Readiness
from backplane.web.application import health_router
from backplane.web.gathering import GatheringProtocol

_DRAIN_S = 5


class PortTaken(OSError):
    """The address cannot be listened on; the message says what to do."""


async def serve_application(app: FastAPI, settings: Settings, stop: asyncio.Event) -> None:
    """Listen on ``settings.host:settings.port`` until ``stop`` is set; open streams are then ended within 5 s.

    Whoever started this process is told when it listens. Raises PortTaken.
    """
    await _serve(app, settings.host, settings.port, stop, status.ready, frame_bytes=settings.limits.body_bytes)


async def serve_health(readiness: Readiness, settings: Settings, stop: asyncio.Event) -> None:
    """Answer probes on ``settings.host:settings.health_port`` until ``stop`` is set. Raises PortTaken."""
    app = FastAPI(openapi_url=None)
    app.include_router(health_router(readiness))
    await _serve(app, settings.host, settings.health_port, stop, lambda address: None, setting="PARLEY_HEALTH_PORT")


async def _serve(
    app: FastAPI,
    host: str,
    port: int,
    stop: asyncio.Event,
    listens: Callable[[str], None],
    frame_bytes: int = 1024,
    setting: str = "PARLEY_PORT",
) -> None:
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=GatheringProtocol,
        ws="websockets-sansio",
        ws_max_size=frame_bytes,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=_DRAIN_S,
        timeout_keep_alive=30,
        # Of requests that come without waiting for answers, uvicorn begins the next in the context of the one before.
        reset_contextvars=True,
    )
    listening = _listen(host, port, setting)
    AppStatus.should_exit = False
    server = _Server(config, listens)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        AppStatus.should_exit = True  # ends the event streams, which would else outlast the drain
        stopping.cancel()
        await serving
    finally:
        listening.close()


def _listen(host: str, port: int, setting: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise PortTaken(
            f"cannot listen on {host}:{port} ({error.strerror}); set {setting} to a free port, or stop what uses it"
        ) from None
    listening.setblocking(False)
    return listening


class _Server(uvicorn.Server):
    """Signals belong to the service, not to uvicorn; ``listens`` is called once it accepts connections."""

    def __init__(self, config: uvicorn.Config, listens: Callable[[str], None]) -> None:
        super().__init__(config)
        self._listens = listens

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        assert sockets is not None
        host, port = sockets[0].getsockname()[:2]
        self._listens(f"http://{host}:{port}")
