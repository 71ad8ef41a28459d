"""What import-linter does not see: what is really loaded, and how large modules become."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "event_schemas",
    "backplane",
    "command_api",
    "query_api",
    "workers",
    "projections",
    "gateway",
    "cli",
    "benches",
    "handbook",
)
SERVERS_DRIVERS_AND_FRAMEWORKS = {"alembic", "asyncpg", "fastapi", "redis", "sqlalchemy", "starlette", "uvicorn"}
ENGINES_AND_SDKS = {
    "anthropic",
    "grpc",
    "huggingface_hub",
    "llama_cpp",
    "numpy",
    "openai",
    "torch",
    "transformers",
    "tritonclient",
    "xllamacpp",
}
MOST_LINES = 350


def loaded_by(*modules: str) -> set[str]:
    """Top-level packages outside of the standard library that importing ``modules`` loads in a fresh process."""
    program = (
        "import importlib, json, sys\n"
        "before = set(sys.modules)\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(json.dumps([name for name in new - sys.stdlib_module_names if not name.startswith('_sysconfigdata_')]))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(result.stdout))


def modules_of(folder: str) -> list[str]:
    files = (file.relative_to(ROOT) for file in (ROOT / folder).rglob("*.py"))
    return sorted(".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files)


def test_the_shared_language_loads_pydantic_and_nothing_else() -> None:
    modules = modules_of("event_schemas")
    assert len(modules) > 8
    pydantic = loaded_by("pydantic", "pydantic.annotated_handlers", "annotated_types", "pydantic.json_schema")
    assert "pydantic_core" in pydantic
    assert loaded_by(*modules) - pydantic == {"event_schemas"}


def test_the_ports_load_nothing_of_what_stands_behind_them() -> None:
    modules = modules_of("backplane/ports")
    assert len(modules) > 5
    assert loaded_by(*modules) & SERVERS_DRIVERS_AND_FRAMEWORKS == set()


@pytest.mark.parametrize("service", ["projections", "gateway"])
def test_only_workers_load_workers_and_engines(service: str) -> None:
    loaded = loaded_by(f"{service}.main")
    assert service in loaded
    assert loaded & (ENGINES_AND_SDKS | {"workers"}) == set()


def test_a_worker_loads_the_engine_of_its_own_backend_only() -> None:
    assert loaded_by("workers.main", "workers.inference.scripted") & ENGINES_AND_SDKS == set()


def test_the_command_line_is_quick_because_it_loads_what_a_command_needs_when_it_runs() -> None:
    assert loaded_by("cli.main") & (SERVERS_DRIVERS_AND_FRAMEWORKS | ENGINES_AND_SDKS) == set()


def test_modules_stay_small_and_are_named_for_what_they_are() -> None:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py") if "migrations" not in file.parts]
    assert len(files) > 100
    lengths = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in files}
    assert {name: length for name, length in lengths.items() if length > MOST_LINES} == {}
    vague = {"common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}
    assert [name for name in lengths if vague & set(Path(name).with_suffix("").parts)] == []
