"""How a backend is brought to answer by a JSON schema, and which schemas it can keep to. One table, as of capabilities:
what a prompt asks for is held against it before anything is queued.

The dialect is JSON Schema, draft 2020-12. A schema is one document: nothing is fetched, and no part has a name but by
its place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Way = Literal["grammar", "openai", "openai_strict", "anthropic", "instruction"]
"""``grammar``: the engine can write nothing else. ``openai``, ``anthropic``: the provider is told the schema.
``openai_strict``: and holds to it. ``instruction``: the model is told in words, beside what its client says."""

DIALECT = "https://json-schema.org/draft/2020-12/schema"

ANNOTATIONS = frozenset(
    (
        "$schema",
        "$comment",
        "title",
        "description",
        "default",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
        "contentEncoding",
        "contentMediaType",
        "discriminator",  # OpenAPI's, which many generators write beside a union
    )
)
"""Keywords that hold nobody to anything."""

_SHAPE = frozenset(("type", "enum", "const", "anyOf", "$ref", "$defs", "definitions"))
_OBJECTS = frozenset(("properties", "required", "additionalProperties"))
_ARRAYS = frozenset(("items", "minItems", "maxItems"))
_LENGTHS = frozenset(("minLength", "maxLength"))
_BOUNDS = frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"))
_STRINGS = frozenset(("pattern", "format"))
_REST = frozenset(
    (
        "not",
        "if",
        "then",
        "else",
        "dependentRequired",
        "dependentSchemas",
        "propertyNames",
        "patternProperties",
        "minProperties",
        "maxProperties",
        "unevaluatedProperties",
        "unevaluatedItems",
        "uniqueItems",
        "contains",
        "minContains",
        "maxContains",
        "contentSchema",
    )
)

_COMMON = _SHAPE | _OBJECTS | _ARRAYS | _STRINGS
ASSERTIONS = _COMMON | _LENGTHS | _BOUNDS | _REST | {"oneOf", "allOf", "prefixItems"}
"""Keywords that an answer is checked by."""

_FORMATS = frozenset(("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"))


@dataclass(frozen=True, slots=True)
class Expressible:
    """What a schema may have that is to be kept to in one way; None and False: no limit."""

    keywords: frozenset[str]
    formats: frozenset[str] | None = None
    plain_patterns: bool = False
    """Patterns look nowhere but ahead, one character after the other, and mean the same in all dialects."""
    disjoint_one_of: bool = False
    """Of two alternatives of ``oneOf`` no answer fits both, as their types or a constant of theirs show."""
    satisfiable: bool = False
    """Bounds leave something between them, an ``enum`` has something in it, what is required may be there."""
    positive_multiples: bool = False
    """No ``maximum`` below 0 stands beside ``multipleOf``."""
    longest: int | None = None
    """Of ``minLength``, ``maxLength``, ``minItems``, ``maxItems``, and of all of them together."""
    largest: int | None = None
    """Of numbers in ``const``, ``enum`` and bounds, also below zero."""
    most_min_items: int | None = None
    closed_objects: bool = False
    """Each object has ``additionalProperties: false``."""
    all_required: bool = False
    """Each object requires all of its properties."""
    root_object: bool = False
    plain_enums: bool = False
    """Values of ``enum`` are neither objects nor arrays."""
    recursion: bool = True
    lone_references: bool = False
    """In a schema that contains itself, nothing stands beside ``$ref``."""


EXPRESSIBLE: dict[Way, Expressible] = {
    # llama.cpp as xllamacpp builds it, with llguidance, drops a schema that it cannot express without a word, and the
    # model writes whatever it likes; so this takes no more than test_schemas_with_a_real_model.py saw.
    "grammar": Expressible(
        _COMMON | _LENGTHS | _BOUNDS | {"oneOf", "allOf", "prefixItems"},
        formats=_FORMATS,
        plain_patterns=True,
        disjoint_one_of=True,
        satisfiable=True,
        positive_multiples=True,
        longest=8192,
        largest=2**53,
        lone_references=True,
    ),
    "openai": Expressible(ASSERTIONS),
    # OpenAI, "Structured model outputs", "Supported schemas".
    "openai_strict": Expressible(
        _COMMON | _BOUNDS,
        formats=_FORMATS,
        closed_objects=True,
        all_required=True,
        root_object=True,
    ),
    # Anthropic, "Structured outputs", "JSON Schema limitations".
    "anthropic": Expressible(
        (_COMMON | {"allOf"}) - {"maxItems"},
        formats=_FORMATS | {"uri"},
        plain_patterns=True,
        most_min_items=1,
        closed_objects=True,
        plain_enums=True,
        recursion=False,
    ),
    "instruction": Expressible(ASSERTIONS),
}
