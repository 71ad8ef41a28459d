"""The page of all settings, from the settings' own classes."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

from pydantic import AliasChoices, BaseModel, ByteSize, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from backplane.settings import LlmSettings, Settings

_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    SecretStr: "secret",
    Path: "path",
    UUID: "UUID",
    ByteSize: "bytes, or such as 8GiB",
}
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
_INTRODUCTION = """# Settings

The environment wins over `.env`, that over files that are called as these variables in the folder that
`PARLEY_SECRETS_DIR` names, those over `settings.toml` (or the file that `PARLEY_SETTINGS` names), that over the
defaults. In the file a name stands in its section: `lease_s` under `[worker]` is `PARLEY_WORKER__LEASE_S` in the
environment. Lists and tables are JSON in the environment: `PARLEY_CORS_ORIGINS='["https://app.example"]'`.
`settings.example.toml` is a file with all of them. `parley doctor` says which are wrong.

`<name>` stands for a name that you choose, in the environment in capitals.
"""


@dataclass(frozen=True, slots=True)
class Section:
    """Settings that stand together in the file."""

    path: tuple[str, ...]
    model: type[BaseModel]

    def rows(self) -> Iterator[tuple[str, FieldInfo]]:
        """The environment's name of each, and what the code knows of it."""
        for name, field in self.model.model_fields.items():
            if _below(field.annotation) is None:
                yield _environment_name((*self.path, name), field, self.model), field


def sections(model: type[BaseModel] = Settings, path: tuple[str, ...] = ()) -> Iterator[Section]:
    """Those of ``model``, and of what stands in it, in the order of the code."""
    yield Section(path, model)
    for name, field in model.model_fields.items():
        if (below := _below(field.annotation)) is not None:
            kind, is_named = below
            yield from sections(kind, (*path, name, "<name>") if is_named else (*path, name))


def page() -> str:
    """Every setting with its type, default, name in the environment and meaning, in Markdown."""
    parts = [_INTRODUCTION]
    for section in [*sections(), Section(("the local model",), LlmSettings)]:
        title = section.path[0].capitalize() if section.model is LlmSettings else f"`[{'.'.join(section.path)}]`"
        parts.append(f"## {title if section.path else 'Of the installation'}\n")
        if section.model is LlmSettings:
            parts.append("From the environment and `.env` only.\n")
        if section.path and section.model.__doc__ and section.model is not LlmSettings:
            parts.append(inspect.cleandoc(section.model.__doc__).replace("``", "`") + "\n")
        parts.append("| name | in the environment | type | default | meaning |\n| --- | --- | --- | --- | --- |")
        for variable, field in section.rows():
            name = next(key for key, value in section.model.model_fields.items() if value is field)
            cells = (f"`{name}`", f"`{variable}`", _type(field), _default(field), field.description or "")
            parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        parts.append("")
    return "\n".join(parts)


def _below(annotation: Any) -> tuple[type[BaseModel], bool] | None:
    """The model that a setting is made of, and whether there is one for each name; None for a value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    for part in typing.get_args(annotation):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part, typing.get_origin(annotation) is dict
    return None


def _environment_name(path: tuple[str, ...], field: FieldInfo, model: type[BaseModel]) -> str:
    if model is LlmSettings:
        alias = field.validation_alias
        return str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"LLM_{path[-1].upper()}"
    return "PARLEY_" + "__".join(path).upper()


def _type(field: FieldInfo) -> str:
    bounds = [
        f"{sign} {getattr(rule, attribute)}"
        for rule in field.metadata
        for attribute, sign in _BOUNDS.items()
        if getattr(rule, attribute, None) is not None
    ]
    return ", ".join([_kind(field.annotation), *bounds])


def _kind(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in _WORDS:
        return _WORDS[annotation]
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is typing.Annotated:
        return _kind(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind(one) for one in arguments if one is not type(None))
    if origin is tuple:
        return f"list of {_kind(arguments[0])}"
    if origin is dict:
        return f"table of {_kind(arguments[1])}"
    raise TypeError(f"no words for a setting of the type {annotation}: give handbook/settings_page.py some")


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined:
        return "needed"
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, tuple):
        value = list(value)
    return f"`{value}`" if value != "" else "empty"
