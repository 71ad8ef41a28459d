"""Each scenario of the page on recovery is a test that is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`")


def test_every_test_that_the_page_names_is_there() -> None:
    named = NAMED.findall((ROOT / "docs/how-to/recovery.md").read_text())
    assert len(named) >= 8
    for file, test in named:
        assert f"def {test or 'test_'}" in (ROOT / file).read_text(), f"{file}::{test}"
