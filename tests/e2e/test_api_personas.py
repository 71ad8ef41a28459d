"""Personas as admins save them and prompts are asked as them."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.client import Client, Json, eventually
from tests.e2e.conftest import Callers
from tests.e2e.running import Up, until

TRANSLATOR: Json = {
    "description": "Translates what it is given.",
    "system": "Translate into {language}.",
    "prompt": "Text: {input}",
    "greeting": "What shall I translate?",
    "variables": [{"name": "language", "type": "choice", "choices": ["French", "German"]}],
    "parameters": {"temperature": 0.2, "max_tokens": 50, "stop": ["END"]},
}


async def save(admin: Client, name: str, code: int = 201, **definition: Any) -> Json:
    answer = await admin.http.post("/v1/personas", json={"name": name, "definition": definition})
    assert answer.status_code == code, answer.text
    found: Json = answer.json()
    return found


async def said(client: Client, accepted: Json) -> list[tuple[str, str]]:
    """Role and text of all that people and personas wrote in the conversation."""
    await client.ended(accepted["generation_id"])
    messages = await client.messages(accepted["conversation_id"])
    return [(one["role"], one["content"]) for one in messages if one["status"] == "complete"]


def problem(answer: httpx.Response, code: int = 422) -> Json:
    assert answer.status_code == code, answer.text
    found: Json = answer.json()
    return found


async def test_a_conversation_begins_as_a_persona_and_stays_on_its_version(callers: Callers) -> None:
    tenant_id = await callers.tenant()
    admin, member = await callers.caller(tenant_id, "admin"), await callers.caller(tenant_id, "member", "ada")
    assert (await save(admin, "translator", **TRANSLATOR))["version"] == 1
    first = await member.submit("Tea, {please}", persona="translator", variables={"language": "French"})
    assert await said(member, first) == [
        ("system", "Translate into French."),
        ("assistant", "What shall I translate?"),
        ("user", "Text: Tea, {please}"),
    ]
    generation = await member.generation(first["generation_id"])
    assert (generation["persona"], generation["persona_version"], generation["model"]) == ("translator", 1, "script")
    assert {name: generation["parameters"][name] for name in ("temperature", "max_tokens", "stop")} == {
        "temperature": 0.2,
        "max_tokens": 50,
        "stop": ["END"],
    }
    # Words of all that it was shown: three, four, and three.
    assert generation["usage"]["input_tokens"] == 10

    saved = await save(admin, "translator", **{**TRANSLATOR, "prompt": "New: {input}"})
    assert (saved["version"], saved["is_new"]) == (2, True)
    second = await member.submit("Milk", conversation_id=first["conversation_id"])
    assert (await said(member, second))[3:] == [("user", "Text: Milk")]
    assert (await member.generation(second["generation_id"]))["persona_version"] == 1

    french = {"language": "German"}
    third = await member.submit(
        "Salt", conversation_id=first["conversation_id"], persona="translator", variables=french
    )
    assert (await said(member, third))[4:] == [("system", "Translate into German."), ("user", "New: Salt")]
    conversation = await member.get(f"/v1/conversations/{first['conversation_id']}")
    assert (conversation["persona"], conversation["persona_version"]) == ("translator", 2)

    # What follows the first answer goes on as that was asked.
    beside = await member.submit("Rum", parent_message_id=first["message_id"], parameters={"temperature": 1})
    assert (await said(member, beside))[-1] == ("user", "Text: Rum")
    generation = await member.generation(beside["generation_id"])
    assert (generation["persona_version"], generation["parameters"]["temperature"]) == (1, 1)

    plain = await member.submit("Bye", parent_message_id=third["message_id"], persona=None)
    assert (await said(member, plain))[-2:] == [("system", ""), ("user", "Bye")]
    generation = await member.generation(plain["generation_id"])
    assert (generation["persona"], generation["persona_version"]) == (None, None)
    usage = await admin.get("/v1/usage", group_by="persona")
    assert {group["group"]: group["generations"] for group in usage["groups"]} == {"translator": 4, None: 1}
    of_persona = await admin.get("/v1/usage", group_by="model", persona="translator")
    assert [group["generations"] for group in of_persona["groups"]] == [4]


async def test_a_fork_keeps_the_persona_and_has_its_words_anew_where_they_were_erased(admin: Client) -> None:
    await save(admin, "clerk", system="Be brief.")
    first = await admin.submit("One", persona="clerk")
    await admin.ended(first["generation_id"])
    plain = await admin.submit("Two", conversation_id=first["conversation_id"], persona=None)
    await admin.ended(plain["generation_id"])

    async def forked(**body: str) -> Json:
        answer = await admin.http.post(f"/v1/conversations/{first['conversation_id']}/fork", json=body)
        assert answer.status_code == 201, answer.text
        return await admin.get(f"/v1/conversations/{answer.json()['conversation_id']}")

    assert (await forked())["persona"] is None
    fork = await forked(message_id=first["message_id"])
    assert (fork["persona"], fork["persona_version"]) == ("clerk", 1)
    went_on = await admin.submit("Three", conversation_id=fork["id"])
    assert [text for role, text in await said(admin, went_on) if role == "system"] == ["Be brief."]
    generation = await admin.generation(went_on["generation_id"])
    assert (generation["persona"], generation["persona_version"]) == ("clerk", 1)

    assert (await admin.http.post(f"/v1/conversations/{first['conversation_id']}/erase")).status_code == 204
    after = await admin.submit("Four", conversation_id=fork["id"])
    assert (await said(admin, after))[-2:] == [("system", "Be brief."), ("user", "Four")]


@pytest.mark.parametrize(
    ("body", "kind", "field"),
    [
        ({}, "missing-variable", "body.variables.language"),
        ({"variables": {"language": "Dutch"}}, "invalid-variable", "body.variables.language"),
        ({"variables": {"language": "French", "town": "x"}}, "unknown-variable", "body.variables.town"),
        ({"system": "Be rude."}, "system-of-persona", "body.system"),
        ({"persona": None, "variables": {"a": 1}}, "unknown-variable", "body.variables"),
    ],
)
async def test_a_prompt_that_does_not_fit_is_refused_by_name(admin: Client, body: Json, kind: str, field: str) -> None:
    await save(admin, "translator", **TRANSLATOR)
    found = problem(await admin.post_prompt("Tea", **{"persona": "translator", **body}))
    assert found["type"].endswith(f":{kind}")
    assert [one["field"] for one in found["errors"]] == [field]
    if kind == "missing-variable":
        assert "system, line 1, column 16" in found["detail"]


async def test_who_may_ask_as_a_persona(callers: Callers) -> None:
    tenant_id = await callers.tenant()
    admin = await callers.caller(tenant_id, "admin")
    ada, bob = await callers.caller(tenant_id, "member", "ada"), await callers.caller(tenant_id, "member", "bob")
    ada_id = (await ada.get("/v1/session"))["user_id"]
    await save(admin, "private", users=[ada_id], system="secret")
    await save(admin, "open")
    assert problem(await bob.post_prompt("a", persona="private"), 403)["type"].endswith(":persona-not-allowed")
    await ada.submit("a", persona="private")
    assert [one["name"] for one in (await ada.get("/v1/personas"))["personas"]] == ["open", "private"]
    assert [one["name"] for one in (await bob.get("/v1/personas"))["personas"]] == ["open"]
    assert (await bob.http.get("/v1/personas/private")).status_code == 404
    assert "secret" not in json.dumps(await ada.get("/v1/personas/private"))
    for path in ("versions", "versions/1", "compare?from=1", "export"):
        assert (await ada.http.get(f"/v1/personas/private/{path}")).status_code == 403

    key = await admin.http.post("/v1/api-keys", json={"personas": ["open"], "role": "member"})
    limited = await callers.with_key(key.json()["key"])
    for body in ({}, {"persona": None}, {"persona": "private"}):
        assert problem(await limited.post_prompt("a", **body), 403)["type"].endswith(":persona-not-allowed")
    accepted = await limited.submit("a", persona="open")
    await limited.submit("b", conversation_id=accepted["conversation_id"])
    left = await limited.post_prompt("b", conversation_id=accepted["conversation_id"], persona=None)
    assert problem(left, 403)["type"].endswith(":persona-not-allowed")


async def test_versions_are_compared_restored_and_not_made_twice(admin: Client) -> None:
    await save(admin, "clerk", system="one", parameters={"temperature": 0.1})
    await save(admin, "clerk", system="two", parameters={"top_p": 0.5})
    assert await save(admin, "clerk", system="two", parameters={"top_p": 0.5}) | {"persona_id": ""} == {
        "persona_id": "",
        "name": "clerk",
        "version": 2,
        "is_new": False,
        "unused_variables": [],
        "notices": [],
    }
    compared = await admin.get("/v1/personas/clerk/compare", **{"from": 1, "to": 2})
    assert compared == {
        "before": 1,
        "after": 2,
        "changes": [
            {"field": "parameters.temperature", "before": 0.1, "after": None},
            {"field": "parameters.top_p", "before": None, "after": 0.5},
            {"field": "system", "before": "one", "after": "two"},
        ],
    }
    restored = await admin.http.post("/v1/personas/clerk/restore", json={"version": 1, "expected_version": 2})
    assert restored.json()["version"] == 3
    assert (await admin.get("/v1/personas/clerk/compare", **{"from": 1, "to": 3}))["changes"] == []
    late = await admin.http.post("/v1/personas/clerk/restore", json={"version": 2, "expected_version": 2})
    for endless in ({"version": 2**60}, {"version": 1, "expected_version": 2**60}):
        assert (await admin.http.post("/v1/personas/clerk/restore", json=endless)).status_code == 422
    assert problem(late, 409)["version"] == 3
    for expected, code in ((0, 409), (2, 409), (3, 201)):
        body = {"name": "clerk", "definition": {"system": f"{expected}"}, "expected_version": expected}
        assert (await admin.http.post("/v1/personas", json=body)).status_code == code
    versions = (await admin.get("/v1/personas/clerk/versions"))["versions"]
    assert [one["version"] for one in versions] == [4, 3, 2, 1]
    told = await admin.events(type="persona.saved.v1")
    assert [one["data"]["version"] for one in told] == [1, 2, 3, 4]
    assert all(one["data"]["content"].keys() == {"commitment", "sealed"} for one in told)


async def test_what_was_removed_is_read_by_nobody_and_asked_as_by_nobody(admin: Client) -> None:
    await save(admin, "clerk", system="Be brief.", limits={"requests_per_minute": 100})
    accepted = await admin.submit("a", persona="clerk")
    assert [(one["dimension"], one["subject"]) for one in (await admin.get("/v1/limits"))["items"]] == [
        ("persona", "clerk")
    ]
    assert (await admin.http.delete("/v1/personas/clerk")).status_code == 204
    assert (await admin.get("/v1/limits"))["items"] == []
    for path in ("", "/versions", "/versions/1", "/export"):
        asked = partial(admin.http.get, f"/v1/personas/clerk{path}")
        assert (await eventually(asked, lambda answer: answer.status_code != 503)).status_code == 404
    assert (await admin.http.delete("/v1/personas/clerk")).status_code == 404
    refused = await eventually(
        lambda: admin.post_prompt("a", persona="clerk"), lambda answer: answer.status_code != 202
    )
    assert problem(refused, 404)["type"].endswith(":not-found")
    there = {"conversation_id": accepted["conversation_id"]}
    assert problem(await admin.post_prompt("b", **there))["type"].endswith(":persona-removed")
    on = await admin.submit("b", persona=None, **there)
    assert ("user", "b") in await said(admin, on)
    assert (await save(admin, "clerk", system="Be long."))["version"] == 1
    assert [one["version"] for one in (await admin.get("/v1/personas/clerk/versions"))["versions"]] == [1]


async def test_a_personas_own_limit_holds(admin: Client) -> None:
    await save(admin, "clerk", limits={"requests_per_minute": 2})
    for _ in range(2):
        await admin.submit("a", persona="clerk")
    refused = problem(await admin.post_prompt("a", persona="clerk"), 429)
    assert (refused["dimension"], refused["subject"]) == ("persona", "clerk")
    await admin.submit("a")
    (shown,) = (await admin.get("/v1/limits"))["items"]
    assert shown["use"]["requests_per_minute"]["used"] == 2


async def test_a_prompt_is_previewed_and_no_model_is_asked(admin: Client) -> None:
    body = {"definition": TRANSLATOR, "input": "Tea"}
    shown = await admin.http.post("/v1/personas/preview", json=body)
    assert shown.status_code == 200, shown.text
    assert [one["content"] for one in shown.json()["messages"]] == [
        "Translate into French.",
        "What shall I translate?",
        "Text: Tea",
    ]
    assert (shown.json()["samples"], shown.json()["counted_by"]) == ({"language": "French"}, "estimate")
    await save(admin, "translator", **TRANSLATOR)
    saved = await admin.http.post("/v1/personas/translator/preview", json={"variables": {"language": "German"}})
    assert saved.json()["messages"][0]["content"] == "Translate into German."
    bad = await admin.http.post("/v1/personas/preview", json={"definition": {"system": "In\n{town}"}})
    assert problem(bad)["errors"][0]["field"] == "body.definition.system"
    assert "`town`" in problem(bad)["detail"]
    assert "line 2, column 1" in problem(bad)["detail"]
    assert await admin.events(type="prompt.submit.v3") == []


@pytest.mark.parametrize("format", ["json", "yaml"])
async def test_what_is_exported_imports_as_it_is(admin: Client, format: str) -> None:
    await save(admin, "translator", **TRANSLATOR)
    file = (await admin.http.get("/v1/personas/translator/export", params={"format": format})).text
    assert yaml.safe_load(file)["name"] == "translator"  # JSON is YAML, too
    again = await admin.http.post("/v1/personas/import", json={"file": file})
    assert (again.status_code, again.json()["is_new"]) == (201, False)
    other = await admin.http.post("/v1/personas/import", json={"file": file, "name": "other"})
    assert (other.json()["name"], other.json()["is_new"]) == ("other", True)
    old = {"config": {"temperature": "0.7"}, "system": "Be brief.", "user": "{input}", "template": "<s>"}
    imported = await admin.http.post("/v1/personas/import", json={"file": json.dumps(old), "file_name": "old.json"})
    assert (imported.json()["name"], len(imported.json()["notices"])) == ("old", 1)
    wrong = await admin.http.post("/v1/personas/import", json={"file": "system: [a"})
    assert problem(wrong)["type"].endswith(":unusable-file")


async def test_what_cannot_be_asked_as_is_not_saved(admin: Client) -> None:
    assert (await save(admin, "clerk", 422, model="nobody"))["type"].endswith(":unknown-model")
    assert (await save(admin, "Clerk!", 422))["type"].endswith(":invalid-request")
    assert (await save(admin, "clerk", 404, users=["01990f6e-0000-7000-8000-000000000001"]))["detail"]
    found = await save(admin, "clerk", 422, language="jinja", system="{{ ''.__class__ }}")
    assert found["type"].endswith(":invalid-persona")
    assert (await admin.get("/v1/personas"))["personas"] == []


async def test_a_repeat_is_the_same_prompt_although_its_persona_was_removed(admin: Client) -> None:
    await save(admin, "clerk")
    first = await admin.post_prompt("a", persona="clerk", idempotency_key="k")
    assert (await admin.http.delete("/v1/personas/clerk")).status_code == 204
    again = await admin.post_prompt("a", persona="clerk", idempotency_key="k")
    assert (again.status_code, again.json()) == (202, first.json())


@pytest.mark.timeout(300)  # a dozen processes, one after another
def test_files_are_saved_at_start_and_by_the_command_line(parley: Up, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("personas")
    file = folder / "guide.yaml"
    file.write_text("system: You know {place}.\nvariables: [{name: place, default: Bonn}]\n")
    (folder / "bad.json").write_text("{")
    told = parley.parley("persona", "load", str(folder), code=1)
    assert "guide@1" in told
    assert "bad.json" in told
    (folder / "bad.json").unlink()
    assert parley.parley("persona", "load", str(folder)) == ""
    file.write_text(file.read_text().replace("You know", "You love"))
    parley.parley("persona", "load", str(folder))
    listed = [json.loads(line) for line in parley.parley("persona", "list").splitlines()]
    assert [(one["name"], one["version"]) for one in listed if one["name"] == "guide"] == [("guide", 2)]
    assert json.loads(parley.parley("persona", "show", "guide", "--version", "1"))["system"] == "You know {place}."
    assert "You love Bonn." in parley.parley("persona", "preview", "guide", "--input", "Hi")
    exported = parley.parley("persona", "export", "guide", "--format", "yaml")
    assert yaml.safe_load(exported)["system"] == "You love {place}."
    file.write_text(exported)
    assert parley.parley("persona", "save", str(file), "--name", "guide-two").strip() == "guide-two@1"
    until(lambda: parley.get("/v1/personas/guide").json().get("version") == 2, "it is not shown")
    parley.parley("persona", "remove", "guide")
    assert "guide" in parley.parley("persona", "show", "guide", code=1)


async def test_a_saved_persona_is_seen_by_every_process_at_once(admin: Client) -> None:
    await save(admin, "clerk", system="one")
    await admin.submit("a", persona="clerk")
    await save(admin, "clerk", system="two")

    async def newest() -> list[tuple[str, str]]:
        return await said(admin, await admin.submit("a", persona="clerk"))

    assert (await eventually(newest, lambda found: found[0] == ("system", "two")))[1] == ("user", "a")
