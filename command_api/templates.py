"""Templates of prompts: text with places that are filled. Pure.

Two languages. In `placeholders`, `{name}` is a place and `{{`, `}}` are braces. `jinja` is a small part of Jinja in its
sandbox: see ``jinja_templates``. Whatever is written in either, neither parsing nor rendering takes long or much room.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, Protocol

Language = Literal["placeholders", "jinja"]

Field = Literal["system", "prompt", "greeting"]
"""Of a persona: which of its templates."""

Value = bool | int | float | str
Values = Mapping[str, Value | Mapping[str, str]]
"""What a name stands for; an object has its own names, of which each is a text."""

Names = Mapping[str, frozenset[str] | None]
"""Names that a template may have, and those of an object; None: it is no object."""

MOST_CHARACTERS = 32_000
"""Of a template."""

MOST_OUTPUT = 1_000_000
"""Characters that one renders to."""


class TemplateError(ValueError):
    """What is wrong with a template, or with what it is given. ``name`` is the variable that is the matter, if one is.

    The message says where, and carries nothing of the template but names.
    """

    def __init__(self, field: Field, message: str, *, line: int, column: int | None, name: str | None = None) -> None:
        place = f"line {line}" if column is None else f"line {line}, column {column}"
        super().__init__(f"{message} ({field}, {place})")
        self.field = field
        self.line = line
        self.column = column
        self.name = name


class Place(Protocol):
    """Where a template names something; lines and columns are counted from 1."""

    @property
    def name(self) -> str: ...

    @property
    def line(self) -> int: ...

    @property
    def column(self) -> int | None: ...


class Template(Protocol):
    """One that was parsed, so that all that it names is declared."""

    field: Field

    @property
    def places(self) -> Sequence[Place]:
        """Where it names something, in order. Of an object's text, ``name`` is dotted."""

    def render(self, values: Values) -> str:
        """The text, all of it filled. ``values`` has everything that ``places`` name. Raises TemplateError."""


def parse(text: str, language: Language, field: Field, names: Names) -> Template:
    """Raises TemplateError where it is no template, is too large, or names what is not in ``names``."""
    if len(text) > MOST_CHARACTERS:
        raise TemplateError(
            field, f"it has {len(text)} characters, the limit is {MOST_CHARACTERS}", line=1, column=None
        )
    if language == "placeholders":
        return Placeholders(text, field, names)
    # Prompts without Jinja need not load it.
    from command_api.jinja_templates import JinjaTemplate

    return JinjaTemplate(text, field, names)


def shown(value: Value) -> str:
    """As it stands in a rendered text: as in JSON, but strings without quotes."""
    return value if isinstance(value, str) else json.dumps(value)


def undeclared(field: Field, name: str, names: Names, *, line: int, column: int | None) -> TemplateError:
    """A template names what it does not have."""
    known = ", ".join(sorted(names)) or "none"
    return TemplateError(
        field, f"it names `{name}`, which is not declared; declared are: {known}", line=line, column=column, name=name
    )


def is_declared(name: str, names: Names) -> bool:
    """``name`` may be dotted: one of an object's texts. An object itself is no text."""
    head, _, rest = name.partition(".")
    inner = names.get(head)
    if head not in names:
        return False
    return not rest if inner is None else rest in inner


def found(name: str, values: Values) -> Value:
    """What a declared name stands for."""
    head, _, rest = name.partition(".")
    value = values[head]
    if isinstance(value, Mapping):
        return value[rest]
    return value


class Hole:
    """A place in a text of placeholders."""

    def __init__(self, name: str, line: int, column: int) -> None:
        self.name = name
        self.line = line
        self.column = column


_PIECE = re.compile(r"\{\{|\}\}|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)\}|[{}]")


class Placeholders:
    """`{name}`, and `{{` and `}}` for braces."""

    def __init__(self, text: str, field: Field, names: Names) -> None:
        self.field: Field = field
        self._pieces: list[str | Hole] = list(_pieces(text, field, names))
        self.places = [piece for piece in self._pieces if isinstance(piece, Hole)]

    def render(self, values: Values) -> str:
        rendered: list[str] = []
        length = 0
        for piece in self._pieces:
            text = piece if isinstance(piece, str) else shown(found(piece.name, values))
            length += len(text)
            if length > MOST_OUTPUT:
                raise too_long(self.field)
            rendered.append(text)
        return "".join(rendered)


def too_long(field: Field) -> TemplateError:
    return TemplateError(field, f"it renders to more than {MOST_OUTPUT} characters", line=1, column=None)


def escaped(text: str, *, keep_places: bool = False) -> str:
    """``text`` as a template of placeholders that renders to it; with ``keep_places`` what looks like one stays one."""
    return _PIECE.sub(lambda piece: piece[0] if keep_places and piece["name"] else _doubled(piece[0]), text)


def named_in(text: str) -> list[str]:
    """What ``text`` would name as a template of placeholders, each name once, in order."""
    return list(dict.fromkeys(piece["name"] for piece in _PIECE.finditer(text) if piece["name"]))


def _doubled(braces: str) -> str:
    return braces.replace("{", "{{").replace("}", "}}")


def _pieces(text: str, field: Field, names: Names) -> Iterator[str | Hole]:
    at, line, line_began = 0, 1, 0
    for piece in _PIECE.finditer(text):
        before = text[at : piece.start()]
        at = piece.end()
        if "\n" in before:
            line += before.count("\n")
            line_began = text.rindex("\n", 0, piece.start()) + 1
        if before:
            yield before
        column = piece.start() - line_began + 1
        name = piece["name"]
        if name is not None:
            if not is_declared(name, names):
                raise undeclared(field, name, names, line=line, column=column)
            yield Hole(name, line, column)
        elif len(piece[0]) == 2:
            yield piece[0][0]
        else:
            other = "}}" if piece[0] == "}" else "{{"
            raise TemplateError(
                field, f"`{piece[0]}` is part of no placeholder; write `{other}` for a brace", line=line, column=column
            )
    if text[at:]:
        yield text[at:]
