"""One service in this process: what `parley up` starts, and what a cluster runs one by one."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Annotated

import typer

from backplane.settings import Settings

app = typer.Typer()

PANEL = "Services"

logger = logging.getLogger(__name__)


def _run(name: str, serve: object) -> None:
    from cli import process
    from cli.programs import settings_of_one_service

    raise typer.Exit(process.run(name, serve, settings_of_one_service))  # type: ignore[arg-type]


@app.command(rich_help_panel=PANEL)
def gateway() -> None:
    """Serve all APIs on one port."""
    import gateway.main

    _run("gateway", gateway.main.serve)


@app.command("command-api", rich_help_panel=PANEL)
def command_api() -> None:
    """Serve the command API alone."""
    import command_api.main

    _run("command_api", command_api.main.serve)


@app.command("query-api", rich_help_panel=PANEL)
def query_api() -> None:
    """Serve the query API alone."""
    import query_api.main

    _run("query_api", query_api.main.serve)


@app.command(rich_help_panel=PANEL)
def worker(
    pool: Annotated[str, typer.Option(help="The pool whose prompts it runs, as in the settings.")] = "local",
) -> None:
    """Run the prompts of one pool."""
    import workers.main
    from backplane.telemetry import status
    from cli import configuration, local_models

    async def serve(settings: Settings, stop: asyncio.Event) -> None:
        from cli.failures import ConfigurationError
        from workers.inference.gpus import visible

        if pool not in settings.pools:
            raise ConfigurationError(f"there is no pool {pool!r}; the settings have {', '.join(settings.pools)}")
        os.environ.update(visible(settings.pools[pool].gpus))  # read once, when the engine loads
        settings = await local_models.resolved_for(pool, settings, configuration.load_llm(), status.progress)
        for notice in local_models.new_notices(settings):
            logger.info(notice, extra={"action": "license_notice"})
        await workers.main.serve(settings, stop, pool=pool)

    _run(f"worker-{pool}", serve)


@app.command(rich_help_panel=PANEL)
def projections() -> None:
    """Write the read models."""
    import projections.main

    _run("projections", projections.main.serve)


@app.command(rich_help_panel=PANEL)
def ingest() -> None:
    """Make documents findable, and search them for the other services."""
    import workers.ingest

    _run("ingest", workers.ingest.serve)
