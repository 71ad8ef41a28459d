"""The API pages: every field says what it is, every operation what may go wrong and what it looks like."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.client import Client, Json
from tests.e2e.running import Up

pytestmark = pytest.mark.timeout(120)

OBJECTS, TEXT = "application/json", "text/plain"
DOORS = {
    "openai": ({(OBJECTS, "OpenAIErrorBody")}, "503"),
    "anthropic": ({(OBJECTS, "AnthropicErrorBody")}, "529"),
    "earlier: personas": ({(OBJECTS, "PersonaErrorBody"), (TEXT, "")}, "503"),
    "earlier: prompt": ({(OBJECTS, "DetailBody")}, "503"),
    "earlier: characters": ({(OBJECTS, "DetailBody")}, "503"),
    "earlier: sessions": ({(OBJECTS, "DetailBody")}, "503"),
}
"""Tags of operations that speak other protocols than ours; how they tell of errors, a media type and a schema, and the
status that says to come again later."""


@pytest.fixture
async def document(admin: Client) -> Json:
    return await admin.get("/openapi.json")


def operations(document: Json) -> Iterator[tuple[str, Json]]:
    for path, of_path in document["paths"].items():
        for method, operation in of_path.items():
            yield f"{method} {path}", operation


def schema_at(document: Json, schema: Json) -> Json:
    """``schema`` itself, or what it refers to."""
    if "$ref" not in schema:
        return schema
    found: Any = document
    for part in schema["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    assert isinstance(found, dict)
    return found


def parts(schema: Json) -> Iterator[Json]:
    """Schemas of what stands in an array, and of the ways that a value may be given."""
    yield from (*schema.get("anyOf", ()), *schema.get("oneOf", ()))
    if isinstance(schema.get("items"), dict):
        yield schema["items"]


def without_example(document: Json, schema: Json, where: str) -> Iterator[str]:
    """Fields of ``schema``, and of what it holds, that no example shows."""
    schema = schema_at(document, schema)
    if "examples" in schema or "example" in schema:
        return
    if "properties" in schema:
        for name, inner in schema["properties"].items():
            yield from without_example(document, inner, f"{where}.{name}")
        return
    within = [part for part in parts(schema) if "$ref" in part or "items" in part]
    if not within:
        yield where
    for part in within:
        yield from without_example(document, part, where)


async def test_every_field_says_what_it_is(document: Json) -> None:
    schemas = document["components"]["schemas"]
    assert len(schemas) > 10
    silent = [
        f"{name}.{field}"
        for name, schema in schemas.items()
        for field, described in schema.get("properties", {}).items()
        if not described.get("description")
    ]
    assert silent == []


async def test_every_operation_says_what_it_does_and_what_its_parameters_are(document: Json) -> None:
    for name, operation in operations(document):
        assert operation["summary"], name
        for parameter in operation.get("parameters", ()):
            described = parameter.get("description") or parameter["schema"].get("description")
            assert described, f"{name}: {parameter['name']}"


async def test_every_operation_documents_what_may_go_wrong(document: Json) -> None:
    for name, operation in operations(document):
        if "/v1/" not in name or DOORS.keys() & operation["tags"]:
            continue
        is_public = operation["security"] == []
        wanted = {"422", "503"} if is_public else {"401", "403", "422", "503"}
        if "{" in name:
            wanted.add("404")
        if "requestBody" in operation:
            wanted.add("413")
            wanted.add("415")
        assert is_public or operation["security"] == [{"api_key": []}, {"session": []}], name
        errors = {status: answer for status, answer in operation["responses"].items() if status[0] in "45"}
        assert wanted <= errors.keys(), name
        for answer in errors.values():
            assert answer["description"]
            assert answer["content"] == {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}
            }


async def test_every_operation_of_a_door_documents_what_may_go_wrong_there(document: Json) -> None:
    of_doors = [(name, operation) for name, operation in operations(document) if DOORS.keys() & operation["tags"]]
    assert of_doors
    assert {tag for _, operation in of_doors for tag in operation["tags"]} == DOORS.keys()
    for name, operation in of_doors:
        shapes, unavailable = DOORS[operation["tags"][0]]
        wanted = {"401", "403", unavailable} | ({"404"} if "{" in name else set())
        wanted |= {"400", "413", "429"} if "requestBody" in operation else set()
        errors = {status: answer for status, answer in operation["responses"].items() if status[0] in "45"}
        assert wanted <= errors.keys(), name
        for answer in errors.values():
            assert answer["description"]
            ((media_type, content),) = answer["content"].items()
            schema = content["schema"].get("$ref", "").rpartition("/")[2]
            assert (media_type, schema) in shapes, name


async def test_what_asks_by_a_signature_documents_what_may_go_wrong(document: Json) -> None:
    signed = [operation for name, operation in operations(document) if " /chat-tools/" in name]
    assert len(signed) == 3
    for operation in signed:
        assert operation["security"] == []
        assert {"400", "401", "413", "422", "503"} <= operation["responses"].keys()


async def test_every_answer_and_every_body_is_shown_by_an_example(document: Json) -> None:
    shown = 0
    for name, operation in operations(document):
        contents = [(f"{name} → {status}", answer) for status, answer in operation["responses"].items()]
        contents += [(f"{name} ←", operation[key]) for key in ("requestBody",) if key in operation]
        for where, holder in contents:
            for media_type, content in holder.get("content", {}).items():
                shown += 1
                if "example" not in content and "examples" not in content:
                    missing = list(without_example(document, content.get("schema", {}), f"{where} {media_type}"))
                    assert missing == []
    assert shown > 30


async def test_the_front_page_leads_to_the_pages(admin: Client, parley: Up) -> None:
    response = await admin.http.get("/")
    assert (response.status_code, response.headers["location"]) == (307, "/docs")
    page = await admin.http.get("/docs")
    assert page.status_code == 200
    assert "/openapi.json" in page.text
