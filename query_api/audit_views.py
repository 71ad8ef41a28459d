"""Answers about the log's proofs and chains, as they stand in the API pages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from backplane.security.checkpoint import Checkpoint
from query_api.cursors import proof_cursor
from query_api.proof import Proof
from query_api.trace import Step

_KEY = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
_HASH = "5d41402abc4b2a76b9719d911017c592ae2b1c7f9e0a4c3f8d5e6b7a8c9d0e1f"
_ID = "01990f6e-8a54-7c3e-9d5b-2f6a7b1c0d11"
_TIME = "2026-03-01T12:00:00.123456Z"


class FaultView(BaseModel):
    """The first line that is wrong."""

    sequence: int = Field(description="its place in the log", examples=[7])
    what: str = Field(description="what is wrong with it, for people", examples=["is missing"])


class ProofView(BaseModel):
    """Whether lines of the log follow from one another, and are those that checkpoints sign."""

    verified: bool = Field(description="nothing is wrong from `first` to `last`", examples=[True])
    first: int = Field(description="the first line that was looked at", examples=[1])
    last: int = Field(description="the last line that was looked at", examples=[1042])
    hash: str = Field(description="that line's hash, hexadecimal", examples=[_HASH])
    newest: int = Field(description="the log's newest line when this began", examples=[1042])
    checkpoints: int = Field(description="checkpoints that agree with their lines", examples=[2])
    keys: list[str] = Field(
        description="public keys that these checkpoints name and are true to; compare them with those that you trust",
        examples=[[_KEY]],
    )
    fault: FaultView | None = Field(description="the first line that is wrong; null: none is")
    next_cursor: str | None = Field(
        description="`cursor` of the call that goes on from here; null: all was looked at, or something is wrong",
        examples=[f"1042-{_HASH}"],
    )

    @classmethod
    def of(cls, proof: Proof) -> ProofView:
        fault = proof.fault
        return cls(
            verified=fault is None,
            first=proof.first,
            last=proof.head.sequence,
            hash=proof.head.hash.hex(),
            newest=proof.newest,
            checkpoints=proof.checkpoints,
            keys=sorted(proof.keys),
            fault=None if fault is None else FaultView(sequence=fault.sequence, what=str(fault)),
            next_cursor=None if proof.next is None else proof_cursor(proof.next),
        )


class CheckpointView(BaseModel):
    """A line of the log, signed (Ed25519, over this object without `signature`, in the form of RFC 8785)."""

    kind: Literal["checkpoint", "pruned"] = Field(
        description="`pruned`: all up to this line was deleted on purpose", examples=["checkpoint"]
    )
    tenant_id: UUID = Field(description="whose log", examples=["01990f6e-0000-7000-8000-000000000002"])
    sequence: int = Field(description="the line", examples=[1042])
    hash: str = Field(description="the line's hash, hexadecimal", examples=[_HASH])
    time: str = Field(description="when it was signed", examples=["2026-03-01T12:00:00.123456+00:00"])
    key: str = Field(description="the public key, hexadecimal", examples=[_KEY])
    signature: str = Field(description="hexadecimal", examples=["5a" * 64])


class CheckpointPage(BaseModel):
    pruned: CheckpointView | None = Field(description="where the log begins, if its beginning was deleted on purpose")
    checkpoints: list[CheckpointView] = Field(description="oldest first")
    next_cursor: str | None = Field(description="`cursor` of the next page; null at the end", examples=["1042"])

    @classmethod
    def of(cls, pruned: Checkpoint | None, page: Sequence[Checkpoint], next_cursor: str | None) -> CheckpointPage:
        return cls(
            pruned=None if pruned is None else CheckpointView.model_validate(pruned.json()),
            checkpoints=[CheckpointView.model_validate(each.json()) for each in page],
            next_cursor=next_cursor,
        )


class StepView(BaseModel):
    """One line of the log, or all that tell the tokens of one attempt. What anybody wrote is not in it."""

    sequence: int = Field(description="its place in the log; of many lines, that of the first", examples=[1042])
    lines: int = Field(description="lines of the log that it stands for", examples=[1])
    id: UUID = Field(description="the command's or event's id", examples=[_ID])
    causation_id: UUID = Field(description="id of what directly caused it; its own: it began the chain", examples=[_ID])
    depth: int = Field(description="causes before it in this chain", examples=[0])
    type: str = Field(description="wire name", examples=["generation.started.v1"])
    subject: str = Field(description="what it is about", examples=[f"generation:{_ID}"])
    actor: str = Field(description="who caused it", examples=["worker:w1"])
    source: str = Field(description="the service that wrote it", examples=["/parley/workers"])
    time: datetime = Field(description="when it was written", examples=[_TIME])
    until: datetime | None = Field(description="of many lines, when the last was written", examples=[None])
    ms: int = Field(description="milliseconds since the chain's first step", examples=[42])
    facts: dict[str, Any] = Field(description="its payload without content", examples=[{"attempt": 1}])


class TraceView(BaseModel):
    correlation_id: UUID = Field(description="id of the command that began the chain", examples=[_ID])
    steps: list[StepView] = Field(description="by time, and no effect before its cause")

    @classmethod
    def of(cls, correlation_id: UUID, steps: Sequence[Step]) -> TraceView:
        begin = next((step.time for step in steps if step.id == correlation_id), steps[0].time)
        return cls(
            correlation_id=correlation_id,
            steps=[
                StepView(
                    sequence=step.sequence,
                    lines=step.lines,
                    id=step.id,
                    causation_id=step.causation_id,
                    depth=step.depth,
                    type=step.type,
                    subject=step.subject,
                    actor=step.actor,
                    source=step.source,
                    time=step.time,
                    until=step.until,
                    ms=round((step.time - begin).total_seconds() * 1000),
                    facts=step.facts,
                )
                for step in steps
            ],
        )
