"""What the pages name is there: settings, commands and their options, make targets, routes, files, links."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from backplane.settings import Settings
from cli.main import app
from handbook.settings_page import sections
from tests.unit.backplane.test_permissions import routes as routes_with_permissions

ROOT = Path(__file__).parents[2]
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")), *(ROOT / "docs").glob("**/*.md")]
PAGES = sorted(page for page in PAGES if "node_modules" not in page.parts)
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
WITHOUT_PERMISSION = ("/", "/docs", "/openapi.json", "/healthz", "/readyz", "/metrics")
NOT_SETTINGS = {"PARLEY_SETTINGS", "PARLEY_SECRETS_DIR", "PARLEY_URL", "PARLEY_API_KEY", "PARLEY_UID"}
METHODS = "GET|POST|PUT|PATCH|DELETE|WS"

pytestmark = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def code(page: Path) -> Iterator[str]:
    """Each line of code blocks, and each code span."""
    text = page.read_text().replace("\\\n", " ")
    for _, language, block in FENCE.findall(text):
        if language in ("", "sh"):
            yield from block.splitlines()
    prose = FENCE.sub("", text)
    yield from (line for line in prose.splitlines() if line.startswith("    "))
    for span in re.findall(r"`([^`]+)`", prose):
        yield " ".join(span.split()).replace("\\|", "|")


@cache
def settings() -> re.Pattern[str]:
    """Every name in the environment; what has names of its own, or is one table, as JSON too."""
    names = {variable for section in sections() for variable, _ in section.rows()}
    for section in sections():
        names |= {"PARLEY_" + "__".join(section.path[:depth]).upper() for depth in range(1, len(section.path) + 1)}
    names |= {"LLM_" + name for name in ("MODEL_FILE", "HUGGINGFACE_REPO", "HUGGINGFACE_FILE", "GPU_LAYERS")}
    names |= {"LLM_CONTEXT_WINDOW", "LLM_CPU_THREADS"}
    return re.compile("|".join(re.escape(name).replace("<NAME>", "[A-Z0-9_]+?") for name in names))


def test_settings_are_there(page: Path) -> None:
    named = re.findall(r"(?<![A-Z_…])(?:PARLEY|LLM)_[A-Z][A-Z0-9_]*[A-Z0-9](?![A-Z0-9_…{])", page.read_text())
    assert {name for name in named if not settings().fullmatch(name)} - NOT_SETTINGS == set()


@cache
def tables() -> str:
    """Schemas of the database have names that sections of the settings have, too."""
    folder = ROOT / "backplane" / "adapters" / "postgres" / "migrations"
    return "\n".join(file.read_text() for file in folder.rglob("*.sql"))


def test_dotted_settings_are_there(page: Path) -> None:
    known = {".".join((*section.path, name)) for section in sections() for name in section.model.model_fields}
    known |= {".".join(section.path) for section in sections()}
    named = {
        found[1]
        for span in code(page)
        if (found := re.fullmatch(r"\[?([a-z]+(?:\.[a-z_]+)+)\]?(?: = .*)?", span))
        and found[1].split(".")[0] in Settings.model_fields
        and not found[1].endswith((".py", ".md", ".toml"))
    }
    wrong = {name for name in named - known if not name.startswith(("pools.", "oidc."))}
    assert {name for name in wrong if not re.search(rf"\b{re.escape(name)}\b", tables())} == set()


def test_make_targets_are_there(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for line in code(page) for name in re.findall(r"(?:^|[;&(] *|\d )make ([a-z][a-z0-9-]*)", line)}
    assert named - targets == set()


def test_commands_and_options_are_there(page: Path) -> None:
    assert list(wrong_commands(page)) == []


def wrong_commands(page: Path) -> Iterator[str]:
    for line in code(page):
        if re.match(r"\s*(helm|kubectl|pulsar-admin|bin/pulsar-admin) ", line):
            continue  # to these, `parley` is a release or a namespace
        for told in re.findall(r"(?:^|[\s(;&]|bin/)parley ((?:[a-z]|--).*?)(?= *(?:[;&)#<>·]|\| |$))", line):
            yield from (f"parley {told}: {wrong}" for wrong in unknown(told.split(), get_command(app)))


def unknown(words: list[str], command: Any) -> Iterator[str]:
    """What of ``words`` ``command`` does not know: names of commands, and options."""
    while words and hasattr(command, "commands"):
        names = re.split(r"\|", words.pop(0).strip("[],"))
        yield from (name for name in names if name not in command.commands)
        if any(name not in command.commands for name in names) or len(names) > 1:
            return
        command = command.commands[names[0]]
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if (option := re.match(r"\[?(--[a-z][a-z-]*)", word)) and option[1] not in options | {"--help"}:
            yield option[1]


@cache
def routes() -> list[tuple[str, re.Pattern[str]]]:
    """Each method and path that the gateway answers."""
    known = [name.replace("SOCKET ", "WS ").split(" ") for name, _ in routes_with_permissions()]
    known += [["GET", path] for path in WITHOUT_PERMISSION]
    return [(method, re.compile(re.sub(r"\{[^}]+\}", "[^/]+", path))) for method, path in known]


def test_routes_are_there(page: Path) -> None:
    known, wrong = routes(), set()
    for line in code(page):
        for method, path in re.findall(rf"\b({METHODS}) (/[^\s?`\"',;]+)", line):
            mine = [pattern for one, pattern in known if one == method]
            wrong |= {f"{method} {one}" for one in spread(path) if not any(p.fullmatch(one) for p in mine)}
        for path in re.findall(r"(?:\$\{?(?:PARLEY_)?URL\}?|127\.0\.0\.1:8000)(/[a-z][^\s?`\"'#;>)]*)", line):
            wrong |= {one for one in spread(path) if not any(p.fullmatch(one) for _, p in known)}
    assert wrong == set()


def spread(path: str) -> list[str]:
    """``/a/b|c`` is two. What is cut short with an ellipsis is not looked at, nor is the base URL of SDKs."""
    if path == "/v1" or "…/" in path or path.endswith("/…"):
        return []
    *front, last = path.rstrip(".").split("/")
    return ["/".join([*front, one]) for one in last.split("|")]


def test_files_and_links_are_there(page: Path) -> None:
    packages = "|".join(folder.name for folder in ROOT.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    wrong = {
        path
        for span in code(page)
        if (path := span) and re.fullmatch(rf"(?:{packages})/[\w./-]+\.\w+|(?:{packages})/[\w/-]*/", span)
        if not (ROOT / path).exists() and not path.endswith(".gguf")
    }
    text = FENCE.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        made = {"settings.md", "commands.md", "openapi.json"}
        if "://" not in target and target.rsplit("/", 1)[-1] not in made and not (page.parent / target).exists():
            wrong.add(target)
    assert wrong == set()


def test_shell_blocks_are_shell(page: Path) -> None:
    for _, language, block in FENCE.findall(page.read_text()):
        if language == "sh":
            read = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, timeout=30)
            assert read.returncode == 0, f"{read.stderr}\n{block}"
