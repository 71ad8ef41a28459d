"""Answers are held against their schemas in a process of their own, which is killed where it takes too long."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import anyio
from anyio import to_process

from event_schemas.chat import Misfit
from workers.answer_check import Span, check, get_ready

DEADLINE_S = 20.0
"""A machine that has much to do takes seconds to check what takes a millisecond."""


async def checked(text: str, schema: dict[str, Any], *, loose: bool, deadline_s: float | None = None) -> Span | Misfit:
    """As ``answer_check.check``. May be cancelled. Raises BrokenWorkerProcess where the process was killed."""
    deadline_s = DEADLINE_S if deadline_s is None else deadline_s
    # Who is cancelled while a process starts would leave it behind.
    await asyncio.shield(asyncio.ensure_future(to_process.run_sync(get_ready)))
    try:
        with anyio.fail_after(deadline_s):
            found = await to_process.run_sync(partial(check, text, schema, loose=loose), cancellable=True)
    except TimeoutError:
        return Misfit(path="", keyword="deadline", message=f"it could not be checked within {deadline_s:g} s")
    if len(found) == 2:
        return found
    path, keyword, message = found
    return Misfit(path=path, keyword=keyword, message=message)
