"""docker-compose.yaml as Compose reads it: merged, and with the variables of ``.env`` put in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yaml"

Node = dict[str, Any]

_NAME = re.compile(r"\$(?:(?P<escaped>\$)|(?P<plain>[A-Za-z_]\w*)|\{(?P<name>[A-Za-z_]\w*)(?P<how>:?[-+?])?)")


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """``text`` with ``$NAME``, ``${NAME}``, ``${NAME:-…}``, ``${NAME:+…}``, ``${NAME:?…}`` and ``$$`` replaced.

    Raises ValueError for what is none of these, and for a variable that has to be set and is not.
    """
    made, rest = "", text
    while (found := _NAME.search(rest)) is not None:
        made, rest = made + rest[: found.start()], rest[found.end() :]
        if found["escaped"]:
            made += "$"
            continue
        if found["plain"]:
            made += variables.get(found["plain"], "")
            continue
        end = _end(rest)
        word, rest = rest[:end], rest[end + 1 :]
        made += _value(found["name"], found["how"] or "", word, variables)
    return made + rest


def _value(name: str, how: str, word: str, variables: Mapping[str, str]) -> str:
    value = variables.get(name)
    has = bool(value) if how.startswith(":") else value is not None
    match how[-1:]:
        case "-":
            return (value or "") if has else interpolated(word, variables)
        case "+":
            return interpolated(word, variables) if has else ""
        case "?" if not has:
            raise ValueError(f"{name}: {word}")
    if not how and word:
        raise ValueError(f"${{{name}{word}}} is no form that Compose knows")
    return value or ""


def _end(rest: str) -> int:
    depth = 0
    for place, character in enumerate(rest):
        if character == "}":
            if depth == 0:
                return place
            depth -= 1
        elif rest.startswith("${", place):
            depth += 1
    raise ValueError(f"no }} in {rest!r}")


def load(variables: Mapping[str, str] | None = None) -> Node:
    """The file's content with ``variables`` put in, those in no name of a key."""

    def put_in(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: put_in(value) for key, value in node.items()}
        if isinstance(node, list):
            return [put_in(value) for value in node]
        return interpolated(node, variables or {}) if isinstance(node, str) else node

    loaded: Node = put_in(yaml.safe_load(FILE.read_text()))
    return loaded


def services(variables: Mapping[str, str] | None = None) -> dict[str, Node]:
    """By name."""
    found: dict[str, Node] = load(variables)["services"]
    return found


def is_ours(service: Node) -> bool:
    """Whether it runs one of Parley's own images."""
    return str(service["image"]).partition(":")[0] == "parley"


def secret_names(service: Node) -> dict[str, str]:
    """Name in the container's ``/run/secrets`` → name in the file."""
    given: list[str | dict[str, str]] = service.get("secrets", [])
    named = [{"source": one} if isinstance(one, str) else one for one in given]
    return {one.get("target", one["source"]): one["source"] for one in named}
