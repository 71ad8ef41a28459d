"""Answers of a given shape, over HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.client import Client

pytestmark = pytest.mark.timeout(120)

POINT = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"], "additionalProperties": False}
LARGE = 12345678901234567890123456789012345


def script(*attempts: list[str]) -> str:
    return json.dumps([{"tokens": tokens} for tokens in attempts])


async def submitted(client: Client, *attempts: list[str], **body: Any) -> str:
    accepted = await client.submit(
        "Where?", metadata={"script": script(*attempts)}, response_format={"json_schema": POINT}, **body
    )
    generation_id: str = accepted["generation_id"]
    return generation_id


async def test_the_value_is_in_the_stream_the_generation_and_the_message(admin: Client) -> None:
    fits = ["There: {\n", '"x": ', f"{LARGE}", "}", "."]
    generation_id = await submitted(admin, ["nowhere"], fits)
    events = [event async for event in admin.stream(generation_id)]
    assert [event.event for event in events if event.event in ("started", "restarted", "completed")][-1] == "completed"
    assert json.loads(events[-1].data)["parsed"] == {"x": LARGE}
    ended = await admin.ended(generation_id)
    assert (ended["attempt"], ended["parsed"], ended["misfit"]) == (2, {"x": LARGE}, None)
    assert ended["content"] == "".join(fits)
    messages = await admin.messages(ended["conversation_id"])
    assert [message["parsed"] for message in messages] == [None, {"x": LARGE}]
    # Once it has ended, another reader is told the same, from the record or the stream.
    late = [event async for event in admin.stream(generation_id)]
    assert json.loads(late[-1].data)["parsed"] == {"x": LARGE}


async def test_what_never_fits_says_where_and_keeps_what_was_written(admin: Client) -> None:
    generation_id = await submitted(admin, ['{"x": "one"}'], repairs=0)
    ended = await admin.ended(generation_id)
    assert (ended["status"], ended["reason"], ended["attempt"]) == ("failed", "answer_does_not_fit", 1)
    assert (ended["content"], ended["parsed"]) == ('{"x": "one"}', None)
    assert ended["misfit"] == {"path": "/x", "keyword": "type", "message": "'one' is not of type 'integer'"}


@pytest.mark.parametrize(
    ("schema", "type", "told"),
    [
        ({"$ref": "http://127.0.0.1:1/schema.json"}, "invalid-schema", "`$ref` at the root"),
        ({"properties": {"a": {"minLenght": 3}}}, "invalid-schema", "`minLenght` at /properties/a"),
    ],
)
async def test_what_is_no_schema_is_refused_before_it_is_queued(
    admin: Client, schema: dict[str, Any], type: str, told: str
) -> None:
    response = await admin.post_prompt("Where?", response_format={"json_schema": schema})
    assert response.status_code == 422
    problem = response.json()
    assert problem["type"] == f"urn:parley:problem:{type}"
    (error,) = problem["errors"]
    assert error["field"] == "body.response_format.json_schema"
    assert told in error["message"]
