"""What people and models say to each other: messages, the tools they may name, and the pieces an answer comes in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, NotRequired, TypeAlias, final

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from event_schemas.logprobs import TokenLogprob
from event_schemas.payload import Content
from event_schemas.sources import Source

Role = Literal["system", "user", "assistant", "tool"]


class _Said(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class TextPart(_Said):
    type: Literal["text"] = Field(default="text", description="always `text`")
    text: str = Field(description="what was written")


class ImagePart(_Said):
    type: Literal["image"] = Field(default="image", description="always `image`")
    url: str = Field(description="`https://…`, or `data:<media type>;base64,…`")
    detail: Literal["auto", "low", "high"] | None = Field(default=None, description="how closely the model looks")


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class ToolCall(_Said):
    """A model's wish that its client runs a tool. Parley runs none."""

    id: str
    name: str
    arguments: str = Field(description="JSON as the model wrote it, which may be broken")


class ChatMessage(_Said):
    """One message as a person, a model or a tool wrote it."""

    role: Role
    content: str | tuple[Part, ...]
    tool_calls: tuple[ToolCall, ...] = Field(default=(), description="of an assistant's")
    tool_call_id: str | None = Field(default=None, description="of a tool's: the call that it answers")

    @property
    def text(self) -> str:
        """Its text without what else is in it."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def parts(self) -> tuple[TextPart | ImagePart, ...]:
        """Its content, part by part; none where it is empty."""
        if isinstance(self.content, str):
            return (TextPart(text=self.content),) if self.content else ()
        return self.content

    @property
    def images(self) -> tuple[ImagePart, ...]:
        return tuple(part for part in self.parts if isinstance(part, ImagePart))


class Tool(_Said):
    """A function that the model may ask for."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = Field(
        default=None, description="JSON Schema of its arguments; none: it has none"
    )
    strict: bool | None = Field(default=None, description="the arguments have to match their schema exactly")


class NamedTool(_Said):
    """The model has to call this one."""

    name: str


class ResponseFormat(_Said):
    """The answer has to be JSON; of this schema where there is one."""

    name: str = "answer"
    json_schema: dict[str, Any] | None = None
    strict: bool | None = None


@final
class ReasoningPiece(TypedDict):
    """What a model thought before it spoke."""

    reasoning: str


@final
class ToolCallPiece(TypedDict):
    """A piece of the answer's tool call number ``tool_call``, from 0. Its first piece has ``id`` and ``name``."""

    tool_call: int
    arguments: str
    id: NotRequired[str]
    name: NotRequired[str]


@final
class TextPiece(TypedDict):
    """A piece of the answer's text whose tokens' logprobs were asked for."""

    text: str
    logprobs: list[TokenLogprob]


BarePiece: TypeAlias = Annotated[str | ReasoningPiece | ToolCallPiece, Field(union_mode="left_to_right")]
"""One delta of an answer without logprobs, as events have it; a string is a piece of its text."""

Piece: TypeAlias = BarePiece | TextPiece
"""One delta of an answer. Plain JSON, since it is made and read for every token."""

Logprobs: TypeAlias = Annotated[
    tuple[list[TokenLogprob], ...],
    Field(description="of the tokens of each delta, where they were asked for; else none at all"),
]

Length: TypeAlias = Annotated[int | tuple[int, int], Field(union_mode="left_to_right")]
"""Code points of one delta: a number for text, else ``(tool call, length)``, where tool call -1 is reasoning."""

_REASONING = -1


class Misfit(_Said):
    """Where an answer does not fit the schema that was asked for."""

    path: str = Field(description="in the answer: a JSON pointer, empty for all of it", examples=["/people/0/age"])
    keyword: str = Field(
        description="of the schema; `json` where the answer is no JSON, `deadline` where it took too long to check",
        examples=["minimum"],
    )
    message: str = Field(description="what is wrong there", examples=["-1 is less than the minimum of 0"])


