"""Personas in files: JSON or YAML as they are exported, and two older forms, told by their fields. Pure.

An older prompt has `config` (values as strings), `system`, `user` and `template`; an older personality has an
`imperative`. What such a file says is never read as a place to be filled unless it looks like one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Mapping
from pathlib import PurePath
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from command_api.persona_body import DefinitionBody
from command_api.templates import escaped, named_in
from event_schemas.personas import PERSONA_NAME

MOST_CHARACTERS = 256 * 1024

_CONFIG = {"temperature": float, "top_p": float, "max_tokens": int}
_CHARACTER = ("personality", "world", "scenario", "example_dialogue")

Json = dict[str, Any]


class UnusableFile(ValueError):
    """No persona can be made of it. The message names what is wrong and where, and carries no other text of it."""


class PersonaFile(NamedTuple):
    name: str
    definition: DefinitionBody
    notices: tuple[str, ...] = ()
    """What of an older file is not used, and why."""


def parse(text: str, file: str) -> PersonaFile:
    """``file`` is a file's name, which a persona gets that names none. Raises UnusableFile."""
    fields = _mapping(text)
    given = fields.get("name")
    if given is not None and not isinstance(given, str):
        raise UnusableFile("name: it is no text")
    name = slug(given or PurePath(file).stem)
    notices: list[str] = []
    if "imperative" in fields:
        definition = _of_personality(fields)
    elif "config" in fields or "template" in fields or "user" in fields:
        definition = _of_prompt(fields, notices)
    else:
        definition = {one: value for one, value in fields.items() if one != "name"}
    try:
        return PersonaFile(name, DefinitionBody.model_validate_json(json.dumps(definition)), tuple(notices))
    except ValidationError as error:
        places = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_input=False)[:5])
        raise UnusableFile("; ".join(place.replace("Value error, ", "") for place in places)) from None
    except (TypeError, ValueError):
        raise UnusableFile("it holds values that JSON has not") from None


def slug(name: str) -> str:
    """``name`` as personas are called. Raises UnusableFile where nothing is left of it."""
    found = re.sub(r"[^a-z0-9_-]+", "-", name.strip().lower()).strip("-_")[:64]
    if not re.match(PERSONA_NAME, found):
        raise UnusableFile("name: it has no letter or digit that a persona's name can have")
    return found


class _Loader(yaml.SafeLoader):
    """No aliases, by which a small file can stand for a huge one; no dates, which JSON has not; each key once."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise UnusableFile("it has an alias (`*name`); write out what it stands for")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        found = super().construct_mapping(node, deep=deep)
        if len(found) != len(node.value):
            raise UnusableFile(f"line {node.start_mark.line + 1}: a name stands there twice")
        return found


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _mapping(text: str) -> Json:
    if len(text) > MOST_CHARACTERS:
        raise UnusableFile(f"it has {len(text)} characters, the limit is {MOST_CHARACTERS}")
    try:
        found = _json(text) if text.lstrip().startswith("{") else yaml.load(text, _Loader)  # noqa: S506 - a safe one
    except json.JSONDecodeError as error:
        raise UnusableFile(f"line {error.lineno}, column {error.colno}: it is no JSON") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        raise UnusableFile(f"{place}it is no YAML") from None
    except (yaml.YAMLError, RecursionError):
        raise UnusableFile("it is no YAML") from None
    except UnusableFile:
        raise
    except ValueError:
        raise UnusableFile("it holds a number that is too long") from None
    if not isinstance(found, dict) or not all(isinstance(one, str) for one in found):
        raise UnusableFile("it is no object with named fields")
    return found


def _json(text: str) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> Json:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise UnusableFile("a name stands twice in an object")
        return found

    return json.loads(text, object_pairs_hook=once)


def _of_prompt(fields: Mapping[str, Any], notices: list[str]) -> Json:
    """`{config, system, user, template}`."""
    unknown = sorted(fields.keys() - {"name", "description", "model", "config", "system", "user", "template"})
    if unknown:
        raise UnusableFile(f"{unknown[0]}: a prompt file of this form has no such field")
    if fields.get("template"):
        notices.append("`template` is not used: how a chat is put into one text comes from the model")
    texts = {name: _text(fields, name) for name in ("system", "user")}
    definition: Json = {
        "description": _text(fields, "description"),
        "model": _text(fields, "model"),
        "parameters": parameters_of(fields.get("config", {})),
        **{
            "prompt" if name == "user" else name: escaped(text, keep_places=True)
            for name, text in texts.items()
            if text is not None
        },
    }
    named = dict.fromkeys(one for text in texts.values() if text is not None for one in named_in(text))
    dotted = [one for one in named if "." in one]
    if dotted:
        raise UnusableFile(f"system or user: `{dotted[0]}` is no name of a variable")
    if "input" in named_in(texts["system"] or ""):
        raise UnusableFile("system: what the user writes (`input`) has a place in `user` only")
    definition["variables"] = [{"name": one} for one in named if one != "input"]
    return definition


def parameters_of(config: object) -> Json:
    """How an older prompt is sampled: numbers, or what says one. Raises UnusableFile, which names the wrong one."""
    if not isinstance(config, dict):
        raise UnusableFile("config: it is no object")
    found: Json = {}
    for name, value in config.items():
        kind = _CONFIG.get(name)
        if kind is None:
            raise UnusableFile(f"config.{name}: there is no such parameter; there are {', '.join(_CONFIG)}")
        if value in ("", None):
            continue
        try:
            found[name] = kind(value)
        except (TypeError, ValueError):
            raise UnusableFile(f"config.{name}: it is no number") from None
    return found


def _of_personality(fields: Mapping[str, Any]) -> Json:
    """`imperative`, and whatever else there was to say."""
    imperative = _text(fields, "imperative")
    if not imperative:
        raise UnusableFile("imperative: it is empty")
    known = {"name", "description", "model", "greeting", "character", "imperative", *_CHARACTER}
    others = {name: value for name, value in fields.items() if name not in known and value not in (None, "", [], {})}
    lines = [f"{name}: {value if isinstance(value, str) else json.dumps(value)}" for name, value in others.items()]
    greeting = _text(fields, "greeting")
    character = {name: _text(fields, name) for name in _CHARACTER if fields.get(name)}
    if isinstance(fields.get("character"), dict):
        character |= fields["character"]
    if character and "name" not in character and isinstance(fields.get("name"), str):
        character["name"] = fields["name"]
    return {
        "description": "\n".join([*filter(None, [_text(fields, "description")]), *lines]) or None,
        "model": _text(fields, "model"),
        "system": escaped(imperative),
        "greeting": None if greeting is None else escaped(greeting),
        "character": character or None,
    }


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise UnusableFile(f"{name}: it is no text")
    return value or None
