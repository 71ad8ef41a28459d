"""The page of the command line: Typer's own documentation of `parley`."""

from __future__ import annotations

import re

import typer
from typer.cli import get_docs_for_click
from typer.main import get_command

from cli.main import app

_CODE = re.compile(r"(^```.*?^```|`[^`\n]*`)", re.MULTILINE | re.DOTALL)


def page() -> str:
    """Every command with its arguments, options and examples, in Markdown."""
    command = get_command(app)
    told = get_docs_for_click(obj=command, ctx=typer.Context(command), name="parley")
    parts = _CODE.split(told)
    # A placeholder such as <data folder> is no HTML.
    parts[::2] = [part.replace("<", "&lt;") for part in parts[::2]]
    return "".join(parts).replace("# `parley`\n", "# Command line\n", 1)
