"""The facts of one generation, as the services write them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from backplane.ports.identifiers import new_id
from backplane.security.content import DataKey
from event_schemas.batches import (
    BatchCancelled,
    BatchCompleted,
    BatchContent,
    BatchDeleted,
    BatchExpired,
    BatchLinesFailed,
    BatchSubmitted,
    FailedLine,
    LineFailureContent,
    LineFailuresContent,
)
from event_schemas.chat import AnswerContent, ChatMessage, Piece
from event_schemas.codec import AnyEnvelope, encode
from event_schemas.control_plane import ConversationDeleted, ConversationRenamed, TitleContent
from event_schemas.conversations import (
    ConversationBegun,
    ConversationEnded,
    ConversationForked,
    ConversationResumed,
    ConversationSummarised,
    ConversationSuspended,
    ConversationTitled,
    SummaryContent,
)
from event_schemas.envelope import Envelope
from event_schemas.erasure import ContentErased
from event_schemas.generation import (
    AttemptLost,
    Fallback,
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    GenerationRestarted,
    GenerationStarted,
    Parameters,
    PromptContent,
    Purpose,
    SubmitPrompt,
    TokensContent,
    TokensEmitted,
)
from event_schemas.knowledge import (
    CollectionContent,
    CollectionCreated,
    DocumentContent,
    DocumentIngested,
    IngestDocument,
    IngestionFailed,
    IngestionProgressed,
)
from event_schemas.payload import Content, Payload, PersonaRef, Usage, Written
from event_schemas.personas import PersonaContent, PersonaRemoved, PersonaSaved
from projections.catalog import PROJECTIONS
from projections.event_log import Received
from projections.state import State
from projections.table import Key, Projection, Row
from tests.data_keys import data_key, plain

T0 = datetime(2025, 6, 1, 12, 0, tzinfo=UTC)
Ending = Literal["completed", "failed", "cancelled"]


@dataclass
class Story:
    """One conversation of a tenant, told a generation at a time. Each fact is a second later than the one before."""

    tenant_id: UUID = field(default_factory=new_id)
    conversation_id: UUID = field(default_factory=new_id)
    user_id: UUID = field(default_factory=new_id)
    key_id: UUID = field(default_factory=new_id)
    now: datetime = T0
    is_plain: bool = False
    """As releases told it that did not encrypt."""
    key: DataKey = field(init=False)

    def __post_init__(self) -> None:
        self.key = data_key(self.conversation_id)

    def _written(self, content: Content) -> Written:
        return plain(content) if self.is_plain else self.key.seal(content)

    def envelope(self, data: Payload) -> AnyEnvelope:
        first = Envelope[Payload].first(
            data, id=new_id(), source="/parley/tests", tenant_id=self.tenant_id, actor=f"key:{self.key_id}"
        )
        self.now += timedelta(seconds=1)
        return first.model_copy(update={"time": self.now})

    def prompt(
        self,
        *messages: tuple[Literal["system", "user", "assistant"], str] | ChatMessage,
        parent: UUID | None = None,
        metadata: dict[str, str] | None = None,
        title: str | None = "A title",
        keeps_content: bool = True,
        persona: PersonaRef | None = None,
        batch_id: UUID | None = None,
    ) -> Envelope[SubmitPrompt]:
        said = [
            one if isinstance(one, ChatMessage) else ChatMessage(role=one[0], content=one[1])
            for one in messages or (("user", "What is a fold?"),)
        ]
        made = self.envelope(
            SubmitPrompt(
                generation_id=new_id(),
                conversation_id=self.conversation_id,
                parent_message_id=parent,
                input_message_ids=tuple(new_id() for _ in said),
                roles=tuple(one.role for one in said),
                input_tokens=sum(len(one.text) for one in said),
                user_id=self.user_id,
                key_id=self.key_id,
                model="asked-for",
                pool="local",
                parameters=Parameters(temperature=0.5),
                content=self._written(
                    PromptContent(messages=tuple(said), metadata={"ticket": "42"} if metadata is None else metadata)
                ),
                title=None if parent or title is None else self._written(TitleContent(title=title)),
                keeps_content=keeps_content,
                persona=persona,
                batch_id=batch_id,
                batch_line=None if batch_id is None else 1,
            )
        )
        assert isinstance(made.data, SubmitPrompt)
        return Envelope[SubmitPrompt].model_construct(**dict(made))

    def handed_on(self, prompt: Envelope[SubmitPrompt]) -> AnyEnvelope:
        """The same prompt for another pool."""
        onto = prompt.data.model_copy(update={"fallbacks": (Fallback(pool="spare", model="plain"),)})
        command = onto.handed_on(1, "provider_failed")
        assert command is not None
        return self.envelope(command)

    def started(self, generation_id: UUID, attempt: int = 1) -> AnyEnvelope:
        kind = GenerationStarted if attempt == 1 else GenerationRestarted
        return self.envelope(
            kind(
                generation_id=generation_id,
                conversation_id=self.conversation_id,
                attempt=attempt,
                model=f"model-{attempt}",
                worker="w1",
            )
        )

    def lost(self, generation_id: UUID, attempt: int = 1) -> AnyEnvelope:
        return self.envelope(
            AttemptLost(
                generation_id=generation_id,
                attempt=attempt,
                user_id=self.user_id,
                key_id=self.key_id,
                model=f"model-{attempt}",
                usage=Usage(input_tokens=5, output_tokens=3, source="estimated"),
            )
        )

    def tokens(self, generation_id: UUID, first_seq: int, *deltas: str, attempt: int = 1) -> AnyEnvelope:
        return self.emitted(generation_id, first_seq, deltas, attempt=attempt)

    def emitted(self, generation_id: UUID, first_seq: int, said: Sequence[Piece], *, attempt: int = 1) -> AnyEnvelope:
        return self.envelope(
            TokensEmitted(
                generation_id=generation_id,
                attempt=attempt,
                first_seq=first_seq,
                count=len(said),
                content=self._written(TokensContent.of(said)),
            )
        )

    def ended(
        self,
        generation_id: UUID,
        how: Ending = "completed",
        *,
        attempt: int = 1,
        deltas: Iterable[Piece] = ("A ", "fold."),
        persona: PersonaRef | None = None,
    ) -> AnyEnvelope:
        parts = tuple(deltas)
        common = {
            "generation_id": generation_id,
            "conversation_id": self.conversation_id,
            "attempt": attempt,
            "user_id": self.user_id,
            "key_id": self.key_id,
            "model": f"model-{attempt}",
            "usage": Usage(input_tokens=7, output_tokens=len(parts), source="provider"),
            "deltas": len(parts),
            "persona": persona,
            "content": self._written(AnswerContent.of(parts)) if parts else None,
        }
        match how:
            case "completed":
                common |= {"finish_reason": "stop", "first_token_ms": 12, "duration_ms": 340}
                return self.envelope(GenerationCompleted.model_validate(common))
            case "failed":
                common |= {"reason": "attempts_exhausted", "detail": "the backend was lost three times"}
                return self.envelope(GenerationFailed.model_validate(common))
            case "cancelled":
                return self.envelope(GenerationCancelled.model_validate(common))

    def renamed(self, title: str) -> AnyEnvelope:
        content = self._written(TitleContent(title=title))
        return self.envelope(ConversationRenamed(conversation_id=self.conversation_id, content=content))

    def saved(self, persona: PersonaRef) -> AnyEnvelope:
        content = self._written(PersonaContent(system=f"You are {persona.name}."))
        return self.envelope(PersonaSaved(**persona.model_dump(), content=content))

    def removed(self, persona: PersonaRef) -> AnyEnvelope:
        return self.envelope(PersonaRemoved(persona_id=persona.persona_id, name=persona.name))

    def deleted(self) -> AnyEnvelope:
        return self.envelope(ConversationDeleted(conversation_id=self.conversation_id))

    def erased(self) -> AnyEnvelope:
        return self.envelope(ContentErased(conversation_id=self.conversation_id, reason="asked"))

    def titled(self, title: str) -> AnyEnvelope:
        content = self._written(TitleContent(title=title))
        return self.envelope(
            ConversationTitled(conversation_id=self.conversation_id, generation_id=new_id(), content=content)
        )

    def summarised(self, up_to_message_id: UUID) -> AnyEnvelope:
        return self.envelope(
            ConversationSummarised(
                conversation_id=self.conversation_id,
                generation_id=new_id(),
                up_to_message_id=up_to_message_id,
                content=self._written(SummaryContent(summary="They spoke of folds.")),
            )
        )

    def begun(self, title: str | None = None) -> AnyEnvelope:
        """It was begun before anything was said."""
        sealed = None if title is None else self._written(TitleContent(title=title))
        return self.envelope(
            ConversationBegun(conversation_id=self.conversation_id, user_id=self.user_id, title=sealed)
        )

    def forked(self, message_id: UUID, persona: PersonaRef | None = None) -> AnyEnvelope:
        """It was forked from another one, at this message of that one."""
        return self.envelope(
            ConversationForked(
                conversation_id=self.conversation_id,
                from_conversation_id=new_id(),
                message_id=message_id,
                user_id=self.user_id,
                title=self._written(TitleContent(title="The other's title")),
                persona=persona,
            )
        )

    def state(
        self, *changes: type[ConversationSuspended | ConversationResumed | ConversationEnded]
    ) -> list[AnyEnvelope]:
        return [self.envelope(change(conversation_id=self.conversation_id)) for change in changes]

    def beside(self, purpose: Purpose) -> list[AnyEnvelope]:
        """All facts of a generation beside the conversation."""
        return [
            fact.model_copy(update={"data": fact.data.model_copy(update={"purpose": purpose})})
            if "purpose" in type(fact.data).model_fields
            else fact
            for fact in self.whole()
        ]

    def batch(self, *, cancelled: bool = False, deleted: bool = False) -> list[AnyEnvelope]:
        """A batch of two lines, of which the second one never becomes a prompt."""
        batch_id = new_id()
        submitted = BatchSubmitted(
            batch_id=batch_id,
            user_id=self.user_id,
            key_id=self.key_id,
            total=2,
            expires_at=self.now + timedelta(hours=24),
            content=self._written(BatchContent(metadata={"run": "nightly"})),
        )
        why = LineFailureContent(custom_id="second", message="It was not begun.")
        failed = BatchLinesFailed(
            batch_id=batch_id,
            lines=(FailedLine(line=2, code="batch_cancelled" if cancelled else "batch_expired"),),
            content=self._written(LineFailuresContent(lines=(why,))),
        )
        facts = [self.envelope(submitted), *self.whole(batch_id=batch_id)]
        facts.append(self.envelope((BatchCancelled if cancelled else BatchExpired)(batch_id=batch_id)))
        facts.append(self.envelope(failed))
        facts.append(self.envelope(BatchCompleted(batch_id=batch_id, completed=1, failed=1)))
        return [*facts, self.envelope(BatchDeleted(batch_id=batch_id))] if deleted else facts

    def knowledge(self) -> list[AnyEnvelope]:
        """A collection of two documents, one of which cannot be read."""
        collection_id = new_id()
        facts = [
            self.envelope(
                CollectionCreated(
                    collection_id=collection_id,
                    name="handbook",
                    embedder="minilm",
                    language="english",
                    content=self._written(CollectionContent(description="ours")),
                )
            )
        ]
        for readable in (True, False):
            about: dict[str, Any] = {"document_id": new_id(), "collection_id": collection_id}
            name = self._written(DocumentContent(name="Holidays"))
            ingest = self.envelope(IngestDocument(**about, bytes=10, content=name))
            about["ingestion_id"] = ingest.id
            end: Payload = IngestionFailed(**about, reason="encrypted", detail="it wants a password")
            if readable:
                end = DocumentIngested(**about, kind="pdf", characters=100, chunks=64)
            progressed = IngestionProgressed(**about, stage="embedding", embedded=32, chunks=64)
            facts += [ingest, self.envelope(progressed), self.envelope(end)]
        return facts

    def whole(
        self,
        how: Ending = "completed",
        attempts: int = 1,
        parent: UUID | None = None,
        *,
        keeps_content: bool = True,
        persona: PersonaRef | None = None,
        batch_id: UUID | None = None,
    ) -> list[AnyEnvelope]:
        """All facts of one generation, in the order in which they came to be."""
        prompt = self.prompt(parent=parent, keeps_content=keeps_content, persona=persona, batch_id=batch_id)
        generation_id = prompt.data.generation_id
        facts: list[AnyEnvelope] = [prompt]
        for attempt in range(1, attempts + 1):
            if attempt > 1:
                facts.append(self.lost(generation_id, attempt - 1))
            facts.append(self.started(generation_id, attempt))
            facts.append(self.tokens(generation_id, 1, "A ", attempt=attempt))
            facts.append(self.tokens(generation_id, 2, "fold.", attempt=attempt))
        return [*facts, self.ended(generation_id, how, attempt=attempts, persona=persona)]


def received(facts: Iterable[AnyEnvelope]) -> list[Received]:
    return [Received(fact, encode(fact)) for fact in facts]


def folded(
    facts: Iterable[AnyEnvelope], projections: tuple[Projection, ...] = PROJECTIONS
) -> dict[str, dict[Key, Row]]:
    """The rows of every table after ``facts``, in memory."""
    state = State(projections)
    for fact in facts:
        for step in state.steps(fact):
            step.take()
    return {
        name: dict(sorted((table.table.key_of(row), row) for row in table.rows()))
        for name, table in state.tables.items()
    }
