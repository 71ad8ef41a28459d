"""A small part of Jinja, for templates of prompts: places, conditions, loops over what is written out, a few filters.

Jinja's sandbox keeps a template from Python's insides; nothing of it bounds what a template costs, and constants are
computed while it is compiled. So what may stand in one is a list, checked on the tree before it is compiled: no
arithmetic, no calls, no assignment, nothing that makes a text longer or a loop out of another's turns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from jinja2 import StrictUndefined, TemplateSyntaxError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from command_api.templates import (
    MOST_OUTPUT,
    Field,
    Hole,
    Names,
    TemplateError,
    Values,
    is_declared,
    shown,
    too_long,
    undeclared,
)

_FILTERS = frozenset(("capitalize", "d", "default", "length", "count", "lower", "trim", "upper"))
_TESTS = frozenset(("defined", "none", "true", "false", "string", "number", "integer", "boolean"))
_OF_LOOP = frozenset(("index", "index0", "first", "last", "length", "revindex"))

_MOST_TURNS = 100
"""Of a loop."""
_MOST_STEPS = 20_000
"""Parts of a template, those within a loop as often as it turns."""
_MOST_DEPTH = 40
_MOST_COMPARED = 5_000_000
"""Characters that filters, tests and comparisons look at; the slowest of them takes some 20 ns for each."""

_PLAIN = (
    nodes.And,
    nodes.CondExpr,
    nodes.Const,
    nodes.If,
    nodes.Not,
    nodes.Operand,
    nodes.Output,
    nodes.Template,
    nodes.TemplateData,
    nodes.Or,
)
_LOOKS = (nodes.Compare, nodes.Filter, nodes.Test)


def _finalized(value: object) -> object:
    return shown(value) if isinstance(value, bool | int | float) else value


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, finalize=_finalized, keep_trailing_newline=True, optimized=False, cache_size=0
    )
    environment.globals = {"range": range}
    environment.filters = {name: environment.filters[name] for name in _FILTERS}
    environment.tests = {name: test for name, test in environment.tests.items() if name in _TESTS}
    return environment


_ENVIRONMENT = _environment()


class JinjaTemplate:
    """See ``templates.Template``."""

    def __init__(self, text: str, field: Field, names: Names) -> None:
        self.field: Field = field
        try:
            tree = _ENVIRONMENT.parse(text)
        except TemplateSyntaxError as error:
            raise TemplateError(field, f"it is no Jinja: {error.message}", line=error.lineno, column=None) from None
        except Exception as error:
            # Its lexer lets through whatever Python's own literals raise, and its parser recurses.
            raise TemplateError(field, f"it is no Jinja: {type(error).__name__}", line=1, column=None) from None
        checked = _Check(text, field, names)
        checked.look(tree)
        self.places = sorted(checked.holes, key=lambda hole: (hole.line, hole.column))
        self._looks = checked.looks
        self._template = _ENVIRONMENT.from_string(tree)

    def render(self, values: Values) -> str:
        longest = max(map(len, _texts(values.values())), default=0)
        if self._looks * longest > _MOST_COMPARED:
            raise TemplateError(
                self.field,
                f"it has {self._looks} filters and comparisons, too many for so long a text",
                line=1,
                column=None,
            )
        rendered: list[str] = []
        length = 0
        try:
            for piece in self._template.generate(values):
                length += len(piece)
                if length > MOST_OUTPUT:
                    raise too_long(self.field)
                rendered.append(piece)
        except TypeError:
            raise TemplateError(
                self.field, "it compares or filters a value that is not of that type", line=1, column=None
            ) from None
        return "".join(rendered)


def _texts(values: Iterable[object]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            yield from _texts(value.values())


class _Check:
    """Goes through a tree once. ``look`` raises TemplateError at what may not stand there."""

    def __init__(self, text: str, field: Field, names: Names) -> None:
        self._lines = text.split("\n")
        self._field: Field = field
        self._names = names
        self._of_loop: set[str] = set()
        self._steps = 0
        self.holes: list[Hole] = []
        self.looks = 0

    def look(self, node: nodes.Node, depth: int = 0, turns: int = 1) -> None:
        self._steps += turns
        if depth > _MOST_DEPTH:
            raise self._wrong(node, f"it nests more than {_MOST_DEPTH} deep")
        if self._steps > _MOST_STEPS:
            raise self._wrong(node, f"it takes more than {_MOST_STEPS} steps")
        match node:
            case nodes.For():
                self._look_at_loop(node, depth, turns)
                return
            case nodes.Name():
                self._named(node, node.name)
                return
            case nodes.Getattr(node=nodes.Name(name="loop"), attr=attr) if self._of_loop and attr in _OF_LOOP:
                return
            case nodes.Getattr(node=nodes.Name(name=head), attr=attr):
                self._named(node, f"{head}.{attr}")
                return
            case nodes.Filter(name=name) if name not in _FILTERS:
                raise self._wrong(node, f"there is no filter `{name}`; there are: {', '.join(sorted(_FILTERS))}")
            case nodes.Test(name=name) if name not in _TESTS:
                raise self._wrong(node, f"there is no test `{name}`; there are: {', '.join(sorted(_TESTS))}")
            case nodes.Operand(op="in" | "notin", expr=nodes.List() | nodes.Tuple() as listed):
                self._items(listed)
                return
            case nodes.Operand(op="in" | "notin"):
                raise self._wrong(node, "`in` looks into a list that is written out, such as `['a', 'b']`")
            case _ if isinstance(node, _LOOKS):
                self.looks += turns
            case _ if not isinstance(node, _PLAIN):
                raise self._wrong(node, f"`{type(node).__name__}` is none of the Jinja that templates may have")
        for inner in node.iter_child_nodes():
            self.look(inner, depth + 1, turns)

    def _look_at_loop(self, node: nodes.For, depth: int, turns: int) -> None:
        if turns > 1 or self._of_loop:
            raise self._wrong(node, "a loop stands in another")
        if node.recursive or node.test is not None:
            raise self._wrong(node, "a loop has no `if` and no `recursive`")
        if not isinstance(node.target, nodes.Name) or node.target.name in (*self._names, "loop", "range"):
            raise self._wrong(node, "a loop needs one name of its own")
        items = self._turns(node)
        self._of_loop = {node.target.name, "loop"}
        for inner in node.body:
            self.look(inner, depth + 1, max(items, 1))
        self._of_loop = set()
        for inner in node.else_:
            self.look(inner, depth + 1)

    def _turns(self, node: nodes.For) -> int:
        turns: object = None
        match node.iter:
            case nodes.List() | nodes.Tuple() as listed:
                turns = self._items(listed)
            case nodes.Call(
                node=nodes.Name(name="range"),
                args=[nodes.Const(value=int(turns))],
                kwargs=[],
                dyn_args=None,
                dyn_kwargs=None,
            ) if not isinstance(turns, bool):
                pass
            case _:
                raise self._wrong(node, "a loop goes over a list that is written out, or over `range(<number>)`")
        assert isinstance(turns, int)
        if turns > _MOST_TURNS:
            raise self._wrong(node, f"a loop turns {turns} times, the limit is {_MOST_TURNS}")
        return turns

    def _items(self, listed: nodes.List | nodes.Tuple) -> int:
        self._steps += len(listed.items)
        if not all(isinstance(item, nodes.Const) for item in listed.items):
            raise self._wrong(listed, "a list has texts and numbers only")
        return len(listed.items)

    def _named(self, node: nodes.Node, name: str) -> None:
        if name in self._of_loop - {"loop"}:
            return
        column = self._column(node.lineno, name)
        if not is_declared(name, self._names):
            raise undeclared(self._field, name, self._names, line=node.lineno, column=column)
        self.holes.append(Hole(name, node.lineno, column or 1))

    def _column(self, line: int, name: str) -> int | None:
        """Jinja's tree knows lines only: where the name first stands in its own."""
        found = re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", self._lines[line - 1]) if line else None
        return None if found is None else found.start() + 1

    def _wrong(self, node: nodes.Node, what: str) -> TemplateError:
        return TemplateError(self._field, what, line=node.lineno or 1, column=None)
