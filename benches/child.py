"""A process that does one thing for a bench: an order on its standard input, JSON lines on its standard output."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from pydantic import BaseModel

_LONGEST_LINE = 1 << 24


class LoadFailed(Exception):
    """A process of the bench ended without its figures, or a process that is measured is gone."""


@asynccontextmanager
async def child(
    module: str, order: BaseModel, environment: Mapping[str, str] | None = None, *, stderr: int | None = None
) -> AsyncIterator[Process]:
    """``module`` runs with ``order``; it is killed where the block ends before it does."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", module),
        stdin=PIPE,
        stdout=PIPE,
        stderr=stderr,
        env=environment,
        limit=_LONGEST_LINE,
    )
    try:
        assert process.stdin is not None
        with contextlib.suppress(ConnectionError):  # it ended at once, and says why itself
            process.stdin.write(order.model_dump_json().encode() + b"\n")
            await process.stdin.drain()
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def line_of(process: Process) -> bytes:
    """The next line that it says. Raises LoadFailed where it ended."""
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise LoadFailed(f"a process of the bench ended with exit code {await process.wait()}, see its error above")
    return line
