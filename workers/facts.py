"""The events that a worker writes about a generation. Pure: from what is known to what is said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from backplane.ports.budget import nano_usd
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
from event_schemas.limits import Reserved
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
        self._left_out: dict[int, int] = {}
        self._model = prompt.asked_model if isinstance(prompt, SubmitPrompt) else prompt.model

    @property
    def tenant_id(self) -> UUID:
        return self._cause.tenantid

    def paid(self, attempt: int, by: PaidBy) -> None:
        """Whose key ``attempt`` asks with; the last one counts."""
        self._paid_by[attempt] = by

    def shown(self, attempt: int, *, left_out: int) -> None:
        """What ``attempt`` asked its model to read lacks so many messages of the conversation."""
        self._left_out[attempt] = left_out

    def _payer(self, attempt: int) -> PaidBy | None:
        return self._paid_by.get(attempt) or self._billing.paid_by(self._prompt.pool)

    def started(self, attempt: int) -> AnyEnvelope:
        kind = GenerationStarted if attempt == 1 else GenerationRestarted
        return self.say(
            kind(
                generation_id=self._prompt.generation_id,
                conversation_id=self._prompt.conversation_id,
                attempt=attempt,
                model=self._prompt.model,
                worker=self._worker,
                purpose=self._prompt.purpose,
            )
        )

    def tokens(self, attempt: int, first_seq: int, deltas: tuple[Piece, ...], key: DataKey) -> AnyEnvelope:
        return self.say(
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
        return self._void(attempt, _NOTHING if output_tokens is None else self.estimate(output_tokens))

    def _void(self, attempt: int, usage: Usage, reason: Literal["answer_does_not_fit"] | None = None) -> AnyEnvelope:
        return self.say(
            AttemptLost(
                generation_id=self._prompt.generation_id,
                attempt=attempt,
                user_id=self._prompt.user_id,
                key_id=self._prompt.key_id,
                model=self._model,
                usage=self._billing.priced(usage, self._served),
                served=self._served,
                paid_by=self._payer(attempt),
                persona=self._prompt.persona,
                reason=reason,
            )
        )

    def unfit(self, attempt: int, usage: Usage) -> AnyEnvelope:
        """What it answered does not fit its schema, and is asked for again."""
        return self._void(attempt, usage, "answer_does_not_fit")

    def handed_on(self, attempt: int, reason: str, repairs: int = 0) -> AnyEnvelope | None:
        """The command for the next pool, after ``attempt`` failed here for ``reason``; None where there is none."""
        prompt = self._prompt.handed_on(attempt, reason, repairs) if isinstance(self._prompt, SubmitPrompt) else None
        return None if prompt is None else self.say(prompt)

    def completed(
        self, attempt: int, reason: FinishReason, usage: Usage, deltas: Deltas, timing: Timing, key: DataKey
    ) -> AnyEnvelope:
        return self.say(
            GenerationCompleted(
                **self._ended(attempt, usage, deltas, key),
                finish_reason=reason,
                json_span=deltas.json_span,
                stopped_by=deltas.stopped_by,
                first_token_ms=timing.first_token_ms,
                duration_ms=timing.duration_ms,
            )
        )

    def failed(
        self,
        attempt: int,
        reason: str,
        detail: str,
        deltas: Deltas | None,
        key: DataKey | None = None,
        usage: Usage | None = None,
    ) -> AnyEnvelope:
        """``deltas`` is None where the attempt never ran, so that it used nothing. What it said needs ``key``; without
        ``usage`` what it used is an estimate."""
        ended = self._broken_off(attempt, deltas, key, usage)
        return self.say(GenerationFailed(**ended, reason=reason, detail=detail))

    def cancelled(
        self, attempt: int, deltas: Deltas | None, key: DataKey | None = None, usage: Usage | None = None
    ) -> AnyEnvelope:
        """As ``failed``."""
        return self.say(GenerationCancelled(**self._broken_off(attempt, deltas, key, usage)))

    def _broken_off(
        self, attempt: int, deltas: Deltas | None, key: DataKey | None, usage: Usage | None
    ) -> dict[str, Any]:
        if deltas is None:
            return self._ended(attempt, _NOTHING, Deltas(), None) | {"served": None, "paid_by": None}
        return self._ended(attempt, usage or self.estimate(deltas.count), deltas, key)

    def _ended(self, attempt: int, usage: Usage, deltas: Deltas, key: DataKey | None) -> dict[str, Any]:
        assert key is not None or deltas.is_empty, "nothing is said before there is a key to seal it by"
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
            "persona": self._prompt.persona,
            "deltas": deltas.count,
            "content": key.seal(deltas.answer) if key is not None and not deltas.is_empty else None,
            "purpose": self._prompt.purpose,
            "left_out": self._left_out.get(attempt, 0),
        }

    def estimate(self, output_tokens: int) -> Usage:
        """What an attempt used that nobody counted, of which ``output_tokens`` deltas were seen."""
        prompt = self._prompt
        asked = prompt.input_tokens if isinstance(prompt, SubmitPrompt) else 0
        return Usage(input_tokens=asked, output_tokens=output_tokens, source="estimated")

    def reserved(self, input_tokens: int, output_tokens: int) -> Reserved:
        """What so many tokens more would hold of the limits here."""
        more = Usage(input_tokens=input_tokens, output_tokens=output_tokens, source="estimated")
        cost = self._billing.priced(more, self._served).cost_usd
        return Reserved(tokens=input_tokens + output_tokens, nano_usd=0 if cost is None else nano_usd(cost))

    def say(self, payload: Payload) -> AnyEnvelope:
        """``payload``, caused by the prompt."""
        return self._cause.caused(payload, id=new_id(), source=SOURCE, actor=f"worker:{self._worker}")
