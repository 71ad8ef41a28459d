"""A JSON schema of an answer: is it one, and can a backend be held to it? Decides; does no I/O, and fetches nothing."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from backplane.settings.answer_schemas import ANNOTATIONS, DIALECT, Expressible
from command_api import schema_values
from command_api.plain_pattern import is_plain

_MOST_BYTES = 65_536
_DEEPEST = 32
_MOST_PROPERTIES = 1000
_MOST_VALUES = 1000
_LONGEST_PATTERN = 1000

_FORMER_DIALECT = "http://json-schema.org/draft-07/schema"
"""What many clients make of their types; taken where it means the same."""

_MAPS = ("$defs", "definitions", "properties", "patternProperties", "dependentSchemas")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_ONES = (
    *("items", "contains", "additionalProperties", "propertyNames", "unevaluatedItems", "unevaluatedProperties"),
    *("not", "if", "then", "else", "contentSchema"),
)
_IN_PLACE = ("allOf", "anyOf", "oneOf", "dependentSchemas", "not", "if", "then", "else")
_PAIRS = (("minimum", "maximum"), ("minLength", "maxLength"), ("minItems", "maxItems"))
_SIZES = ("minLength", "maxLength", "minItems", "maxItems")
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "const")

Json = dict[str, Any]


class SchemaFault(Exception):
    """What is wrong, in words for people: the message names the keyword, and where it stands as a JSON pointer.

    ``inexpressible``: it is a schema, and the model cannot be held to it; else nobody can.
    """

    def __init__(self, pointer: str, keyword: str, what: str, *, inexpressible: bool = False) -> None:
        super().__init__(f"`{keyword}` at {pointer or 'the root'}: {what}.")
        self.inexpressible = inexpressible


@dataclass(frozen=True, slots=True)
class Part:
    """A schema within the schema."""

    pointer: str
    keywords: Json


class AnswerSchema:
    """Raises SchemaFault where ``schema`` is not to be had: invalid, too large or deep, or not all here."""

    def __init__(self, schema: Json) -> None:
        _check_size(schema)
        self._parts = {part.pointer: part for part in _parts(schema)}
        for part in self._parts.values():
            _check_keywords(part)
        self._check_numbers()
        for part in self._parts.values():
            _check_patterns(part)
        if schema.get("$schema", DIALECT).rstrip("#") == _FORMER_DIALECT:
            self._check_lone_references()
        self._targets = {part.pointer: self._target(part) for part in self._parts.values() if "$ref" in part.keywords}
        if (pointer := self._cycle(_IN_PLACE)) is not None:
            raise SchemaFault(pointer, "$ref", "it leads back to itself without going into the value")

    def check(self, can: Expressible) -> None:
        """Raises SchemaFault where a backend that ``can`` so much cannot be held to it."""
        for part in self._parts.values():
            for keyword, what in self._inexpressible(part, can):
                raise SchemaFault(part.pointer, keyword, what, inexpressible=True)
        root = self._parts[""].keywords
        if can.root_object and root.get("type") != "object":
            raise SchemaFault("", "type", "the answer has to be an object", inexpressible=True)
        recursive = self._cycle((*_MAPS, *_LISTS, *_ONES))
        if recursive is not None and not can.recursion:
            raise SchemaFault(recursive, "$ref", "a schema that contains itself is not taken", inexpressible=True)
        if recursive is not None and can.lone_references:
            for part in map(self._parts.__getitem__, self._targets):
                if beside := _binding_beside_a_reference(part):
                    what = "nothing may stand beside $ref in a schema that contains itself"
                    raise SchemaFault(part.pointer, min(beside), what, inexpressible=True)
        if can.longest is not None:
            sizes = [part.keywords.get(size, 0) for part in self._parts.values() for size in _SIZES]
            if sum(sizes) > can.longest:
                largest = max(self._parts.values(), key=lambda part: max(part.keywords.get(size, 0) for size in _SIZES))
                keyword = max(_SIZES, key=lambda size: largest.keywords.get(size, 0))
                what = f"lengths and numbers of items are {sum(sizes)} together, the limit is {can.longest}"
                raise SchemaFault(largest.pointer, keyword, what, inexpressible=True)

    def _inexpressible(self, part: Part, can: Expressible) -> Iterator[tuple[str, str]]:
        said = part.keywords
        for keyword in said:
            if keyword not in can.keywords and keyword not in ANNOTATIONS:
                yield keyword, "the model cannot be held to this keyword"
        if can.formats is not None and "format" in said and said["format"] not in can.formats:
            yield "format", f"the model can be held to {', '.join(sorted(can.formats))} alone"
        if can.plain_patterns and "pattern" in said and not is_plain(said["pattern"]):
            yield "pattern", "the model can be held to plain ones: no looking around or back, ^ and $ at the ends"
        if can.most_min_items is not None and said.get("minItems", 0) > can.most_min_items:
            yield "minItems", f"the model can be held to {can.most_min_items} at most"
        if can.plain_enums and any(isinstance(value, dict | list) for value in said.get("enum", ())):
            yield "enum", "objects and arrays are not taken"
        if "properties" in said or said.get("type") == "object":
            if can.closed_objects and said.get("additionalProperties") is not False:
                yield "additionalProperties", "it has to be false"
            if can.all_required and (left_out := set(said.get("properties", ())) - set(said.get("required", ()))):
                yield (
                    "required",
                    f"it has to name {', '.join(sorted(left_out))}; what may be missing can be null instead",
                )
        if can.satisfiable:
            yield from _unsatisfiable(said)
        negative = any(said.get(most, 1) < 0 for most in ("maximum", "exclusiveMaximum"))
        if can.positive_multiples and "multipleOf" in said and negative:
            yield "multipleOf", "the model cannot be held to multiples below a maximum that is below 0"
        if can.largest is not None:
            numbers = [*(said.get(keyword) for keyword in _NUMBERS), *said.get("enum", ())]
            for number in numbers:
                if isinstance(number, int | float) and abs(number) > can.largest:
                    keyword = next((name for name in _NUMBERS if said.get(name) == number), "enum")
                    yield keyword, f"{number} is further from 0 than {can.largest}"
        if can.disjoint_one_of:
            alternatives = said.get("oneOf", ())
            for at, one in enumerate(alternatives):
                if any(not self._disjoint(one, other) for other in alternatives[at + 1 :]):
                    yield "oneOf", "two alternatives may fit at once; use anyOf, or give each a constant of its own"
                    return

    def _check_lone_references(self) -> None:
        """Draft-07 overlooks what stands beside a ``$ref``, and nothing later does."""
        for part in self._parts.values():
            if "$ref" in part.keywords and (beside := _binding_beside_a_reference(part)):
                what = f"`{min(beside)}` beside it binds nothing in draft-07; leave it out, or name no `$schema`"
                raise SchemaFault(part.pointer, "$ref", what)

    def _check_numbers(self) -> None:
        properties = sum(len(part.keywords.get("properties", ())) for part in self._parts.values())
        if properties > _MOST_PROPERTIES:
            raise SchemaFault("", "properties", f"there are {properties} in all, the limit is {_MOST_PROPERTIES}")
        for part in self._parts.values():
            if len(part.keywords.get("enum", ())) > _MOST_VALUES:
                raise SchemaFault(part.pointer, "enum", f"the limit is {_MOST_VALUES} values")

    def _target(self, part: Part) -> str:
        reference = part.keywords["$ref"]
        if not reference.startswith("#") or (reference != "#" and not reference.startswith("#/")):
            raise SchemaFault(part.pointer, "$ref", "it has to lead to a place in this schema, such as #/$defs/name")
        pointer = unquote(reference[1:])
        if pointer not in self._parts:
            raise SchemaFault(part.pointer, "$ref", f"there is no schema at {reference}")
        return pointer

    def _cycle(self, ways: tuple[str, ...]) -> str | None:
        """A part from which one comes back to it by ``$ref`` and ``ways``."""
        ahead = {pointer: [*self._next(self._parts[pointer], ways)] for pointer in self._parts}
        done: set[str] = set()
        for start in ahead:
            path: dict[str, Iterator[str]] = {} if start in done else {start: iter(ahead[start])}
            while path:
                here = next(reversed(path))
                there = next(path[here], None)
                if there is None:
                    done.add(here)
                    del path[here]
                elif there in path:
                    return there
                elif there not in done:
                    path[there] = iter(ahead[there])
        return None

    def _next(self, part: Part, ways: tuple[str, ...]) -> Iterator[str]:
        if part.pointer in self._targets:
            yield self._targets[part.pointer]
        for pointer, _ in _within(part.pointer, part.keywords, ways):
            if pointer in self._parts:
                yield pointer

    def _disjoint(self, one: Any, other: Any) -> bool:
        one, other = self._resolved(one), self._resolved(other)
        values, others = _values(one), _values(other)
        if values is not None and others is not None:
            return not values & others
        types, other_types = _types(one), _types(other)
        if not types & other_types:
            return True
        if types != {"object"} or other_types != {"object"}:
            return False
        required = set(one.get("required", ())) & set(other.get("required", ()))
        named, others_named = one.get("properties", {}), other.get("properties", {})
        return any(
            name in named and name in others_named and self._told_apart(named[name], others_named[name])
            for name in required
        )

    def _told_apart(self, one: Any, other: Any) -> bool:
        one, other = self._resolved(one), self._resolved(other)
        values, others = _values(one), _values(other)
        if values is not None and others is not None:
            return not values & others
        return not _types(one) & _types(other)

    def _resolved(self, schema: Any) -> Json:
        while isinstance(schema, dict) and "$ref" in schema:
            schema = self._parts[unquote(schema["$ref"][1:])].keywords
        return schema if isinstance(schema, dict) else {}


def _binding_beside_a_reference(part: Part) -> set[str]:
    return part.keywords.keys() - ANNOTATIONS - {"$ref", "$defs", "definitions"}


def _check_size(schema: Json) -> None:
    try:
        size = len(json.dumps(schema, allow_nan=False))
    except ValueError:
        raise SchemaFault("", "schema", "a number in it is larger than JSON can carry") from None
    except RecursionError:
        raise SchemaFault("", "schema", f"it is more than {_DEEPEST} levels deep") from None
    if size > _MOST_BYTES:
        raise SchemaFault("", "schema", f"it has {size} bytes, the limit is {_MOST_BYTES}")
    level: list[Any] = [schema]
    for _ in range(2 * _DEEPEST):
        level = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]
        level = [each for each in level if isinstance(each, dict | list)]
    if level:
        raise SchemaFault("", "schema", f"it is more than {_DEEPEST} levels deep")


def _parts(schema: Json) -> Iterator[Part]:
    level: list[tuple[str, Any]] = [("", schema)]
    for _ in range(_DEEPEST):
        inner: list[tuple[str, Any]] = []
        for pointer, each in level:
            if isinstance(each, bool):
                yield Part(pointer, {})
            elif isinstance(each, dict):
                yield Part(pointer, each)
                inner += _within(pointer, each, (*_MAPS, *_LISTS, *_ONES))
        level = inner
    if level:
        raise SchemaFault(level[0][0], "schema", f"it is more than {_DEEPEST} levels deep")


def _within(pointer: str, keywords: Json, ways: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """The schemas in ``keywords``, with their pointers. What should be one and is not is left to the metaschema."""
    for way in ways:
        inner = keywords.get(way)
        if way in _ONES and inner is not None:
            yield f"{pointer}/{way}", inner
        elif way in _LISTS and isinstance(inner, list):
            yield from ((f"{pointer}/{way}/{at}", each) for at, each in enumerate(inner))
        elif way in _MAPS and isinstance(inner, dict):
            yield from ((f"{pointer}/{way}/{_escaped(name)}", each) for name, each in inner.items())


def _check_keywords(part: Part) -> None:
    for keyword, value in part.keywords.items():
        if keyword not in schema_values.TAKEN:
            raise SchemaFault(
                part.pointer, keyword, "it is no keyword of JSON Schema 2020-12 that is known here; leave it out"
            )
        if (fault := schema_values.fault(keyword, value)) is not None:
            raise SchemaFault(part.pointer, keyword, fault)
    if part.keywords.get("$schema", DIALECT).rstrip("#") not in (DIALECT, _FORMER_DIALECT):
        raise SchemaFault(
            part.pointer, "$schema", f"the dialect has to be {DIALECT} or {_FORMER_DIALECT}; leave it out"
        )


def _check_patterns(part: Part) -> None:
    patterns = [("pattern", part.keywords.get("pattern", ""))]
    patterns += [("patternProperties", pattern) for pattern in part.keywords.get("patternProperties", ())]
    for keyword, pattern in patterns:
        if len(pattern) > _LONGEST_PATTERN:
            raise SchemaFault(part.pointer, keyword, f"the limit is {_LONGEST_PATTERN} characters")
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise SchemaFault(part.pointer, keyword, f"it is no regular expression: {error}") from None


def _unsatisfiable(said: Json) -> Iterator[tuple[str, str]]:
    if said.get("enum", True) == []:
        yield "enum", "no value is left"
    for low, high in _PAIRS:
        if low in said and high in said and said[low] > said[high]:
            yield low, f"{said[low]} is more than {high}, which is {said[high]}"
    least = max((said[name] for name in ("minimum", "exclusiveMinimum") if name in said), default=None)
    most = min((said[name] for name in ("maximum", "exclusiveMaximum") if name in said), default=None)
    if least is not None and most is not None:
        edge = said.get("exclusiveMinimum") == least or said.get("exclusiveMaximum") == most
        none_whole = said.get("type") == "integer" and math.ceil(least) > math.floor(most)
        if least > most or (least == most and edge) or none_whole:
            yield ("exclusiveMinimum" if "exclusiveMinimum" in said else "minimum"), "no number is left"
    if said.get("additionalProperties") is False and (gone := set(said.get("required", ())) - set(_named(said))):
        yield "required", f"it names {', '.join(sorted(gone))}, which `properties` does not"


def _named(said: Json) -> list[str]:
    return [*said.get("properties", ()), *said.get("patternProperties", ())]


def _types(schema: Json) -> set[str]:
    """Of the values that may fit."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values is not None:
        return {_type(value) for value in values}
    given = schema.get("type", ["null", "boolean", "number", "string", "array", "object"])
    return {"number" if each == "integer" else each for each in ([given] if isinstance(given, str) else given)}


def _type(value: Any) -> str:
    if value is None:
        return "null"
    kinds = ((bool, "boolean"), (int | float, "number"), (str, "string"), (list, "array"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "object")


def _values(schema: Json) -> set[str] | None:
    """All values that may fit, as JSON; None where they are not told one by one."""
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    return None if values is None else {json.dumps(_even(value), sort_keys=True) for value in values}


def _even(value: Any) -> Any:
    """The same for numbers that are equal, such as 1 and 1.0."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_even(each) for each in value]
        case dict():
            return {name: _even(each) for name, each in value.items()}
    return value


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
