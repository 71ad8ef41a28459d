"""What has to be done whatever becomes of Postgres and the bus meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from backplane.ports.bus import BusError
from backplane.ports.database import DatabaseUnavailable

logger = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 2.0

T = TypeVar("T")


async def insist(act: Callable[[], Awaitable[T]]) -> T:
    """Try until Postgres and the bus let it through."""
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return await act()
        except (DatabaseUnavailable, BusError) as error:
            logger.warning("trying again", extra={"action": "trying_again", "cause": str(error)})
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
