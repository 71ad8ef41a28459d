"""What may become of a generation, in plain Python: who may hold it, how it may end, what was said of it.

The table of claims tells each of its changes, in order. The model knows which of them are allowed, and remembers. What
it does not allow is put down in ``violations``, since it is seen in the middle of other people's tasks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from backplane.ports.token_stream import Cursor
from event_schemas.codec import AnyEnvelope, decode
from event_schemas.generation import (
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    SubmitPrompt,
    Terminal,
)
from tests.integration.generation_machine.backend import Outcome, SteppedBackend
from tests.integration.sealed_prompts import SealedPrompts

MOST_ATTEMPTS = 2


@dataclass(frozen=True)
class Change:
    """One change of a row of ``work.claims``. ``lease_was`` is None for a row that is new or had none."""

    at: datetime
    generation_id: UUID
    handed_on: int
    attempt: int
    worker: str | None
    lease_was: datetime | None
    lease_until: datetime | None
    cancel_requested: bool
    terminal: bytes | None


@dataclass
class Generation:
    prompt: SubmitPrompt
    attempt: int | None = None
    """None before its first claim; 0 where it ended before any attempt."""
    handed_on: int = 0
    earlier_attempts: int = 0
    """In the pools before this one."""
    holder: str | None = None
    lease_until: datetime | None = None
    runners: dict[int, str] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)
    delivered_to: set[str] = field(default_factory=set)
    cancel_wanted: bool = False
    cancel_requested: bool = False
    ending: AnyEnvelope | None = None
    ending_raw: bytes | None = None

    @property
    def id(self) -> UUID:
        return self.prompt.generation_id

    @property
    def runs(self) -> bool:
        return self.attempt is not None and self.ending is None

    @property
    def terminal(self) -> Terminal | None:
        if self.ending is None:
            return None
        ended = self.ending.data
        assert isinstance(ended, (GenerationCompleted, GenerationFailed, GenerationCancelled))
        return ended


class Model:
    def __init__(self, backend: SteppedBackend, sealed: SealedPrompts) -> None:
        self._backend = backend
        self.sealed = sealed
        self.generations: dict[UUID, Generation] = {}
        self.violations: list[str] = []

    def check(self, holds: bool, what: str, generation: Generation) -> None:
        if not holds:
            self.violations.append(f"{what} (attempt {generation.attempt}, held by {generation.holder})")

    def text_to(self, generation_id: UUID, cursor: Cursor) -> str:
        """What the backend said in the attempt of ``cursor``, up to it."""
        return "".join(self._backend.produced.get((generation_id, cursor.attempt), ())[: cursor.seq])

    def changed(self, change: Change) -> None:
        """Take note of a change of the claims, and of what is wrong with it."""
        one = self.generations[change.generation_id]
        if one.ending is not None:
            self.check(
                (change.attempt, change.terminal) == (one.attempt, one.ending_raw), "changed after it ended", one
            )
        elif one.attempt is None:
            self._began(one, change)
        elif change.handed_on != one.handed_on:
            self._was_handed_on(one, change)
        elif change.attempt == one.attempt:
            self._went_on(one, change)
        else:
            self._was_lost(one, change)
        if change.cancel_requested:
            self.check(one.cancel_wanted, "nobody wanted it cancelled", one)
        one.attempt, one.holder, one.lease_until = change.attempt, change.worker, change.lease_until
        one.cancel_requested = change.cancel_requested
        if change.terminal is not None and one.ending is None:
            one.ending, one.ending_raw = decode(change.terminal), change.terminal
            self._ended(one)

    def _began(self, one: Generation, change: Change) -> None:
        if change.terminal is not None:
            self.check(change.attempt == 0 and change.cancel_requested, "ended before it began, uncancelled", one)
            return
        self.check(change.attempt == 1, "its first attempt is not 1", one)
        self.check(change.worker in one.delivered_to, "claimed by one who never got it", one)
        parent = self.generations.get(one.prompt.parent_message_id) if one.prompt.parent_message_id else None
        self.check(parent is None or parent.ending is not None, "began before its parent ended", one)
        conversation = one.prompt.conversation_id
        others = [it for it in self.generations.values() if it.runs and it.prompt.conversation_id == conversation]
        self.check(not others, "began while another of its conversation ran", one)
        self._runs(one, change)

    def _went_on(self, one: Generation, change: Change) -> None:
        if change.terminal is not None:
            self.check(change.worker == one.holder == one.runners[change.attempt], "ended by another", one)
        elif change.worker is None and one.holder is not None:
            self.check((one.id, change.attempt) not in self._backend.gates, "given up while it ran", one)
        else:
            self.check(change.worker == one.holder, "changed hands within an attempt", one)

    def _was_handed_on(self, one: Generation, change: Change) -> None:
        assert one.attempt is not None
        self.check(change.handed_on == one.handed_on + 1, "handed on more than once at a time", one)
        self.check(change.handed_on <= len(one.prompt.fallbacks), "handed on although its chain is at an end", one)
        self.check(change.attempt == one.attempt and change.worker is None, "handed on, and run", one)
        if change.lease_was is not None and change.lease_was > change.at:
            # Whose lease ran out may run on, and is fenced.
            self.check((one.id, change.attempt) not in self._backend.gates, "handed on while it ran", one)
        exhausted = one.attempt == one.earlier_attempts + MOST_ATTEMPTS
        away = self._backend.outcomes.get((one.id, one.attempt)) is Outcome.AWAY
        self.check(exhausted or away, "handed on without need", one)
        one.lost.add(one.attempt)
        one.handed_on, one.earlier_attempts = change.handed_on, change.attempt

    def _was_lost(self, one: Generation, change: Change) -> None:
        assert one.attempt is not None
        self.check(change.attempt == one.attempt + 1, "attempts do not count up by one", one)
        self.check(
            change.lease_was is not None and change.lease_was <= change.at, "taken over while its lease was held", one
        )
        one.lost.add(one.attempt)
        if change.terminal is None:
            self.check(change.attempt <= one.earlier_attempts + MOST_ATTEMPTS, "more attempts than allowed", one)
            self.check(change.worker in one.delivered_to, "taken over by one who never got it", one)
            self.check(not one.cancel_requested, "run again though its cancel was asked for", one)
            self._runs(one, change)

    def _runs(self, one: Generation, change: Change) -> None:
        assert change.worker is not None
        one.runners[change.attempt] = change.worker

    def _ended(self, one: Generation) -> None:
        """However it came about: does the ending say what really happened?"""
        ended, attempt = one.terminal, one.attempt
        assert ended is not None
        assert attempt is not None
        ran = attempt in one.runners
        outcome = self._backend.outcomes.get((one.id, attempt))
        self.check(ended.attempt == attempt, "its ending is of another attempt", one)
        deltas = self._backend.produced.get((one.id, attempt), [])
        answer = self.sealed.answer(ended)
        self.check(answer.text == "".join(deltas), "its ending is not what was said", one)
        self.check(answer.delta_lengths == tuple(map(len, deltas)), "deltas are not as they were said", one)
        self.check(ended.usage.output_tokens == len(deltas), "its usage is not what was produced", one)
        match ended:
            case GenerationCompleted():
                self.check(outcome is Outcome.FINISHED and ended.usage.source == "provider", "nothing finished", one)
            case GenerationFailed(reason="attempts_exhausted"):
                last = one.earlier_attempts + MOST_ATTEMPTS + 1
                self.check(not ran and attempt == last, "given up too early or too late", one)
                self.check(one.handed_on == len(one.prompt.fallbacks), "given up although another pool may", one)
            case GenerationFailed():
                self.check(ran and outcome is Outcome.REFUSED, "failed without a refusal", one)
            case GenerationCancelled():
                self.check(one.cancel_wanted, "cancelled though nobody wanted it", one)
