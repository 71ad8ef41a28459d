"""A persona as one file, which imports as it is."""

from __future__ import annotations

import json
from typing import Any

import yaml

from event_schemas.personas import PersonaContent


def as_json(name: str, content: PersonaContent) -> str:
    return json.dumps(_file(name, content), ensure_ascii=False, indent=2) + "\n"


def as_yaml(name: str, content: PersonaContent) -> str:
    """Texts of many lines are blocks, so that they can be read and changed."""
    return yaml.dump(_file(name, content), Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=120)


def _file(name: str, content: PersonaContent) -> dict[str, Any]:
    return {"name": name, **content.as_given()}


_BREAKS = {"\r", "\x85", "\u2028", "\u2029"}
"""What YAML 1.1 takes for the end of a line, too (section 4.2), and reads as a blank where it stands unescaped."""


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text else None
    if _BREAKS & {*text}:
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
