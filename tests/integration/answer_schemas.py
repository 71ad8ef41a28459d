"""Schemas of growing difficulty, and such as llama.cpp cannot be held to."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

WORD: Schema = {"type": "string", "minLength": 1, "maxLength": 12}


def closed(**properties: Any) -> Schema:
    """An object of just these."""
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def kind(name: str, /, **properties: Any) -> Schema:
    """An object that says of which kind it is."""
    return closed(kind={"const": name}, **properties)


_TREE = {
    "type": "object",
    "properties": {
        "value": {"type": "integer", "minimum": 0, "maximum": 9},
        "children": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2},
    },
    "required": ["value"],
    "additionalProperties": False,
}

TAKEN: dict[str, Schema] = {
    # One value.
    "null": {"type": "null"},
    "a boolean": {"type": "boolean"},
    "a constant": {"const": {"version": [1, 2.5, None]}},
    "an enum": {"enum": ["north", "east", "south", "west"]},
    "an enum of mixed values": {"enum": [1, "one", [1], {"one": 1}]},
    "a bounded integer": {"type": "integer", "minimum": 18, "maximum": 99},
    "a bounded number": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1, "multipleOf": 0.001},
    "a multiple": {"type": "integer", "multipleOf": 7, "minimum": -70, "maximum": 70},
    "a bounded string": {"type": "string", "minLength": 5, "maxLength": 20},
    "a pattern": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}(?:-[a-z]+)?$", "maxLength": 16},
    "a pattern within": {"type": "string", "pattern": "colou?r", "maxLength": 24},
    "a date": {"type": "string", "format": "date"},
    "an address by number": {"type": "string", "format": "ipv4"},
    "a uuid": {"type": "string", "format": "uuid"},
    # One level.
    "an object": closed(name=WORD, age={"type": "integer", "minimum": 0, "maximum": 120}),
    "an object with what may be missing": {
        "type": "object",
        "properties": {"name": WORD, "nick": WORD, "admin": {"type": "boolean"}},
        "required": ["name"],
        "additionalProperties": False,
    },
    "a map": {
        "type": "object",
        "properties": {"total": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["total"],
        "additionalProperties": {"const": True},
    },
    "an array": {
        "type": "array",
        "items": {"type": "integer", "minimum": 0, "maximum": 50},
        "minItems": 3,
        "maxItems": 5,
    },
    "a tuple": {
        "type": "array",
        "prefixItems": [WORD, {"type": "integer", "minimum": 0, "maximum": 99}],
        "items": {"type": "boolean"},
        "minItems": 3,
        "maxItems": 4,
    },
    "a nullable": closed(email={"type": ["string", "null"], "maxLength": 12}),
    # Several.
    "nested arrays": {
        "type": "array",
        "items": {"type": "array", "items": {"enum": [0, 1]}, "minItems": 3, "maxItems": 3},
        "minItems": 3,
        "maxItems": 3,
    },
    "nested objects": closed(order=closed(id={"type": "integer", "minimum": 1, "maximum": 999}, to=closed(city=WORD))),
    "a union of types": closed(
        value={"anyOf": [{"type": "integer", "maximum": 9, "minimum": 0}, WORD, {"type": "null"}]}
    ),
    "a union of objects": {
        "oneOf": [kind("circle", radius={"type": "integer", "minimum": 1, "maximum": 9}), kind("dot")]
    },
    "a union told apart behind references": {
        "$defs": {
            "cat": kind("cat", lives={"type": "integer", "minimum": 1, "maximum": 9}),
            "dog": kind("dog", name=WORD),
        },
        "type": "array",
        "items": {
            "oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}],
            "discriminator": {"propertyName": "kind"},
        },
        "minItems": 1,
        "maxItems": 2,
    },
    "an intersection": {
        "definitions": {"named": {"type": "object", "properties": {"name": WORD}, "required": ["name"]}},
        "allOf": [
            {"$ref": "#/definitions/named"},
            {"properties": {"size": {"enum": ["s", "m", "l"]}}, "required": ["size"]},
        ],
        "properties": {"name": True, "size": True},
        "additionalProperties": False,
    },
    "an array of objects": {
        "type": "array",
        "items": closed(sku={"type": "string", "pattern": "^[A-Z]{3}[0-9]{3}$"}, count={"enum": [1, 2, 3]}),
        "minItems": 2,
        "maxItems": 3,
    },
    "a list that contains itself": {
        "type": "object",
        "properties": {"value": {"enum": [1, 2]}, "next": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}},
        "required": ["value", "next"],
        "additionalProperties": False,
    },
    "a tree": {"$defs": {"tree": _TREE}, "$ref": "#/$defs/tree"},
    "an expression": {
        "$defs": {
            "expression": {
                "anyOf": [
                    {"type": "integer", "minimum": 0, "maximum": 9},
                    closed(op={"enum": ["+", "*"]}, of={"$ref": "#/$defs/operands"}),
                ]
            },
            "operands": {"type": "array", "items": {"$ref": "#/$defs/expression"}, "minItems": 2, "maxItems": 2},
        },
        **closed(expression={"$ref": "#/$defs/expression"}, exact={"type": "boolean"}),
    },
}

REFUSED: dict[str, Schema] = {
    "not": {"not": {"type": "string"}},
    "if": {"if": {"type": "string"}},
    "then": {"then": {"minLength": 2}},
    "else": {"else": {"minimum": 2}},
    "uniqueItems": {"type": "array", "uniqueItems": True},
    "contains": {"type": "array", "contains": {"const": 1}},
    "minContains": {"type": "array", "minContains": 2},
    "maxContains": {"type": "array", "maxContains": 2},
    "propertyNames": {"type": "object", "propertyNames": {"maxLength": 3}},
    "dependentRequired": {"type": "object", "dependentRequired": {"a": ["b"]}},
    "dependentSchemas": {"type": "object", "dependentSchemas": {"a": {"required": ["b"]}}},
    "unevaluatedProperties": {"type": "object", "unevaluatedProperties": False},
    "unevaluatedItems": {"type": "array", "unevaluatedItems": False},
    "minProperties": {"type": "object", "properties": {"a": WORD, "b": WORD}, "minProperties": 2},
    "maxProperties": {"type": "object", "properties": {"a": WORD, "b": WORD, "c": WORD}, "maxProperties": 2},
    "patternProperties": {"type": "object", "patternProperties": {"^a": WORD, "^ab": WORD}},
    "format": {"type": "string", "format": "regex"},
    "pattern": {"type": "string", "pattern": "^(?!a)b$"},
    "minimum": {"type": "integer", "minimum": 3, "maximum": 2},
    "multipleOf": {"type": "integer", "multipleOf": 7, "maximum": -7},
    "required": {"type": "object", "required": ["a"], "additionalProperties": False},
    "enum": {"enum": []},
}
"""The keyword that admission names → a schema with it, of which the engine takes no notice at all."""

BESIDE = frozenset(("contentSchema",))
"""Keywords that admission refuses although they bind nothing: whoever writes one means it to."""
