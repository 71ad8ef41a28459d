from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from event_schemas.chat import AnswerContent, ChatMessage, ImagePart, Piece, TextPart, text_of
from event_schemas.generation import TokensContent
from event_schemas.logprobs import TokenLogprob
from workers.deltas import Deltas
from workers.inference.port import Delta, Reasoning, ToolCallDelta

words = st.text(min_size=1, max_size=5)
top_logprobs = st.fixed_dictionaries(
    {"token": st.text(max_size=5), "logprob": st.floats(-9999, 0)}, optional={"bytes": st.lists(st.integers(0, 255))}
)
token_logprobs = st.builds(
    lambda token, others: token | {"top_logprobs": others}, top_logprobs, st.lists(top_logprobs, max_size=2)
)
engine_deltas = st.lists(
    st.one_of(
        words.map(Delta),
        st.builds(Delta, st.text(max_size=5), st.lists(token_logprobs, max_size=2)).filter(any),
        words.map(Reasoning),
        st.builds(ToolCallDelta, st.integers(0, 3), st.text(max_size=5), st.just("id"), st.just("name")),
    ),
    max_size=20,
)


def pieces_of(deltas: list[Delta | Reasoning | ToolCallDelta]) -> tuple[list[Piece], AnswerContent]:
    taken = Deltas()
    return [taken.append(delta)[1] for delta in deltas], taken.answer


@given(engine_deltas)
def test_an_answer_gives_its_deltas_back(deltas: list[Delta | Reasoning | ToolCallDelta]) -> None:
    pieces, answer = pieces_of(deltas)
    stored = AnswerContent.model_validate_json(answer.model_dump_json())
    assert stored.pieces == pieces
    assert stored.text == text_of(pieces)
    emitted = TokensContent.model_validate_json(TokensContent.of(pieces).model_dump_json())
    assert emitted.pieces == pieces
    assert text_of(emitted.deltas) == stored.text


@given(engine_deltas)
def test_tool_calls_are_numbered_as_they_come(deltas: list[Delta | Reasoning | ToolCallDelta]) -> None:
    _, answer = pieces_of(deltas)
    calls = [delta for delta in deltas if isinstance(delta, ToolCallDelta)]
    numbers = list(dict.fromkeys(delta.number for delta in calls))
    assert [call.arguments for call in answer.tool_calls] == [
        "".join(delta.arguments for delta in calls if delta.number == number).replace("\0", "\ufffd")
        for number in numbers
    ]


def test_an_answer_of_text_alone_stands_as_it_always_did() -> None:
    _, answer = pieces_of([Delta("Hello"), Delta(", world")])
    assert answer.model_dump(mode="json", exclude_defaults=True) == {"text": "Hello, world", "delta_lengths": [5, 7]}


def test_logprobs_stand_beside_what_readers_before_them_know() -> None:
    token: TokenLogprob = {"token": "He", "logprob": -0.5, "top_logprobs": []}
    pieces, answer = pieces_of([Delta("He", [token]), Reasoning("hm"), Delta("llo")])
    assert answer.model_dump(mode="json", exclude_defaults=True) == {
        "text": "Hello",
        "delta_lengths": [2, [-1, 2], 3],
        "reasoning": "hm",
        "logprobs": [[token], [], []],
    }
    emitted = TokensContent.of(pieces)
    assert (emitted.deltas, emitted.logprobs) == (("He", {"reasoning": "hm"}, "llo"), ([token], [], []))


def test_a_message_of_parts_has_their_text() -> None:
    image = ImagePart(url="https://example.com/a.png")
    message = ChatMessage(role="user", content=(TextPart(text="What "), image, TextPart(text="is it?")))
    assert (message.text, message.images) == ("What is it?", (image,))
    assert ChatMessage(role="user", content="Hi").parts == (TextPart(text="Hi"),)
