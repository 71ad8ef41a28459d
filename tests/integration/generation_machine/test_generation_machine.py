"""Worker, claim, redelivery and stream resume against a model, with Redis losing its data at any step.

Rules drive real workers, a real query API's followers and real projections on a real Postgres and a real Valkey. Only
the bus and the engine are the test's own, so that each delivery and each token happens by rule; and time stands still
unless a rule lets it pass. Between two rules everything goes on as far as it can by itself.

A longer hunt: ``PARLEY_MACHINE_EXAMPLES=2000 pytest tests/integration/generation_machine --hypothesis-seed=7``.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.integration.generation_machine.machine import GenerationMachine
from tests.integration.generation_machine.world import World

EXAMPLES = int(os.environ.get("PARLEY_MACHINE_EXAMPLES", "60"))
STEPS = 30


@pytest.mark.timeout(3600)
def test_every_generation_ends_once_and_every_follower_gets_it_whole(world: World) -> None:
    run_state_machine_as_test(
        lambda: GenerationMachine(world),  # type: ignore[arg-type]  # it takes a function as well
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            print_blob=True,
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
