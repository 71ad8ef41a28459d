"""A read that comes right after its write: not there yet is told apart from not there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from query_api.service import QueryPorts

T = TypeVar("T")


class NoSuch(LookupError):
    """It is not there, or it is somebody else's; nobody is told which. ``args[0]`` names what kind of thing."""


class ProjectionsLag(Exception):
    """The read models are not as new as the question, so nobody knows."""


async def found(ports: QueryPorts, what: str, read: Callable[[], Awaitable[T | None]]) -> T:
    """What ``read`` finds, now or once the projections have passed all that was published before.

    Raises NoSuch, ProjectionsLag, BusError, DatabaseUnavailable.
    """
    if (row := await read()) is not None:
        return row
    is_fresh = await ports.freshness.caught_up(ports.read_your_writes_s)
    if (row := await read()) is not None:
        return row
    if not is_fresh:
        raise ProjectionsLag
    raise NoSuch(what)
