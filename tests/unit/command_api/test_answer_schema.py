from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from backplane.settings import PoolSettings, Settings
from backplane.settings.answer_schemas import ANNOTATIONS, ASSERTIONS, EXPRESSIBLE, Way
from command_api import schema_values
from command_api.admission import Refused, admit
from command_api.answer_schema import AnswerSchema, SchemaFault
from command_api.plain_pattern import is_plain
from command_api.prompt import PromptBody

DRAFT_07 = "http://json-schema.org/draft-07/schema#"
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"value": {"type": "integer"}, "next": {"$ref": "#/$defs/node"}},
            "additionalProperties": False,
            "required": ["value"],
        }
    },
    "$ref": "#/$defs/node",
}
CLOSED = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"type": "text"}, "`type` at the root"),
        ({"properties": {"a": {"minLength": "1"}}}, "`minLength` at /properties/a"),
        ({"properties": {"a/b~": {"minimum": None}}}, "`minimum` at /properties/a~1b~0"),
        ({"anyOf": [{}, {"required": ["a", "a"]}]}, "`required` at /anyOf/1"),
        ({"anyOf": []}, "`anyOf` at the root"),
        ({"allOf": [3]}, "`allOf` at the root"),
        ({"multipleOf": 0}, "`multipleOf` at the root"),
        ({"minLenght": 3}, "`minLenght` at the root: it is no keyword"),
        ({"$id": "https://example.com/a"}, "`$id` at the root: it is no keyword"),
        ({"$schema": "http://json-schema.org/draft-04/schema#"}, "`$schema` at the root: the dialect has to be"),
        (
            {"$schema": DRAFT_07, "definitions": {"a": {}}, "items": {"$ref": "#/definitions/a", "minLength": 3}},
            "`$ref` at /items: `minLength` beside it binds nothing in draft-07",
        ),
        ({"$schema": DRAFT_07, "items": [{"type": "string"}]}, "`items` at the root"),
        ({"items": {"$ref": "https://example.com/schema.json"}}, "`$ref` at /items: it has to lead to a place in this"),
        ({"$ref": "other.json#/a"}, "`$ref` at the root: it has to lead to a place in this"),
        ({"$ref": "#/$defs/missing"}, "`$ref` at the root: there is no schema at #/$defs/missing"),
        ({"$ref": "#/const", "const": {"type": "string"}}, "there is no schema at #/const"),
        ({"$ref": "#"}, "`$ref` at the root: it leads back to itself"),
        ({"$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"not": {"$ref": "#/$defs/a"}}}}, "leads back"),
        ({"pattern": "("}, "`pattern` at the root: it is no regular expression"),
        ({"patternProperties": {"*": {}}}, "`patternProperties` at the root: it is no regular expression"),
        ({"pattern": "a" * 1001}, "`pattern` at the root: the limit is 1000 characters"),
        (nested(40), "`schema` at /items/items"),
        ({"const": {"a": nested(80)}}, "it is more than 32 levels deep"),
        ({"description": "x" * 70_000}, "the limit is 65536"),
        ({"enum": [*range(1001)]}, "`enum` at the root: the limit is 1000 values"),
        ({"properties": {f"p{n}": {} for n in range(1001)}}, "`properties` at the root: there are 1001"),
        ({"maximum": float("inf")}, "larger than JSON can carry"),
    ],
)
def test_what_is_no_schema_is_refused_by_keyword_and_place(schema: dict[str, Any], told: str) -> None:
    with pytest.raises(SchemaFault) as fault:
        AnswerSchema(schema)
    assert told in str(fault.value)
    assert not fault.value.inexpressible


@pytest.mark.parametrize(
    "schema",
    [
        {},
        TREE,
        CLOSED,
        nested(31),
        {"items": {"$ref": "#"}},
        {"$ref": "#/$defs/a%7E1b", "$defs": {"a/b": {}}},
        {"$schema": DRAFT_07, "$ref": "#/definitions/a", "description": "One.", "definitions": {"a": CLOSED}},
    ],
)
def test_what_is_one_is_taken(schema: dict[str, Any]) -> None:
    AnswerSchema(schema)


