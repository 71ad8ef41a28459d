"""What a model is told of the shape of its answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from backplane.settings.answer_schemas import Way
from event_schemas.chat import ChatMessage, ImagePart, Misfit, ResponseFormat, TextPart
from event_schemas.generation import FinishReason
from tests.contract.inference.requests import request
from workers.inference.port import InferenceRequest
from workers.shape import Unfit, is_repairable, shaped, verdict

SCHEMA = {"type": "object", "properties": {"größe": {"type": "integer"}}}
SYSTEM, USER = ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="How big?")
MISFIT = Misfit(path="/größe", keyword="type", message="'big' is not of type 'integer'")


def asked(*messages: ChatMessage) -> InferenceRequest:
    return replace(request(*messages), response_format=ResponseFormat(json_schema=SCHEMA))


@pytest.mark.parametrize("way", ["grammar", "openai", "openai_strict", "anthropic"])
def test_who_can_be_held_to_a_schema_is_told_nothing(way: Way) -> None:
    one = asked(SYSTEM, USER)
    assert shaped(one, way, None) == one


def test_others_are_told_in_words_after_what_the_client_says() -> None:
    told = shaped(asked(SYSTEM, USER), "instruction", None)
    assert told.response_format is None
    system, user = told.messages
    assert system.text.startswith("Be brief.\n\n")
    assert '{"type": "object", "properties": {"größe": {"type": "integer"}}}' in system.text
    assert user == USER
    alone = shaped(asked(USER), "instruction", None)
    assert [message.role for message in alone.messages] == ["system", "user"]


def test_a_model_without_instructions_is_told_by_the_user() -> None:
    picture = ChatMessage(role="user", content=(ImagePart(url="https://a/b"), TextPart(text="How big?")))
    for last in (USER, picture):
        first, told = shaped(asked(USER, last), "instruction", None, takes_system=False).messages
        assert first == USER
        assert told.text.startswith("How big?")
        assert "größe" in told.text
        assert told.images == last.images


def test_an_answer_that_did_not_fit_is_shown_to_the_model_with_the_validators_words() -> None:
    *before, answer, complaint = shaped(asked(SYSTEM, USER), "grammar", Unfit(1, '{"größe": "big"}', MISFIT)).messages
    assert before == [SYSTEM, USER]
    assert (answer.role, answer.text, complaint.role) == ("assistant", '{"größe": "big"}', "user")
    assert "at /größe `type`" in complaint.text
    assert "'big' is not of type 'integer'" in complaint.text
    # Providers take no empty message.
    roles = [message.role for message in shaped(asked(USER), "openai", Unfit(1, "", MISFIT)).messages]
    assert roles == ["user", "user"]


@pytest.mark.parametrize(
    ("keyword", "finish_reason", "repairable", "reason", "says"),
    [
        ("type", "stop", True, "answer_does_not_fit", "does not fit its schema (`type`)"),
        ("json", "stop", True, "answer_does_not_fit", "is not JSON"),
        ("type", "length", True, "answer_does_not_fit", "(`type`)"),
        ("json", "length", False, "answer_cut_off", "raise max_tokens"),
        ("type", "content_filter", False, "answer_does_not_fit", "(`type`)"),
        ("deadline", "stop", False, "answer_does_not_fit", "make the patterns of the schema simpler"),
    ],
)
def test_what_is_asked_again_and_what_is_said_in_the_end(
    keyword: str, finish_reason: FinishReason, repairable: bool, reason: str, says: str
) -> None:
    misfit: Any = MISFIT.model_copy(update={"keyword": keyword})
    assert is_repairable(misfit, finish_reason) is repairable
    told, detail = verdict(misfit, finish_reason, 0)
    assert told == reason
    assert says in detail
    # The detail is logged and recorded; what was written stands in the sealed answer alone.
    assert "größe" not in detail
    assert "big" not in detail


def test_how_often_it_was_asked_for_is_said() -> None:
    assert "after it was asked for 3 times" in verdict(MISFIT, "stop", 2)[1]
