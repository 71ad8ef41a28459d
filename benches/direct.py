"""The same backend, called in process with nothing between: what everything else is compared with."""

from __future__ import annotations

import time
import uuid

import orjson

from benches.answer import COMPLETED, Answer, Broken
from benches.load import PROMPT, Load
from event_schemas.chat import ChatMessage
from event_schemas.generation import Parameters
from workers.inference.port import Backend, BackendError, Delta, InferenceRequest
from workers.inference.scripted import ScriptedBackend


async def backend_for(load: Load) -> Backend:
    """A scripted backend with room for all clients of ``load``, started."""
    backend = ScriptedBackend(slots=load.clients)
    await backend.start(lambda what, share: None)
    return backend


class Direct:
    """One `Source` that calls ``backend``."""

    def __init__(self, backend: Backend, load: Load) -> None:
        self._backend = backend
        self._metadata = {"script": load.script}

    async def answer(self, into: Answer) -> None:
        request = InferenceRequest(
            generation_id=uuid.uuid4(),
            attempt=1,
            model="scripted",
            messages=(ChatMessage(role="user", content=PROMPT),),
            parameters=Parameters(),
            metadata=self._metadata,
        )
        pieces: list[str] = []
        try:
            async for item in self._backend.generate(request):
                now = time.monotonic()
                if isinstance(item, Delta):
                    pieces.append(item.text)
                    into.times.append(now)
                    into.seqs.append(len(pieces))
                else:
                    into.ended, into.outcome = now, COMPLETED
        except BackendError as error:
            raise Broken(f"the backend broke off: {error.reason}") from None
        into.data.append(orjson.dumps({"text": "".join(pieces)}))

    async def close(self) -> None:
        return None
