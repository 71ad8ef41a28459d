"""What the state machine found, or hardly ever comes upon, step by step."""

from __future__ import annotations

from event_schemas import topics
from event_schemas.generation import GenerationCancelled, GenerationFailed
from tests.integration.generation_machine.backend import Outcome
from tests.integration.generation_machine.machine import GenerationMachine
from tests.integration.generation_machine.process import Mishap, Moment, Place
from tests.integration.generation_machine.scene import COMMANDS
from tests.integration.generation_machine.worker_process import HEARTBEAT_S, LEASE_S


def test_a_repeat_that_comes_while_the_engine_breaks_is_acked(machine: GenerationMachine) -> None:
    prompt = machine.submit(3, None, False, "a")
    machine.submit_again(prompt, "a")
    machine.engine_ends(0, Outcome.BROKEN)
    machine.teardown()


def test_a_repeat_that_comes_while_the_first_is_acked_is_acked(machine: GenerationMachine) -> None:
    prompt = machine.submit(3, None, False, "a")
    machine.worker_will_have("a", Place.ACK, 0, Moment.BEFORE, Mishap.STALL)
    machine.engine_ends(0, Outcome.FINISHED)
    machine.submit_again(prompt, "a")
    machine.worker_resumes("a")
    machine.teardown()


def test_a_lost_attempt_is_not_charged_what_an_earlier_one_used(machine: GenerationMachine) -> None:
    prompt = machine.submit(3, None, False, "a")
    machine.tokens_come(0, 3)
    machine.engine_ends(0, Outcome.BROKEN)
    machine.deliver(prompt, 0, "b")
    machine.worker_goes("b", "crashes")
    machine.lease_expires(prompt, None)
    machine.time_passes(2.5)
    machine.teardown()


def test_a_claim_that_was_committed_and_not_confirmed_is_not_kept_for_ever(machine: GenerationMachine) -> None:
    machine.submit(3, None, False, "a")
    machine.worker_will_have("a", Place.DATABASE, 0, Moment.AFTER, Mishap.ERROR)
    machine.submit(3, None, False, "a")
    machine.time_passes(LEASE_S)
    machine.teardown()


def test_who_was_fenced_does_not_end_the_attempt_of_another(machine: GenerationMachine) -> None:
    prompt = machine.submit(3, None, False, "a")
    machine.lease_expires(prompt, "b")
    machine.engine_ends(0, Outcome.FINISHED)
    assert machine.scene.model.generations[prompt].runs
    machine.teardown()


def test_a_lease_that_was_renewed_after_all_is_not_taken_over(machine: GenerationMachine) -> None:
    prompt = machine.submit(3, None, False, "a")
    machine.worker_will_have("b", Place.DATABASE, 0, Moment.AFTER, Mishap.STALL)
    machine.lease_expires(prompt, "b")
    machine.time_passes(HEARTBEAT_S)
    machine.worker_resumes("b")
    assert machine.scene.model.generations[prompt].attempt == 1
    machine.teardown()


def test_a_follower_waits_for_the_tokens_that_redis_lost(machine: GenerationMachine) -> None:
    prompt = machine.submit(4, None, False, "a")
    machine.project(COMMANDS, 1)
    machine.tokens_come(0, 2)
    machine.redis_loses_its("data")
    machine.follow(prompt, 0, 8)
    (client,) = machine.scene.clients
    machine.tokens_come(0, 1)
    assert client.cursor is None or client.cursor.seq == 0
    machine.time_passes(0.3)
    machine.project(topics.EVENTS, 100)
    machine.time_passes(0.3)
    assert client.cursor == (1, 3)
    machine.teardown()


def test_what_was_to_be_cancelled_is_not_run_again(machine: GenerationMachine) -> None:
    prompt = machine.submit(3, None, False, "a")
    machine.worker_goes("a", "crashes")
    machine.cancel(prompt, "b")
    machine.lease_expires(prompt, "b")
    assert isinstance(machine.scene.model.generations[prompt].terminal, GenerationCancelled)
    machine.teardown()


def test_a_follow_up_that_comes_before_its_parent_waits(machine: GenerationMachine) -> None:
    parent = machine.submit(2, None, False, None)
    follow_up = machine.submit(2, parent, True, "a")
    assert machine.scene.model.generations[follow_up].attempt is None
    machine.teardown()


def test_what_no_pool_can_serve_has_failed(machine: GenerationMachine) -> None:
    prompt = machine.submit(2, None, False, "a", 1)
    machine.engine_ends(0, Outcome.AWAY)
    machine.project(topics.EVENTS, 100)
    for _ in range(2):
        machine.deliver(prompt, -1, "b")
        machine.time_passes(2.5)
        machine.engine_ends(0, Outcome.BROKEN)
    machine.time_passes(2.5)
    ended = machine.scene.model.generations[prompt]
    assert ended.handed_on == 1
    assert isinstance(ended.terminal, GenerationFailed)
    assert ended.terminal.attempt == 4
    machine.teardown()


def test_what_was_handed_on_and_cancelled_is_not_run(machine: GenerationMachine) -> None:
    prompt = machine.submit(2, None, False, "a", 1)
    machine.engine_ends(0, Outcome.AWAY)
    machine.cancel(prompt, "b")
    machine.project(topics.EVENTS, 100)
    machine.deliver(prompt, -1, "b")
    assert isinstance(machine.scene.model.generations[prompt].terminal, GenerationCancelled)
    machine.teardown()


def test_who_lost_its_last_lease_here_is_fenced_by_the_next_pool(machine: GenerationMachine) -> None:
    prompt = machine.submit(1, None, False, "a", 1)
    machine.engine_ends(0, Outcome.BROKEN)
    machine.time_passes(0.3)
    machine.lease_expires(prompt, "b")
    assert machine.scene.model.generations[prompt].handed_on == 1
    machine.engine_ends(0, Outcome.FINISHED)
    assert machine.scene.model.generations[prompt].runs
    machine.teardown()
