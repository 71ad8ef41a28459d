"""The query API as a service of its own, and its part of a service that mounts it."""

from __future__ import annotations

import asyncio

from backplane.settings import Settings
from backplane.web.application import make_application
from backplane.web.server import serve_application
from backplane.wiring.services import QuerySide, query_side
from event_schemas.topics import all_topics
from query_api import batch_routes, collection_routes, persona_routes, routes, usage_routes
from query_api.service import QueryPorts

ROUTERS = (
    routes.router,
    usage_routes.router,
    persona_routes.router,
    collection_routes.router,
    batch_routes.router,
)
"""Everything that the query API answers."""


def ports(side: QuerySide, settings: Settings) -> QueryPorts:
    """What the router needs at ``app.state.query``."""
    return QueryPorts(
        database=side.database,
        streams=side.streams,
        room=side.room,
        signals=side.signals,
        data_keys=side.data_keys,
        log=side.bus,
        publisher=side.bus,
        topics=all_topics(list(settings.pools)),
        read_your_writes_s=settings.read_your_writes_s,
        session_idle_s=settings.security.session_idle_minutes * 60,
    )


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """Serve the query API alone until ``stop`` is set."""
    async with query_side(settings) as side:
        app = make_application("Parley query API", settings, side.authenticator, side.readiness, ROUTERS)
        app.state.query = ports(side, settings)
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(side.authenticator.forget_revoked(side.signals))
            try:
                await serve_application(app, settings, stop)
            finally:
                following.cancel()
