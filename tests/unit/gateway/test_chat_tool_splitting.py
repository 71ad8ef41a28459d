"""A long answer as several messages."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from gateway.chat_tools.discord_messages import DiscordMessages
from gateway.chat_tools.slack_messages import SlackMessages
from gateway.chat_tools.splitting import parts, utf16

LIMIT = 40
TEXTS = st.text(st.sampled_from("ab é😀&<\n.!"), max_size=400)


def cost_of(text: str) -> int:
    return sum(map(utf16, text))


@given(TEXTS)
def test_no_message_is_longer_than_its_tool_takes_and_no_word_is_lost(text: str) -> None:
    found = parts(text, LIMIT)
    assert all(0 < cost_of(one) <= LIMIT for one in found)
    assert "".join(re.sub(r"\s", "", one) for one in found) == re.sub(r"\s", "", text)


@given(TEXTS, TEXTS)
def test_what_was_followed_by_another_message_stays_as_it_is(text: str, more: str) -> None:
    before, after = parts(text, LIMIT), parts(text + more, LIMIT)
    assert after[: max(0, len(before) - 1)] == before[:-1]


def test_a_message_ends_at_the_best_place_in_its_second_half() -> None:
    assert parts("One two three. Four five.\n\nSix seven eight nine.", LIMIT)[0] == "One two three. Four five."
    assert parts("One two three four five. Six seven eight nine", LIMIT) == [
        "One two three four five.",
        "Six seven eight nine",
    ]
    assert parts("a " * 25, LIMIT)[0] == "a " * 19 + "a"
    assert parts("a" * 50, LIMIT) == ["a" * 40, "a" * 10]
    assert parts("One.\n\n" + "a" * 50, LIMIT)[0] == "One.\n\n" + "a" * 34


def test_what_fits_is_one_message_and_nothing_is_none() -> None:
    assert parts("  all of it \n", LIMIT) == ["all of it"]
    assert parts(" \n", LIMIT) == []


def test_marks_are_counted_as_slack_gets_them() -> None:
    assert [len(one) for one in parts("&" * 1000, SlackMessages.limit, SlackMessages.cost)] == [760, 240]
    assert [len(one) for one in parts("😀" * 1500, DiscordMessages.limit, DiscordMessages.cost)] == [1000, 500]