class AnswerContent(Content):
    """An answer, whole or as far as it came, and the deltas that it came in."""

    text: str
    delta_lengths: tuple[Length, ...] = Field(
        description="code points of each delta, so that a finished answer streams as it was written: a number for text,"
        " else [number of the tool call, or -1 for reasoning, code points]"
    )
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: Logprobs = ()
    sources: tuple[Source, ...] = Field(default=(), description="what was put before the question")
    source_notes: tuple[str, ...] = Field(
        default=(), description="for people: what was wished for and not had, and why"
    )
    scratchpad: str = Field(default="", description="what was cut out of the answer, for the record only")
    json_span: tuple[int, int] | None = Field(
        default=None, description="of the text, from and to: the JSON that fits its schema"
    )
    misfit: Misfit | None = Field(default=None, description="why it does not fit its schema")
    stopped_by: int | None = Field(
        default=None,
        description="which of the prompt's stop sequences ended it, from 0; none: nobody knows, or none did",
    )

    @classmethod
    def of(cls, pieces: Sequence[Piece]) -> AnswerContent:
        """What ``pieces`` are together. The first piece of a tool call has its id and name."""
        text: list[str] = []
        reasoning: list[str] = []
        calls: list[tuple[str, str, list[str]]] = []
        lengths: list[Length] = []
        for piece in pieces:
            if isinstance(piece, str):
                text.append(piece)
                lengths.append(len(piece))
            elif "text" in piece:
                text.append(piece["text"])
                lengths.append(len(piece["text"]))
            elif "reasoning" in piece:
                reasoning.append(piece["reasoning"])
                lengths.append((_REASONING, len(piece["reasoning"])))
            else:
                if piece["tool_call"] == len(calls):
                    calls.append((piece["id"], piece["name"], []))
                calls[piece["tool_call"]][2].append(piece["arguments"])
                lengths.append((piece["tool_call"], len(piece["arguments"])))
        return cls(
            text="".join(text),
            delta_lengths=tuple(lengths),
            reasoning="".join(reasoning),
            tool_calls=tuple(ToolCall(id=id, name=name, arguments="".join(said)) for id, name, said in calls),
            logprobs=logprobs_of(pieces),
        )

    @property
    def pieces(self) -> list[Piece]:
        """The deltas that it came in."""
        calls = [call.model_dump() for call in self.tool_calls]
        return pieces(self.text, self.delta_lengths, self.reasoning, calls, self.logprobs)


def pieces(
    text: str,
    lengths: Sequence[Length],
    reasoning: str = "",
    tool_calls: Sequence[dict[str, str]] = (),
    logprobs: Sequence[list[TokenLogprob]] = (),
) -> list[Piece]:
    """The deltas of an answer whose parts stand by themselves, as they do in a read model."""
    found: list[BarePiece] = []
    said = {_REASONING: reasoning, **{number: call["arguments"] for number, call in enumerate(tool_calls)}}
    read = dict.fromkeys(said, 0)
    begun: set[int] = set()
    at = 0
    for length in lengths:
        if isinstance(length, int):
            found.append(text[at : at + length])
            at += length
            continue
        source, characters = length
        begin = read[source]
        read[source] = begin + characters
        words = said[source][begin : begin + characters]
        if source == _REASONING:
            found.append({"reasoning": words})
        elif source in begun:
            found.append({"tool_call": source, "arguments": words})
        else:
            begun.add(source)
            call = tool_calls[source]
            found.append({"tool_call": source, "id": call["id"], "name": call["name"], "arguments": words})
    return with_logprobs(found, logprobs)


def bare(piece: Piece) -> BarePiece:
    """``piece`` without its logprobs."""
    return piece["text"] if isinstance(piece, dict) and "text" in piece else piece


def logprobs_of(said: Sequence[Piece]) -> Logprobs:
    """Those of each piece's tokens; nothing where no piece has any."""
    if dict not in map(type, said):
        return ()
    found = tuple(piece["logprobs"] if isinstance(piece, dict) and "text" in piece else [] for piece in said)
    return found if any(found) else ()


def with_logprobs(said: Sequence[BarePiece], logprobs: Sequence[list[TokenLogprob]]) -> list[Piece]:
    """``said`` with what ``logprobs_of`` took from it."""
    if not logprobs:
        return [*said]
    return [
        {"text": piece, "logprobs": tokens} if tokens and isinstance(piece, str) else piece
        for piece, tokens in zip(said, logprobs, strict=True)
    ]


def text_of(said: Iterable[Piece]) -> str:
    """The text of an answer, without what was thought and which tools were asked for."""
    return "".join([piece if isinstance(piece, str) else str(piece.get("text", "")) for piece in said])
