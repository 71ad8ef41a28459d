"""All APIs in one process, on one port."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from fastapi import APIRouter, FastAPI
from fastapi.responses import RedirectResponse

import command_api.main
import query_api.main
from backplane.security.authenticator import Authenticator
from backplane.security.public_transport import PublicTransport
from backplane.settings import Settings
from backplane.telemetry.readiness import Readiness
from backplane.web.application import make_application
from backplane.web.server import serve_application
from backplane.wiring.services import command_side, query_side
from gateway import doors
from gateway.chat_tools.calls import Calls
from gateway.chat_tools.replying import Replying
from gateway.ports import GatewayPorts

front = APIRouter(include_in_schema=False)


@front.get("/")
async def index() -> RedirectResponse:
    """There is no web app yet; the API pages are the best there is to see."""
    return RedirectResponse("/docs")


def application(settings: Settings, authenticator: Authenticator, readiness: Readiness) -> FastAPI:
    """Every route, without what stands behind them: ``serve`` adds that."""
    open_doors = doors.of(settings.doors)
    return make_application(
        "Parley",
        settings,
        authenticator,
        readiness,
        [front, *command_api.main.ROUTERS, *query_api.main.ROUTERS, *(one.router for one in open_doors)],
        [shape for one in open_doors for shape in one.shapes],
    )


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve the command API, the query API and the other doors until ``stop`` is set."""
    async with (
        command_side(settings) as commands,
        query_side(settings) as queries,
        command_api.main.running(commands, settings) as command_ports,
    ):
        app = application(settings, commands.authenticator, commands.readiness)
        app.state.gateway = GatewayPorts(settings)
        app.state.command = command_ports
        app.state.query = query_api.main.ports(queries, settings)
        async with replying(app, settings):
            await serve_application(app, settings, stop)


@asynccontextmanager
async def replying(app: FastAPI, settings: Settings) -> AsyncIterator[None]:
    """With answers on their way to chat tools, where that door is open."""
    if not settings.doors.chat_tools:
        yield
        return
    stop = asyncio.Event()
    calls = Calls(PublicTransport(allow_private=settings.webhooks.allow_private))
    async with aclosing(calls), asyncio.TaskGroup() as tasks:
        tasks.create_task(Replying(app.state.command, app.state.query, calls, settings.doors).run(stop))
        try:
            yield
        finally:
            stop.set()
