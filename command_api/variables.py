"""Variables of templates: what is declared, and what a prompt gives for it. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from event_schemas.personas import Value, Variable

RESERVED = frozenset(("input", "character", "loop", "range", "true", "false", "none"))
"""Names that templates have anyway."""


class VariableError(ValueError):
    """What is wrong with a variable, declared or given. The message carries no value."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


class MissingVariable(VariableError):
    """It has to be given and was not."""


def check(declared: Sequence[Variable]) -> None:
    """Raises VariableError at the first declaration that cannot be kept to."""
    seen: set[str] = set()
    for variable in declared:
        name = variable.name
        if name.lower() in RESERVED:
            raise VariableError(name, f"`{name}` is a name that templates have anyway; call the variable another")
        if name in seen:
            raise VariableError(name, f"`{name}` is declared twice")
        seen.add(name)
        if (variable.type == "choice") != bool(variable.choices):
            raise VariableError(name, f"`{name}`: a choice has `choices`, and nothing else does")
        if variable.default is not None:
            _fits(variable, variable.default, "its default")


def values(declared: Sequence[Variable], given: Mapping[str, Value], needed: Collection[str]) -> dict[str, Value]:
    """What each of ``declared`` stands for; of those that are not ``needed``, maybe nothing.

    Raises VariableError where one is missing, unknown or of another type.
    """
    by_name = {variable.name: variable for variable in declared}
    for name in given:
        if name not in by_name:
            known = ", ".join(f"`{one}`" for one in by_name) or "none"
            raise VariableError(name, f"there is no variable `{name}`; there are: {known}")
    found: dict[str, Value] = {}
    for name, variable in by_name.items():
        if name in given:
            found[name] = _fits(variable, given[name], "what was given")
        elif variable.default is not None and not variable.required:
            found[name] = variable.default
        elif name in needed:
            raise MissingVariable(name, f"the variable `{name}` ({_type(variable)}) is missing")
    return found


def sample(variable: Variable) -> Value:
    """Something that it may be, to try a template with."""
    if variable.default is not None:
        return variable.default
    match variable.type:
        case "choice":
            return variable.choices[0]
        case "integer":
            return 1
        case "number":
            return 1.5
        case "boolean":
            return True
        case "string":
            return f"[{variable.name}]"


def _fits(variable: Variable, value: Value, what: str) -> Value:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    match variable.type:
        case "string":
            fits = isinstance(value, str)
        case "choice":
            fits = isinstance(value, str) and value in variable.choices
        case "boolean":
            fits = isinstance(value, bool)
        case "integer":
            fits = is_number and isinstance(value, int)
        case "number":
            fits = is_number and (isinstance(value, int) or math.isfinite(float(value)))
    if not fits:
        raise VariableError(variable.name, f"`{variable.name}`: {what} is not of its type, {_type(variable)}")
    return value


def _type(variable: Variable) -> str:
    return f"one of {', '.join(variable.choices)}" if variable.type == "choice" else variable.type
