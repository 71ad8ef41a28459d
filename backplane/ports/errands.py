"""Asking whoever has what it takes, from any process, by signal, and waiting for the answer.

A signal may be lost, so it is sent again until somebody answers; who has it already drops what comes again.
"""

from __future__ import annotations

import asyncio

from backplane.ports.token_stream import Signals

_ASK_AGAIN_S = 1.0


async def answered(signals: Signals, asked_on: str, answers_on: str, message: str, *, within_s: float) -> str:
    """The answer to ``message``, each on its channel. Raises TimeoutError."""
    async with asyncio.timeout(within_s), signals.listen(answers_on) as answers:
        waiting = asyncio.ensure_future(anext(answers))
        try:
            while True:
                await signals.send(asked_on, message)
                done, _ = await asyncio.wait({waiting}, timeout=_ASK_AGAIN_S)
                if done:
                    return waiting.result()
        finally:
            waiting.cancel()