def test_the_tables_name_the_same_keywords() -> None:
    assert schema_values.TAKEN.keys() == ASSERTIONS | ANNOTATIONS
    assert all(can.keywords <= ASSERTIONS for can in EXPRESSIBLE.values())


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.sampled_from(["string", "a", "^a$"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
    max_leaves=6,
)


@given(st.sampled_from(sorted(schema_values.TAKEN.keys() - {"discriminator"})), _JSON)
@example("type", ["string", "string"])
@example("minLength", -1)
@example("multipleOf", 0.0)
def test_keywords_take_what_the_metaschema_takes(keyword: str, value: Any) -> None:
    try:
        Draft202012Validator.check_schema({keyword: value}, format_checker=None)
        valid = True
    except SchemaError:
        valid = False
    taken = schema_values.fault(keyword, value) is None
    if taken and not valid:
        # Schemas within are looked at one by one.
        assert any(isinstance(each, dict) and each for each in _inner(value))
    if valid and not taken:
        assert isinstance(value, float), "1.0 is no number of items here"


def _inner(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [value, *value.values()]
    return value if isinstance(value, list) else []


@pytest.mark.parametrize(
    ("way", "schema", "told"),
    [
        ("grammar", {"type": "array", "uniqueItems": True}, "`uniqueItems` at the root"),
        ("grammar", {"properties": {"a": {"not": {}}}}, "`not` at /properties/a"),
        ("grammar", {"type": "string", "format": "regex"}, "`format` at the root"),
        ("grammar", {"pattern": "^(?!a)b$"}, "`pattern` at the root"),
        ("grammar", {"oneOf": [{"type": "integer"}, {"type": "number"}]}, "`oneOf` at the root"),
        ("grammar", {"oneOf": [{"const": 1}, {"const": 1.0}]}, "`oneOf` at the root"),
        ("grammar", {"items": {"minimum": 3, "maximum": 2}}, "`minimum` at /items"),
        ("grammar", {"exclusiveMinimum": 3, "maximum": 3}, "`exclusiveMinimum` at the root"),
        ("grammar", {"enum": []}, "`enum` at the root"),
        ("grammar", {"type": "integer", "minimum": 1.2, "maximum": 1.8}, "`minimum` at the root"),
        ("grammar", {"multipleOf": 7, "maximum": -7}, "`multipleOf` at the root"),
        ("grammar", {"required": ["a"], "additionalProperties": False}, "`required` at the root"),
        ("grammar", {"minimum": 2**53 + 1}, "`minimum` at the root"),
        ("grammar", {"enum": [1, -(2**54)]}, "`enum` at the root"),
        ("grammar", {"items": {"maxLength": 8000}, "maxItems": 200}, "`maxLength` at /items"),
        ("grammar", {"type": "object", "properties": {"a": {"$ref": "#", "minProperties": 1}}}, "/properties/a"),
        (
            "grammar",
            {"type": "object", "properties": {"a": {"$ref": "#", "type": "object"}}},
            "`type` at /properties/a",
        ),
        ("openai_strict", {"type": "array"}, "`type` at the root"),
        ("openai_strict", {**CLOSED, "required": []}, "`required` at the root: it has to name a"),
        ("openai_strict", {"type": "object"}, "`additionalProperties` at the root"),
        ("openai_strict", {**CLOSED, "allOf": [{}]}, "`allOf` at the root"),
        ("anthropic", {"type": "integer", "minimum": 1}, "`minimum` at the root"),
        ("anthropic", {"type": "array", "minItems": 2}, "`minItems` at the root"),
        ("anthropic", TREE, "`$ref` at /$defs/node"),
        ("anthropic", {"enum": [{}]}, "`enum` at the root"),
    ],
)
def test_what_a_model_cannot_be_held_to_is_named(way: Way, schema: dict[str, Any], told: str) -> None:
    asked = AnswerSchema(schema)
    with pytest.raises(SchemaFault) as fault:
        asked.check(EXPRESSIBLE[way])
    assert told in str(fault.value)
    assert fault.value.inexpressible
    asked.check(EXPRESSIBLE["instruction"])
    asked.check(EXPRESSIBLE["openai"])


@pytest.mark.parametrize(
    ("way", "schema"),
    [
        ("grammar", TREE),
        ("grammar", {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}}),
        ("grammar", {"oneOf": [{"type": "integer"}, {"type": "string"}]}),
        (
            "grammar",
            {
                "$defs": {
                    name: {"type": "object", "properties": {"kind": {"const": name}}, "required": ["kind"]}
                    for name in ("cat", "dog")
                },
                "oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}],
                "discriminator": {"propertyName": "kind"},
            },
        ),
        ("openai_strict", CLOSED),
        ("anthropic", CLOSED),
    ],
)
def test_what_a_model_can_be_held_to_is_taken(way: Way, schema: dict[str, Any]) -> None:
    AnswerSchema(schema).check(EXPRESSIBLE[way])


@pytest.mark.parametrize(
    ("pattern", "plain"),
    [
        ("^a+$", True),
        ("a|b", True),
        (r"^(?:a\.b){2,3}[$^()\d]$", True),
        (r"[]a]", True),
        (r"^\d\w\s\$$", True),
        (r"^(?=a)", False),
        (r"(?P<a>b)", False),
        (r"(a)\1", False),
        (r"\ba", False),
        (r"^a|^b", False),
        (r"a$b", False),
        (r"[\b]", False),
        (r"[a&&b]", False),
        (r"[[a]]", False),
        (r"\cA", False),
        (r"\h", False),
        (r"a{,3}", False),
        (r"a++", False),
        (r"a+?b*?", True),
        (r"a{2}{3}", False),
        (r"^\u0041\x41\-$", True),
        (r"^.{3}(a|b|)$", True),
        (r"^$", True),
        (r"a\\$", False),
        (r"a\$", True),
    ],
)
def test_a_plain_pattern_is_followed_one_character_after_the_other(pattern: str, plain: bool) -> None:
    assert is_plain(pattern) is plain


def admitted(backend: str, response_format: dict[str, Any], without: list[str] | None = None, **body: Any) -> None:
    pool = {"backend": backend, "models": ["m"], "without": without or []}
    settings = Settings(pools={"a": PoolSettings.model_validate(pool)})
    admit(PromptBody.model_validate({"input": "a", "response_format": response_format, **body}), settings)


@pytest.mark.parametrize(
    ("backend", "schema", "strict", "without", "type"),
    [
        ("scripted", {"uniqueItems": True}, None, [], None),
        ("xllamacpp", {"uniqueItems": True}, None, [], "unsupported-by-model"),
        ("xllamacpp", {"uniqueItems": True}, None, ["json_schema"], None),
        ("openai", {"uniqueItems": True}, None, [], None),
        ("openai", {"uniqueItems": True}, True, [], "unsupported-by-model"),
        ("openai", {"uniqueItems": True}, True, ["json_schema"], None),
        ("anthropic", {"uniqueItems": True}, None, [], "unsupported-by-model"),
        ("scripted", {"uniqueItems": 3}, None, [], "invalid-schema"),
    ],
)
def test_a_schema_is_held_against_the_pool_that_is_asked(
    backend: str, schema: dict[str, Any], strict: bool | None, without: list[str], type: str | None
) -> None:
    given = {"json_schema": schema, "strict": strict}
    if type is None:
        admitted(backend, given, without)
        return
    with pytest.raises(Refused, match="`uniqueItems` at the root") as refused:
        admitted(backend, given, without)
    assert (refused.value.type, refused.value.field) == (type, "body.response_format.json_schema")


def test_repairs_need_a_schema() -> None:
    admitted("scripted", {"json_schema": {}}, repairs=5)
    settings = Settings(pools={"a": PoolSettings(backend="scripted", models=("m",))})
    with pytest.raises(Refused, match="nothing to repair"):
        admit(PromptBody.model_validate({"input": "a", "repairs": 1}), settings)
