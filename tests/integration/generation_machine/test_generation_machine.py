"""Worker, claim, redelivery and stream resume against a model, with Redis losing its data at any step.

Rules drive real workers, a real query API's followers and real projections on a real Postgres and a real Valkey. Only
the bus and the engine are the test's own, so that each delivery and each token happens by rule; and time stands still
unless a rule lets it pass. Between two rules everything goes on as far as it can by itself.

A longer hunt: ``PARLEY_MACHINE_EXAMPLES=2000 pytest tests/integration/generation_machine --hypothesis-seed=7``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from inspect import isawaitable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from backplane.ports.token_stream import Cursor
from tests.conftest import TestDatabase, start_valkey
from tests.integration.generation_machine.backend import Outcome
from tests.integration.generation_machine.client import Client
from tests.integration.generation_machine.ending import end, nothing_is_held_for_nobody
from tests.integration.generation_machine.model import MOST_ATTEMPTS
from tests.integration.generation_machine.process import Mishap, Moment, Place, Trap
from tests.integration.generation_machine.scene import TOPICS, Scene
from tests.integration.generation_machine.worker_process import HEARTBEAT_S
from tests.integration.generation_machine.world import SLOTS, World
from tests.integration.prompts import scripted

EXAMPLES = int(os.environ.get("PARLEY_MACHINE_EXAMPLES", "40"))
STEPS = 30

slots = st.sampled_from(SLOTS)
which = st.integers(0, 5)
"""One of several, counted round."""


class GenerationMachine(RuleBasedStateMachine):
    prompts: Bundle[UUID] = Bundle("prompts")
    followers: Bundle[Client] = Bundle("followers")

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.broken = False
        self.scene = Scene(world)
        self.do(self.scene.open)

    def do(self, act: Callable[[], object]) -> None:
        """Do this, then let everything go as far as it goes by itself, and hold it against the model."""

        async def whole() -> None:
            done = act()
            if isawaitable(done):
                await done
            await self.scene.settled()

        try:
            self.world.loop.run_until_complete(whole())
        except BaseException:
            self.broken = True
            raise

    # Prompts

    @initialize(target=prompts, count=st.integers(1, 4))
    def submit_first(self, count: int) -> UUID:
        return self.submit(count, None, False, "a")

    @rule(
        target=prompts,
        count=st.integers(0, 4),
        before=st.none() | prompts,
        as_follow_up=st.booleans(),
        slot=st.none() | slots,
    )
    def submit_another(self, count: int, before: UUID | None, as_follow_up: bool, slot: str | None) -> UUID:
        return self.submit(count, before, as_follow_up, slot)

    def submit(self, count: int, before: UUID | None, as_follow_up: bool, slot: str | None) -> UUID:
        """It is delivered at once, to ``slot``, or when a rule says so."""
        earlier = None if before is None else self.scene.model.generations[before].prompt
        scripts = [
            {"tokens": [f"{attempt}.{place}é " for place in range(1, count + 1)]}
            for attempt in range(1, MOST_ATTEMPTS + 1)
        ]
        prompt = scripted(
            *scripts,
            conversation=earlier.conversation_id if earlier else None,
            parent=earlier.generation_id if earlier and as_follow_up else None,
        )
        self.scene.submit(prompt)
        if slot is not None:
            self.do(lambda: self.scene.deliver(self.scene.letters[prompt.generation_id][0], slot))
        return prompt.generation_id

    @rule(prompt=prompts, slot=slots)
    def submit_again(self, prompt: UUID, slot: str) -> None:
        self.do(lambda: self.scene.deliver(self.scene.repeat(prompt), slot))

    @rule(prompt=prompts, slot=slots)
    def cancel(self, prompt: UUID, slot: str) -> None:
        self.do(lambda: self.scene.deliver(self.scene.cancel(prompt), slot))

    @rule(prompt=prompts, letter=which, slot=slots)
    def deliver(self, prompt: UUID, letter: int, slot: str) -> None:
        letters = self.scene.letters[prompt]
        self.do(lambda: self.scene.deliver(letters[letter % len(letters)], slot))

    # The engine

    @precondition(lambda self: self.scene.backend.gates)
    @rule(run=which, tokens=st.integers(1, 3))
    def tokens_come(self, run: int, tokens: int) -> None:
        self.do(lambda: self._gate(run).let(tokens))

    @precondition(lambda self: self.scene.backend.gates)
    @rule(run=which, outcome=st.sampled_from(Outcome))
    def engine_ends(self, run: int, outcome: Outcome) -> None:
        self.do(lambda: self._gate(run).let(float("inf") if outcome is Outcome.FINISHED else 0, outcome))

    def _gate(self, run: int) -> Any:
        gates = list(self.scene.backend.gates.values())
        return gates[run % len(gates)]

    # Processes

    @rule(slot=slots)
    def worker_crashes(self, slot: str) -> None:
        self.do(lambda: self.scene.worker(slot).crash())

    @rule(slot=slots)
    def worker_is_terminated(self, slot: str) -> None:
        self.do(lambda: self.scene.terminate(slot))

    @rule(
        slot=slots,
        place=st.sampled_from(Place),
        skip=st.integers(0, 3),
        moment=st.sampled_from(Moment),
        mishap=st.sampled_from(Mishap),
    )
    def worker_will_have(self, slot: str, place: Place, skip: int, moment: Moment, mishap: Mishap) -> None:
        self.do(lambda: self.scene.worker(slot).set_trap(Trap(place, skip, moment, mishap)))

    @precondition(lambda self: any(process.stalls for process in self.scene.processes))
    @rule(slot=slots)
    def worker_resumes(self, slot: str) -> None:
        def resume() -> None:
            for process in self.scene.processes:
                if process.name.startswith(slot):
                    process.resume()

        self.do(resume)

    @rule(prompt=prompts)
    def lease_expires(self, prompt: UUID) -> None:
        self.do(lambda: self.scene.expire(prompt))

    @rule(seconds=st.sampled_from((0.3, 2.5, HEARTBEAT_S)))
    def time_passes(self, seconds: float) -> None:
        self.do(lambda: self.scene.pass_time(seconds))

    @rule()
    def much_time_passes(self) -> None:
        self.do(lambda: nothing_is_held_for_nobody(self.scene))

    # Followers

    @rule(target=followers, prompt=prompts, cursor=st.integers(0, 12))
    def follow(self, prompt: UUID, cursor: int) -> Client:
        cursors: list[Cursor | None] = [None, Cursor(0, 0)]
        for (generation_id, attempt), deltas in self.scene.backend.produced.items():
            if generation_id == prompt:
                cursors += [Cursor(attempt, seq) for seq in range(len(deltas) + 1)]
        client = self.scene.follower(prompt, cursors[cursor % len(cursors)])
        self.do(lambda: self.scene.connect(client))
        return client

    @rule(client=followers, steps=st.integers(1, 8))
    def read(self, client: Client, steps: int) -> None:
        self.do(lambda: client.read(steps))

    @precondition(lambda self: any(client.connected for client in self.scene.clients))
    @rule(client=followers)
    def cut(self, client: Client) -> None:
        self.do(client.cut)

    @rule(client=followers)
    def resume(self, client: Client) -> None:
        if not client.connected and client.ending is None:
            self.do(lambda: self.scene.connect(client))

    # Redis, the relay and the projections

    @precondition(lambda self: self.scene.backend.produced)
    @rule()
    def redis_loses_its_data(self) -> None:
        self.do(lambda: self.world.redis_command("FLUSHALL"))

    @precondition(lambda self: self.scene.backend.produced)
    @rule()
    def redis_drops_its_connections(self) -> None:
        async def drop() -> None:
            for kind in ("normal", "pubsub"):
                await self.world.redis_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            # Time enough to connect again, as all do who listen.
            await self.world.loop.quiet()
            self.world.loop.pass_time(0.1)

        self.do(drop)

    @precondition(lambda self: self.scene.unprojected())
    @rule(topic=st.sampled_from(TOPICS), most=st.sampled_from((1, 3, 100)))
    def project(self, topic: str, most: int) -> None:
        self.do(lambda: self.scene.project(topic, most))

    @precondition(lambda self: any(one.lost for one in self.scene.model.generations.values()))
    @rule()
    def relay(self) -> None:
        self.do(self.scene.relay)

    def teardown(self) -> None:
        try:
            if not self.broken:
                self.do(lambda: end(self.scene))
        finally:
            self.world.loop.run_until_complete(self.scene.close())


@pytest.fixture
def world(database: TestDatabase, tmp_path_factory: pytest.TempPathFactory, short_folder: Path) -> Iterator[World]:
    # Its own Valkey: it loses everything again and again.
    valkey = start_valkey(short_folder / "machine")
    made = World(database, valkey.url)
    asyncio.set_event_loop(None)
    made.loop.run_until_complete(made.open())
    yield made
    made.loop.run_until_complete(made.close())
    made.loop.close()
    valkey.server.stop()


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


def test_a_repeat_that_comes_while_the_engine_breaks_is_acked(world: World) -> None:
    machine = GenerationMachine(world)
    prompt = machine.submit(3, None, False, "a")
    machine.submit_again(prompt, "a")
    machine.engine_ends(0, Outcome.BROKEN)
    machine.teardown()


def test_a_repeat_that_comes_while_the_first_is_acked_is_acked(world: World) -> None:
    machine = GenerationMachine(world)
    prompt = machine.submit(3, None, False, "a")
    machine.worker_will_have("a", Place.ACK, 0, Moment.BEFORE, Mishap.STALL)
    machine.engine_ends(0, Outcome.FINISHED)
    machine.submit_again(prompt, "a")
    machine.worker_resumes("a")
    machine.teardown()


def test_a_lost_attempt_is_not_charged_what_an_earlier_one_used(world: World) -> None:
    machine = GenerationMachine(world)
    prompt = machine.submit(3, None, False, "a")
    machine.tokens_come(0, 3)
    machine.engine_ends(0, Outcome.BROKEN)
    machine.deliver(prompt, 0, "b")
    machine.worker_crashes("b")
    machine.lease_expires(prompt)
    machine.time_passes(2.5)
    machine.teardown()


def test_a_claim_that_was_committed_and_not_confirmed_is_not_kept_for_ever(world: World) -> None:
    machine = GenerationMachine(world)
    machine.submit(3, None, False, "a")
    machine.worker_will_have("a", Place.DATABASE, 0, Moment.AFTER, Mishap.ERROR)
    machine.submit(3, None, False, "a")
    machine.much_time_passes()
    machine.teardown()
