"""The packaged model, assembled once and kept in pytest's cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.inference.packaged_model import assemble_packaged


@pytest.fixture(scope="session")
def packaged_model(pytestconfig: pytest.Config) -> Path:
    return assemble_packaged(pytestconfig.cache.mkdir("parley-models"), lambda doing, share: None)
