"""What was published, held against what is true."""

from __future__ import annotations

from collections import defaultdict
from uuid import UUID

from event_schemas.codec import decode
from event_schemas.generation import (
    AttemptLost,
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    GenerationRestarted,
    GenerationStarted,
    TokensEmitted,
)
from event_schemas.payload import AboutGeneration
from tests.integration.generation_machine.backend import Outcome, Run, SteppedBackend
from tests.integration.generation_machine.model import Generation, Model


class Said:
    """Takes events in the order in which they were published. One event may come many times, with the same id."""

    def __init__(self, model: Model, backend: SteppedBackend) -> None:
        self._model, self._backend = model, backend
        self._seen: dict[UUID, bytes] = {}
        self._tokens: defaultdict[Run, int] = defaultdict(int)
        self.endings: dict[UUID, UUID] = {}
        """Generations whose ending was published → its id."""
        self.lost: set[Run] = set()

    def take(self, raw: bytes) -> None:
        event = decode(raw)
        data = event.data
        assert isinstance(data, AboutGeneration)
        one = self._model.generations[data.generation_id]
        if event.id in self._seen:
            self._model.check(self._seen[event.id] == raw, "one id, two events", one)
            return
        self._seen[event.id] = raw
        match data:
            case GenerationStarted() | GenerationRestarted():
                self._model.check(one.runners.get(data.attempt) == data.worker, "began without a claim", one)
            case TokensEmitted():
                self._emitted(one, data)
            case AttemptLost():
                self._lost(one, data)
            case GenerationCompleted() | GenerationFailed() | GenerationCancelled():
                self._model.check(raw == one.ending_raw, "published an ending that is not its own", one)
                self._model.check(one.id not in self.endings, "ended twice, by two events", one)
                self.endings[one.id] = event.id

    def _emitted(self, one: Generation, tokens: TokensEmitted) -> None:
        run = one.id, tokens.attempt
        first = tokens.first_seq - 1
        self._model.check(first == self._tokens[run], "emitted tokens repeat or skip", one)
        deltas = list(self._model.sealed.tokens(tokens).deltas)
        self._tokens[run] = first + len(deltas)
        truth = self._backend.produced.get(run, [])[first : self._tokens[run]]
        self._model.check(deltas == truth, "emitted tokens are not what was said", one)

    def _lost(self, one: Generation, lost: AttemptLost) -> None:
        run = one.id, lost.attempt
        self._model.check(run not in self.lost, "one attempt lost twice", one)
        self._model.check(lost.attempt in one.lost, "an attempt was called lost that was not", one)
        produced = len(self._backend.produced.get(run, []))
        never_began = self._backend.outcomes.get(run) is Outcome.AWAY and not produced
        self._model.check(
            lost.usage.source == "estimated" or (never_began and not lost.usage.input_tokens),
            "a lost attempt whose usage is no estimate",
            one,
        )
        self._model.check(lost.usage.output_tokens <= produced, "a lost attempt used more than it produced", one)
        self.lost.add(run)
