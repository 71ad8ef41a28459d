"""The events that a worker writes about a generation. Pure: from what is known to what is said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from backplane.ports.identifiers import new_id
from backplane.security.content import DataKey
from event_schemas.chat import Piece
from event_schemas.codec import AnyEnvelope
from event_schemas.generation import (
    AttemptLost,
    CancelGeneration,
    FinishReason,
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    GenerationRestarted,
    GenerationStarted,
    SubmitPrompt,
    TokensContent,
    TokensEmitted,
)
from event_schemas.payload import PaidBy, Payload, Usage
from workers.billing import Billing
from workers.deltas import Deltas

SOURCE = "/parley/workers"

_NOTHING = Usage(input_tokens=0, output_tokens=0, source="provider")


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds since the attempt began."""

    first_token_ms: int
    duration_ms: int


class Facts:
    """What can be said about one prompt. Every envelope is caused by the prompt's own."""

    def __init__(
        self, cause: AnyEnvelope, prompt: SubmitPrompt | CancelGeneration, worker: str, billing: Billing
    ) -> None:
        self._cause = cause
        self._prompt = prompt
        self._worker = worker
        self._billing = billing
        self._served = billing.served(prompt.pool, prompt.model)
        self._paid_by: dict[int, PaidBy] = {}
        self._model = prompt.asked_model if isinstance(prompt, SubmitPrompt) else prompt.model

    @property
    def tenant_id(self) -> UUID:
        return self._cause.tenantid

    def paid(self, attempt: int, by: PaidBy) -> None:
        """Whose key ``attempt`` asks with; the last one counts."""
        self._paid_by[attempt] = by

    def _payer(self, attempt: int) -> PaidBy | None:
        return self._paid_by.get(attempt) or self._billing.paid_by(self._prompt.pool)

    def started(self, attempt: int) -> AnyEnvelope:
        kind = GenerationStarted if attempt == 1 else GenerationRestarted
        return self._say(
            kind(
                generation_id=self._prompt.generation_id,
                conversation_id=self._prompt.conversation_id,
                attempt=attempt,
                model=self._prompt.model,
                worker=self._worker,
            )
        )

    def tokens(self, attempt: int, first_seq: int, deltas: tuple[Piece, ...], key: DataKey) -> AnyEnvelope:
        return self._say(
            TokensEmitted(
                generation_id=self._prompt.generation_id,
                attempt=attempt,
                first_seq=first_seq,
                count=len(deltas),
                content=key.seal(TokensContent.of(deltas)),
            )
        )

    def lost(self, attempt: int, output_tokens: int | None) -> AnyEnvelope:
        """``output_tokens`` is what was seen of it, as far as that is still known; None: nobody was asked."""
        return self._say(
            AttemptLost(
                generation_id=self._prompt.generation_id,
                attempt=attempt,
                user_id=self._prompt.user_id,
                key_id=self._prompt.key_id,
                model=self._model,
                usage=self._billing.priced(
                    _NOTHING if output_tokens is None else self.estimate(output_tokens), self._served
                ),
                served=self._served,
                paid_by=self._payer(attempt),
            )
        )

    def handed_on(self, attempt: int, reason: str) -> AnyEnvelope | None:
        """The command for the next pool, after ``attempt`` failed here for ``reason``; None where there is none."""
        prompt = self._prompt.handed_on(attempt, reason) if isinstance(self._prompt, SubmitPrompt) else None
        return None if prompt is None else self._say(prompt)

    def completed(
        self, attempt: int, reason: FinishReason, usage: Usage, deltas: Deltas, timing: Timing, key: DataKey
    ) -> AnyEnvelope:
        return self._say(
            GenerationCompleted(
                **self._ended(attempt, usage, deltas, key),
                finish_reason=reason,
                first_token_ms=timing.first_token_ms,
                duration_ms=timing.duration_ms,
            )
        )

    def failed(
        self, attempt: int, reason: str, detail: str, deltas: Deltas | None, key: DataKey | None = None
    ) -> AnyEnvelope:
        """``deltas`` is None where the attempt never ran, so that it used nothing. What it said needs ``key``."""
        return self._say(GenerationFailed(**self._broken_off(attempt, deltas, key), reason=reason, detail=detail))

    def cancelled(self, attempt: int, deltas: Deltas | None, key: DataKey | None = None) -> AnyEnvelope:
        """As ``failed``."""
        return self._say(GenerationCancelled(**self._broken_off(attempt, deltas, key)))

    def _broken_off(self, attempt: int, deltas: Deltas | None, key: DataKey | None) -> dict[str, Any]:
        if deltas is None:
            return self._ended(attempt, _NOTHING, Deltas(), None) | {"served": None, "paid_by": None}
        return self._ended(attempt, self.estimate(deltas.count), deltas, key)

    def _ended(self, attempt: int, usage: Usage, deltas: Deltas, key: DataKey | None) -> dict[str, Any]:
        assert key is not None or not deltas.count, "nothing is said before there is a key to seal it by"
        return {
            "generation_id": self._prompt.generation_id,
            "conversation_id": self._prompt.conversation_id,
            "attempt": attempt,
            "user_id": self._prompt.user_id,
            "key_id": self._prompt.key_id,
            "model": self._model,
            "usage": self._billing.priced(usage, self._served),
            "served": self._served,
            "paid_by": self._payer(attempt),
            "deltas": deltas.count,
            "content": key.seal(deltas.answer) if key is not None and deltas.count else None,
        }

    def estimate(self, output_tokens: int) -> Usage:
        """What an attempt used that nobody counted, of which ``output_tokens`` deltas were seen."""
        prompt = self._prompt
        asked = prompt.input_tokens if isinstance(prompt, SubmitPrompt) else 0
        return Usage(input_tokens=asked, output_tokens=output_tokens, source="estimated")

    def _say(self, payload: Payload) -> AnyEnvelope:
        return self._cause.caused(payload, id=new_id(), source=SOURCE, actor=f"worker:{self._worker}")
