"""How an operator's command runs: settings read, servers at hand, one event loop."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from backplane.settings import Settings

T = TypeVar("T")


def run(work: Callable[[Settings], Awaitable[T]], *, migrated: bool = True) -> T:
    """Run ``work`` while Postgres and Valkey answer, and return what it returns.

    Where none runs, embedded ones are started for as long as it takes. ``migrated`` demands this release's schema.
    Raises what cli.failures lists.
    """
    from cli import configuration
    from cli.attachment import servers

    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    settings = configuration.load()

    async def attached() -> T:
        async with servers(settings):
            if migrated:
                await _current_schema(settings)
            return await work(settings)

    return asyncio.run(attached())


async def _current_schema(settings: Settings) -> None:
    from backplane.wiring.embedded import schema_revisions
    from cli.failures import CommandError

    has, wanted = await schema_revisions(settings)
    if has != wanted:
        raise CommandError(
            f"the database's schema is {has or 'not made yet'}, this release needs {wanted}: run `parley migrate`"
        )


def print_json(value: Any) -> None:
    """Indented on a terminal, one line elsewhere."""
    print(json.dumps(value, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None, default=str))


def say(text: str) -> None:
    """One line beside the output: on standard error."""
    print(text, file=sys.stderr, flush=True)
