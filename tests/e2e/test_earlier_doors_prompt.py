"""Clients of the system whose prompts were texts with places, as its examples are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.client import Client, eventually

pytestmark = pytest.mark.timeout(120)


def scripted(**script: Any) -> str:
    # A script in a text with places: its braces are no places.
    return f"script: {json.dumps(script)}"


EXAMPLE = {
    "config": {"temperature": "0.7", "top_p": 0.95, "max_tokens": "3"},
    "system": "You answer in {language}.",
    "user": "What is {subject}? " + scripted(echo=True),
    "template": "<s>[INST] {system} {user} [/INST]",
    "language": "French",
    "subject": "tea",
}


async def test_places_are_filled_and_the_object_comes_back_with_its_result(admin: Client) -> None:
    answer = await admin.http.post("/prompt", json=EXAMPLE)
    assert answer.status_code == 200, answer.text
    assert answer.json() == EXAMPLE | {"result": "What is tea?"}
    generation = await admin.generation(answer.headers["parley-generation-id"])
    assert generation["parameters"]["temperature"] == 0.7
    assert generation["parameters"]["max_tokens"] == 3
    conversation = await eventually(
        lambda: admin.get(f"/v1/conversations/{generation['conversation_id']}"), lambda found: bool(found["messages"])
    )
    assert conversation["messages"][0]["content"] == "You answer in French."


async def test_values_may_be_numbers_and_braces_that_are_no_places_stay(admin: Client) -> None:
    body = {"user": '{"a": {n}, "b": {x}} ' + scripted(echo=True), "n": 7, "x": True, "config": {}}
    answer = await admin.http.post("/prompt", json=body, headers={"Authorization": admin.key})
    assert answer.status_code == 200, answer.text
    assert answer.json()["result"].startswith('{"a": 7, "b": true}')


@pytest.mark.parametrize(
    ("changes", "field", "why"),
    [
        ({"subject": None}, "subject", "`user` has a place for it"),
        ({"system": "In {language}, for {whom}."}, "whom", "`system` has a place for it"),
        ({"subject": ["tea"]}, "subject", "neither text nor a number"),
        ({"config": {"temperature": "hot"}}, "config.temperature", "no number"),
        ({"config": {"temperature": 3}}, "config.temperature", "less than or equal to 2"),
        ({"config": {"top_k": 3}}, "config.top_k", "no such parameter"),
        ({"template": "{system} {mood} {user}"}, "template", "`{mood}`"),
        ({"user": "{subject}" * 11, "subject": "x" * 100_000}, "user", "more than 1000000 characters"),
        ({"user": 7}, "user", "valid string"),
    ],
)
async def test_what_is_not_filled_or_does_not_fit_is_named(
    admin: Client, changes: dict[str, Any], field: str, why: str
) -> None:
    refused = await admin.http.post("/prompt", json=EXAMPLE | changes)
    assert refused.status_code == 422, refused.text
    (wrong,) = refused.json()["detail"]
    assert (".".join(wrong["loc"]), why in wrong["msg"]) == (f"body.{field}", True), wrong


async def test_other_errors_have_a_detail(admin: Client) -> None:
    nobody = await admin.http.post("/prompt", json=EXAMPLE, headers={"Authorization": "none"})
    assert (nobody.status_code, nobody.json().keys()) == (401, {"detail"})
    failed = await admin.http.post("/prompt", json={"user": scripted(fail_after=0, fail_kind="refused")})
    assert (failed.status_code, failed.json().keys()) == (500, {"detail"})
    for content in (b"{", b'{"user": "a", "b": NaN}', b"[]"):
        broken = await admin.http.post("/prompt", content=content, headers={"Content-Type": "application/json"})
        assert broken.status_code == 422, broken.text
        assert broken.json()["detail"][0]["loc"][0] == "body"
