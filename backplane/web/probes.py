"""Probes and metrics of services that have no other HTTP."""

from __future__ import annotations

import asyncio

from backplane.settings import Settings
from backplane.telemetry.readiness import Readiness


async def serve_probes(readiness: Readiness, settings: Settings, stop: asyncio.Event) -> None:
    """Answer `/healthz`, `/readyz` and `/metrics` on ``settings.host:settings.health_port`` until ``stop`` is set,
    where the settings name a port.

    Raises PortTaken.
    """
    if settings.health_port:
        # The web framework takes a second to import, and only this needs it.
        from backplane.web.server import serve_health

        await serve_health(readiness, settings, stop)
