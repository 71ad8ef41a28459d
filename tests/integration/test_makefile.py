from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = [
    *(
        "install",
        "install-llama-cpp-python",
        "install-transformers",
        "server",
        "secrets",
        "pulsar",
        "cluster-local",
        "test",
        "test-clients",
        "test-llama-cpp-python",
        "test-transformers",
        "test-ray",
        "test-pulsar",
        "test-observability",
        "test-cluster",
        "chaos",
        "check",
        "k8s",
        "check-helm",
        "check-deploy",
        "fuzz",
        "bench",
        "bench-engine",
        "bench-doors",
        "bench-keys",
        "bench-scale",
        "schemas",
        "docs",
        "clean",
        "help",
    ),
]


def make(*arguments: str) -> str:
    return subprocess.run(["make", *arguments], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout


def test_make_alone_prints_help() -> None:
    assert make() == make("help")
    assert re.findall(r"^  make ([\w-]+) +\S", make(), re.MULTILINE) == TARGETS[-1:] + TARGETS[:-1]


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_is_there(target: str) -> None:
    assert make("--dry-run", target)


def test_every_target_in_help_is_phony() -> None:
    text = (ROOT / "Makefile").read_text()
    assert sorted(re.findall(r"^\.PHONY: ([\w-]+)$", text, re.MULTILINE)) == sorted(TARGETS)
