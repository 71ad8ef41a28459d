from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import TestDatabase, start_valkey
from tests.integration.generation_machine.machine import GenerationMachine
from tests.integration.generation_machine.world import World


@pytest.fixture
def world(database: TestDatabase, short_folder: Path) -> Iterator[World]:
    # Its own Valkey: it loses everything again and again.
    valkey = start_valkey(short_folder / f"machine-{database.name}")
    made = World(database, valkey.url)
    made.loop.run_until_complete(made.open())
    yield made
    made.loop.run_until_complete(made.close())
    made.loop.close()
    valkey.server.stop()


@pytest.fixture
def machine(world: World) -> Iterator[GenerationMachine]:
    """For a test that says itself which rules to follow. ``teardown`` is the test's own last step."""
    made = GenerationMachine(world)
    yield made
    world.loop.run_until_complete(made.scene.close())
