"""llama.cpp in a process of its own, as a worker has it, and nothing around it: `python -m benches.engine_alone`."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

from benches.singing import MESSAGES, TOKENS, SingingOrder, Sung, sing
from event_schemas.chat import ChatMessage
from event_schemas.generation import Parameters
from workers.inference.llamacpp import LlamaCppBackend
from workers.inference.port import Delta, InferenceRequest


async def measure(order: SingingOrder) -> Sung:
    """Deltas a second of ``order.streams`` at a time."""
    backend = LlamaCppBackend(Path(order.model_file), slots=order.streams)
    await backend.start(lambda what, share: None)
    messages = tuple(ChatMessage.model_validate({"role": role, "content": text}) for role, text in MESSAGES)

    async def answer() -> AsyncIterator[int]:
        request = InferenceRequest(
            generation_id=uuid.uuid4(),
            attempt=1,
            model="local",
            messages=messages,
            parameters=Parameters(max_tokens=TOKENS, temperature=0),
        )
        async for item in backend.generate(request):
            if isinstance(item, Delta):
                yield 1

    try:
        return await sing(order.streams, order.warm_up_s, order.seconds, answer)
    finally:
        await backend.close()


if __name__ == "__main__":
    print(asyncio.run(measure(SingingOrder.model_validate_json(sys.stdin.readline()))).model_dump_json(), flush=True)
