"""Backends whose engine computes in threads of this process, and takes and gives text alone."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from event_schemas.generation import FinishReason
from workers.inference.engine_slots import EngineSlots
from workers.inference.engine_stream import Receive
from workers.inference.port import (
    BackendError,
    BackendUnavailable,
    Counted,
    Delta,
    Finished,
    InferenceRequest,
    Item,
    Progress,
    RequestRefused,
)
from workers.inference.text_request import check_text_request


@dataclass(slots=True)
class Counts:
    """What an engine's thread has counted, and how its answer ended; None: it has not."""

    input_tokens: int = 0
    output_tokens: int = 0
    finish_reason: FinishReason | None = None

    def finished(self, failure: Exception | None) -> Finished:
        """The end of the answer, once the thread has ended. Raises BackendError: ``failure``, or that it broke off."""
        if isinstance(failure, BackendError):
            raise failure
        if failure is not None:
            # Its own words may quote the prompt.
            raise BackendUnavailable("engine_failed", f"the engine broke off: {type(failure).__name__}") from None
        if self.finish_reason is None:
            raise BackendUnavailable("engine_lost", "the engine ended the answer without saying how")
        return Finished(self.finish_reason, self.input_tokens, self.output_tokens)


class TextModel(Protocol):
    """A loaded model. All of it blocks, and it is called in several threads at a time."""

    @property
    def chat_template(self) -> bool:
        """Whether it has one; else it gets a transcript."""

    @property
    def window(self) -> int:
        """Tokens of prompt and answer together."""

    def count(self, request: InferenceRequest) -> int:
        """Tokens of its prompt. Raises as ``complete``."""

    def complete(self, request: InferenceRequest, counts: Counts, receive: Receive) -> None:
        """Give ``receive`` the answer piece by piece and count in ``counts``, until the answer ends or it returns True.

        It has to be asked so often that a cancellation is answered within 250 ms. Raises RequestRefused,
        BackendUnavailable.
        """

    def close(self) -> None:
        """Let go of all memory. Nothing computes any more."""


class ThreadedBackend(ABC):
    """``slots`` generations at a time, each in a thread of its own; the others wait their turn."""

    def __init__(self, slots: int) -> None:
        self._slots = EngineSlots(slots)
        self._model: TextModel | None = None

    @abstractmethod
    def load(self, progress: Progress) -> TextModel:
        """Blocks. Raises BackendUnavailable: ``model_unusable``, ``engine_missing``, ``gpu_missing``,
        ``engine_failed``."""

    async def start(self, progress: Progress) -> None:
        """Load the model. Raises what ``load`` does."""
        if self._model is not None:
            raise RuntimeError("the backend is already started")
        self._model = await asyncio.to_thread(self.load, progress)
        self._slots.open()
        progress("the model is loaded", 1.0)

    async def generate(self, request: InferenceRequest) -> AsyncGenerator[Item]:
        self._slots.check_open()
        check_text_request(request)
        if request.parameters.logprobs:
            raise RequestRefused("unsupported", "the prompt asks for logprobs, which this engine does not tell")
        model, counts = self._model, Counts()
        assert model is not None
        stream = await self._slots.begin(lambda slot, receive: model.complete(request, counts, receive))
        try:
            at_start = not model.chat_template
            while (text := await stream.next_chunk()) is not None:
                if at_start:
                    # The blank after "Assistant:" belongs to the template.
                    text = text.lstrip()
                    at_start = not text
                if text:
                    yield Delta(text)
            if stream.failure is None:
                self._slots.check_open()
            yield counts.finished(stream.failure)
        finally:
            stream.stop()

    async def count(self, request: InferenceRequest) -> Counted:
        self._slots.check_open()
        check_text_request(request)
        model, counts = self._model, Counts()
        assert model is not None

        def count(slot: int, receive: Receive) -> None:
            counts.input_tokens = model.count(request)

        # In a slot, so that nobody closes the model meanwhile.
        stream = await self._slots.begin(count)
        await stream.next_chunk()
        if stream.failure is not None:
            counts.finished(stream.failure)
        return Counted(counts.input_tokens, model.window)

    async def close(self) -> None:
        await self._slots.close()
        model, self._model = self._model, None
        if model is not None:
            await asyncio.to_thread(model.close)
