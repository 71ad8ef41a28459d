"""The rules: all that may happen to prompts, workers, followers, Redis and the projections, in any order."""

from __future__ import annotations

from collections.abc import Callable
from inspect import isawaitable
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, rule

from backplane.ports.token_stream import Cursor
from event_schemas.generation import Fallback
from tests.integration.generation_machine.backend import Outcome
from tests.integration.generation_machine.client import Client
from tests.integration.generation_machine.ending import end, nothing_is_held_for_nobody
from tests.integration.generation_machine.model import MOST_ATTEMPTS
from tests.integration.generation_machine.process import Mishap, Moment, Place, Trap
from tests.integration.generation_machine.scene import TOPICS, Scene
from tests.integration.generation_machine.worker_process import HEARTBEAT_S, LEASE_S
from tests.integration.generation_machine.world import SLOTS, World
from tests.integration.prompts import POOL, SPARE, scripted

_CHAIN = (Fallback(pool=SPARE, model="scripted"), Fallback(pool=POOL, model="another"))

slots = st.sampled_from(SLOTS)
which = st.integers(0, 5)
"""One of several, counted round."""


class GenerationMachine(RuleBasedStateMachine):
    """A rule that does not apply does nothing: what is drawn next never depends on what the servers did before."""

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

    @initialize(target=prompts, count=st.integers(1, 4), fallbacks=st.integers(0, 2))
    def submit_first(self, count: int, fallbacks: int) -> UUID:
        return self.submit(count, None, False, "a", fallbacks)

    @rule(
        target=prompts,
        count=st.integers(0, 4),
        before=st.none() | prompts,
        as_follow_up=st.booleans(),
        slot=st.none() | slots,
        fallbacks=st.integers(0, 2),
    )
    def submit_another(
        self, count: int, before: UUID | None, as_follow_up: bool, slot: str | None, fallbacks: int
    ) -> UUID:
        return self.submit(count, before, as_follow_up, slot, fallbacks)

    def submit(self, count: int, before: UUID | None, as_follow_up: bool, slot: str | None, fallbacks: int = 0) -> UUID:
        """It is delivered at once, to ``slot``, or when a rule says so."""
        earlier = None if before is None else self.scene.model.generations[before].prompt
        scripts = [
            {"tokens": [f"{attempt}.{place}é " for place in range(1, count + 1)]}
            for attempt in range(1, MOST_ATTEMPTS * (fallbacks + 1) + 1)
        ]
        prompt = scripted(
            *scripts,
            conversation=earlier.conversation_id if earlier else None,
            parent=earlier.generation_id if earlier and as_follow_up else None,
            fallbacks=_CHAIN[:fallbacks],
        )
        self.do(lambda: self.scene.submit(prompt))
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

    @rule(run=which, tokens=st.integers(1, 3))
    def tokens_come(self, run: int, tokens: int) -> None:
        self.let(run, tokens, None)

    @rule(run=which, outcome=st.sampled_from(Outcome))
    def engine_ends(self, run: int, outcome: Outcome) -> None:
        self.let(run, float("inf") if outcome is Outcome.FINISHED else 0, outcome)

    def let(self, run: int, tokens: float, outcome: Outcome | None) -> None:
        if gates := list(self.scene.backend.gates.values()):
            self.do(lambda: gates[run % len(gates)].let(tokens, outcome))

    # Processes

    @rule(slot=slots, how=st.sampled_from(("crashes", "is terminated")))
    def worker_goes(self, slot: str, how: str) -> None:
        def go() -> None:
            process = self.scene.worker(slot)
            process.crash() if how == "crashes" else process.terminate()

        self.do(go)

    @rule(
        slot=slots,
        place=st.sampled_from(Place),
        skip=st.integers(0, 3),
        moment=st.sampled_from(Moment),
        mishap=st.sampled_from(Mishap),
    )
    def worker_will_have(self, slot: str, place: Place, skip: int, moment: Moment, mishap: Mishap) -> None:
        self.do(lambda: self.scene.worker(slot).set_trap(Trap(place, skip, moment, mishap)))

    @rule(slot=slots)
    def worker_resumes(self, slot: str) -> None:
        def resume() -> None:
            for process in self.scene.processes:
                if process.name.startswith(slot):
                    process.resume()

        self.do(resume)

    @rule(prompt=prompts, slot=st.none() | slots)
    def lease_expires(self, prompt: UUID, slot: str | None) -> None:
        """Its worker was away for too long, and knows nothing of it; perhaps another takes over at once."""
        self.do(lambda: self.scene.expire(prompt))
        if slot is not None:
            self.deliver(prompt, 0, slot)

    @rule(seconds=st.sampled_from((0.3, 2.5, HEARTBEAT_S, LEASE_S)))
    def time_passes(self, seconds: float) -> None:
        if seconds == LEASE_S:
            self.do(lambda: nothing_is_held_for_nobody(self.scene))
        else:
            self.do(lambda: self.scene.pass_time(seconds))

    # Followers

    @rule(target=followers, prompt=prompts, cursor=st.integers(0, 12), steps=st.integers(0, 8))
    def follow(self, prompt: UUID, cursor: int, steps: int) -> Client:
        cursors: list[Cursor | None] = [None, Cursor(0, 0)]
        for (generation_id, attempt), deltas in self.scene.backend.produced.items():
            if generation_id == prompt:
                cursors += [Cursor(attempt, seq) for seq in range(len(deltas) + 1)]
        client = self.scene.follower(prompt, cursors[cursor % len(cursors)])
        self.do(lambda: self.scene.connect(client))
        self.read(client, steps)
        return client

    @rule(client=followers, steps=st.integers(0, 8))
    def read(self, client: Client, steps: int) -> None:
        self.do(lambda: client.read(steps))

    @rule(client=followers)
    def cut_or_resume(self, client: Client) -> None:
        if client.connected:
            self.do(client.cut)
        elif client.ending is None:
            self.do(lambda: self.scene.connect(client))

    # Redis, the relay and the projections

    @rule(what=st.sampled_from(("data", "connections")))
    def redis_loses_its(self, what: str) -> None:
        async def drop_connections() -> None:
            for kind in ("normal", "pubsub"):
                await self.world.redis_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            # Time enough to connect again, as all do who listen.
            await self.world.loop.quiet()
            self.world.loop.pass_time(0.1)

        self.do(drop_connections if what == "connections" else lambda: self.world.redis_command("FLUSHALL"))

    @rule(topic=st.sampled_from(TOPICS), most=st.sampled_from((1, 3, 100)))
    def project(self, topic: str, most: int) -> None:
        async def relay_and_project() -> None:
            await self.scene.relay()
            await self.scene.project(topic, most)

        self.do(relay_and_project)

    def teardown(self) -> None:
        try:
            if not self.broken:
                self.do(lambda: end(self.scene))
        finally:
            self.world.loop.run_until_complete(self.scene.close())
