from __future__ import annotations

import os
import random

import pytest

from event_schemas.chat import ChatMessage, ToolCall
from workers.inference.port import Counted
from workers.window import Count, Fitted, Said, fitted, room, turns_of

SEED = int(os.environ.get("WINDOW_SEED", random.SystemRandom().randrange(2**32)))
SYSTEM = ChatMessage(role="system", content="Be short.")


ANSWER = 10


def tokens(messages: tuple[ChatMessage, ...]) -> int:
    return sum(len(message.text) + 2 for message in messages)


def counted_in(window: int) -> Count:
    async def count(messages: tuple[ChatMessage, ...]) -> Counted | None:
        return Counted(tokens(messages), window)

    return count


def user(text: str) -> ChatMessage:
    return ChatMessage(role="user", content=text)


def answer(text: str) -> ChatMessage:
    return ChatMessage(role="assistant", content=text)


def conversation(dice: random.Random, turns: int) -> list[ChatMessage]:
    """Turns of one or more messages of a user, calls of tools with what these said, and an answer."""
    said = []
    if dice.random() < 0.2:
        said.append(answer("hello"))
    for _ in range(turns):
        said += [user("q" * dice.randrange(1, 40)) for _ in range(dice.choice([1, 1, 1, 2]))]
        for _ in range(dice.choice([0, 0, 1, 2])):
            calls = tuple(ToolCall(id=f"c{n}", name="look", arguments="{}") for n in range(dice.choice([1, 2])))
            said.append(ChatMessage(role="assistant", content="", tool_calls=calls))
            said += [ChatMessage(role="tool", content="t" * dice.randrange(30), tool_call_id=one.id) for one in calls]
        said.append(answer("a" * dice.randrange(1, 40)))
    return said


async def test_of_any_conversation_as_little_as_possible_goes_and_always_whole_turns() -> None:
    print("WINDOW_SEED =", SEED)
    dice = random.Random(SEED)
    for _ in range(500):
        before = conversation(dice, dice.randrange(8))
        regenerates = before and dice.random() < 0.3
        own = () if regenerates else (user("q" * dice.randrange(1, 40)),)
        if regenerates and before[-1].role == "assistant":
            before.pop()
        said = Said(tuple(before), own, SYSTEM if dice.random() < 0.5 else None)
        window = dice.randrange(20, 600)
        most = room(window, ANSWER)
        found = await fitted(said, "slide", ANSWER, counted_in(window))

        instructions = [message for message in found.messages if message.role == "system"]
        assert instructions == ([] if said.system is None else [said.system])
        spoken = [message for message in found.messages if message.role != "system"]
        everything = [*before, *own]
        assert spoken == everything[found.left_out :]
        newest = max((n for n, one in enumerate(everything) if one.role == "user"), default=len(everything))
        assert found.left_out <= newest
        called = {call.id for message in spoken for call in message.tool_calls}
        assert all(message.tool_call_id in called for message in spoken if message.role == "tool")
        if found.left_out:
            assert spoken[0].role == "user"
            assert tokens(said.without(0)) > most
            turns = turns_of(before)
            gone = next(n for n in range(len(turns) + 1) if sum(map(len, turns[:n])) == found.left_out)
            assert tokens(said.without(gone - 1)) > most
        if tokens(found.messages) > most:
            turns = turns_of(everything)
            assert spoken == turns[-1]


async def test_nothing_goes_where_that_is_not_wanted_or_the_window_is_unknown() -> None:
    said = Said((user("one"), answer("two")), (user("three"),))
    whole = Fitted((user("one"), answer("two"), user("three")), 0)

    async def unknown(messages: tuple[ChatMessage, ...]) -> Counted | None:
        return None

    assert await fitted(said, "fail", 1, counted_in(1)) == whole
    assert await fitted(said, "slide", 1, unknown) == whole
    assert await fitted(said, "slide", 1, counted_in(1)) == Fitted((user("three"),), 2, 1)


async def test_what_a_tool_said_stays_with_the_question_that_it_was_asked_for() -> None:
    call = ChatMessage(role="assistant", content="", tool_calls=(ToolCall(id="c", name="look", arguments="{}"),))
    said_by_tool = ChatMessage(role="tool", content="rain", tool_call_id="c")
    said = Said((user("hello"), answer("hello"), user("weather?"), call), (said_by_tool,))
    assert await fitted(said, "slide", 1, counted_in(1)) == Fitted((user("weather?"), call, said_by_tool), 2, 1)


async def test_a_summary_stands_among_the_instructions_and_counts_what_it_stands_for() -> None:
    said = Said((user("one"), answer("two")), (user("three"),), SYSTEM, summary="They met.", covered=6)
    found = await fitted(said, "summarise", ANSWER, counted_in(80))
    assert found.left_out == 8
    assert [message.role for message in found.messages] == ["system", "user"]
    assert found.messages[0].text == "Be short.\n\nWhat was said before, in short:\nThey met."


@pytest.mark.parametrize(("window", "answer_tokens", "most"), [(4096, 512, 3584), (512, 512, 256), (16, 1, 15)])
def test_an_answer_has_room(window: int, answer_tokens: int, most: int) -> None:
    assert room(window, answer_tokens) == most
