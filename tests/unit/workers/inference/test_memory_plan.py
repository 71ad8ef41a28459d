from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from workers.inference.memory_plan import Admit, Load, MemoryPlan, Unload, Waiter

PATIENCE_S = 10.0


class Memory:
    """A plan, and a machine that does what it says at once."""

    def __init__(self, needs: dict[str, int], limit: int | None) -> None:
        self.plan = MemoryPlan(needs, limit, PATIENCE_S)
        self.now = 0.0
        self.done: list[str] = []

    def settle(self) -> None:
        while (step := self.plan.next(self.now)) is not None:
            match step:
                case Admit(waiter):
                    self.done.append(f"run {waiter.model}")
                case Load(model):
                    self.done.append(f"load {model}")
                    self.plan.loaded(model, self.now)
                case Unload(model):
                    self.done.append(f"unload {model}")
                    self.plan.gone(model)

    def ask(self, model: str) -> Waiter:
        waiter = self.plan.ask(model, self.now)
        self.settle()
        return waiter

    def ended(self, model: str) -> None:
        self.plan.done(model)
        self.settle()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.settle()

    def said(self) -> list[str]:
        said, self.done = self.done, []
        return said


def test_two_who_want_the_same_model_load_it_once() -> None:
    memory = Memory({"a": 1}, 1)
    memory.plan.ask("a", 0.0)
    memory.ask("a")
    assert memory.said() == ["load a", "run a", "run a"]


def test_the_least_recently_used_model_that_runs_nothing_makes_room() -> None:
    memory = Memory({"a": 1, "b": 1, "c": 1, "d": 1}, 3)
    for model in "abc":
        memory.ask(model)
    memory.ended("b")
    memory.ended("c")
    memory.ask("b")
    memory.ended("b")
    memory.said()
    memory.ask("d")
    assert memory.said() == ["unload c", "load d", "run d"]


def test_no_more_is_unloaded_than_has_to_be() -> None:
    memory = Memory({"small": 1, "large": 3, "next": 2}, 4)
    for model in ("small", "large"):
        memory.ask(model)
        memory.ended(model)
    memory.said()
    memory.ask("next")
    assert memory.said() == ["unload small", "unload large", "load next", "run next"]


def test_without_a_limit_all_stay() -> None:
    memory = Memory({"a": 10**12, "b": 10**12}, None)
    for model in "abab":
        memory.ask(model)
    assert memory.said() == ["load a", "run a", "load b", "run b", "run a", "run b"]


def test_a_load_waits_for_what_runs_and_others_are_let_in_until_its_patience_ends() -> None:
    memory = Memory({"a": 1, "b": 1}, 1)
    memory.ask("a")
    memory.ask("b")
    memory.ask("a")
    assert memory.said() == ["load a", "run a", "run a"]
    assert memory.plan.patience_ends() == PATIENCE_S
    memory.wait(PATIENCE_S)
    memory.ask("a")
    memory.ended("a")
    assert memory.said() == []
    memory.ended("a")
    assert memory.said() == ["unload a", "load b", "run b"]
    # The one that was kept out for b waits in its turn, and b is left alone for as long.
    assert memory.plan.patience_ends() == 2 * PATIENCE_S
    memory.wait(PATIENCE_S)
    memory.ask("b")
    assert memory.said() == []
    memory.ended("b")
    assert memory.said() == ["unload b", "load a", "run a"]


def test_a_waiter_that_leaves_opens_what_was_closed_for_it() -> None:
    memory = Memory({"a": 1, "b": 1}, 1)
    memory.ask("a")
    waiter = memory.ask("b")
    memory.wait(PATIENCE_S)
    memory.ask("a")
    assert memory.said() == ["load a", "run a"]
    memory.plan.leave(waiter)
    memory.settle()
    assert memory.said() == ["run a"]
    assert memory.plan.patience_ends() is None


def test_a_lost_model_is_loaded_anew_once_nothing_runs_there() -> None:
    memory = Memory({"a": 1}, 1)
    memory.ask("a")
    memory.plan.lost("a")
    memory.ask("a")
    assert memory.said() == ["load a", "run a"]
    memory.ended("a")
    assert memory.said() == ["unload a", "load a", "run a"]


def test_a_load_that_failed_leaves_its_room_to_the_next_one() -> None:
    plan = MemoryPlan({"a": 1, "b": 1}, 1)
    first, second = plan.ask("a", 0.0), plan.ask("b", 0.0)
    assert plan.next(0.0) == Load("a")
    assert plan.next(0.0) is None
    assert plan.waiting_for("a") == [first]
    plan.leave(first)
    plan.gone("a")
    assert plan.next(0.0) == Load("b")
    plan.loaded("b", 0.0)
    assert plan.next(0.0) == Admit(second)
    assert plan.next(0.0) is None


MODELS = "abcd"
LIMIT = 10


class AnyUse(RuleBasedStateMachine):
    """Any order of asking, leaving, ending, breaking down and time, with loads and unloads that take a while."""

    @initialize(needs=st.tuples(*[st.integers(1, LIMIT)] * len(MODELS)))
    def begin(self, needs: tuple[int, ...]) -> None:
        self.needs = dict(zip(MODELS, needs, strict=True))
        self.plan = MemoryPlan(self.needs, LIMIT, PATIENCE_S)
        self.now = 0.0
        self.waiting: list[Waiter] = []
        self.running: list[str] = []
        self.present: set[str] = set()
        self.loading: list[str] = []
        self.unloading: list[str] = []

    def settle(self) -> None:
        while (step := self.plan.next(self.now)) is not None:
            match step:
                case Admit(waiter):
                    assert waiter.model in self.present
                    self.waiting.remove(waiter)
                    self.running.append(waiter.model)
                case Load(model):
                    assert not self.loading, "one load at a time"
                    assert model not in self.present | set(self.unloading)
                    self.loading.append(model)
                case Unload(model):
                    assert model not in self.running, "a busy one is never unloaded"
                    self.present.remove(model)
                    self.unloading.append(model)

    @rule(model=st.sampled_from(MODELS))
    def ask(self, model: str) -> None:
        self.waiting.append(self.plan.ask(model, self.now))
        self.settle()

    @rule(which=st.integers(0))
    def leave(self, which: int) -> None:
        if self.waiting:
            self.plan.leave(self.waiting.pop(which % len(self.waiting)))
            self.settle()

    @rule(which=st.integers(0))
    def end(self, which: int) -> None:
        if self.running:
            self.plan.done(self.running.pop(which % len(self.running)))
            self.settle()

    @rule(well=st.booleans())
    def end_load(self, well: bool) -> None:
        if not self.loading:
            return
        model = self.loading.pop()
        if well:
            self.present.add(model)
            self.plan.loaded(model, self.now)
        else:
            for waiter in self.plan.waiting_for(model):
                self.plan.leave(waiter)
                self.waiting.remove(waiter)
            self.plan.gone(model)
        self.settle()

    @rule()
    def end_unload(self) -> None:
        if self.unloading:
            self.plan.gone(self.unloading.pop(0))
            self.settle()

    @rule(model=st.sampled_from(MODELS))
    def break_down(self, model: str) -> None:
        if model in self.plan.in_memory:
            self.plan.lost(model)
            self.settle()

    @rule(seconds=st.floats(0.1, 2 * PATIENCE_S))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.settle()

    @invariant()
    def the_limit_is_kept(self) -> None:
        held = (*self.present, *self.loading, *self.unloading)
        assert sum(self.needs[model] for model in held) <= LIMIT
        assert self.plan.bytes == sum(self.needs[model] for model in held)

    def teardown(self) -> None:
        """Everybody is served in the end, although a steady flow wants what is loaded."""
        if not hasattr(self, "plan"):
            return
        served = list(self.waiting)
        for _ in range(200):
            if not any(waiter in self.waiting for waiter in served):
                return
            self.wait(PATIENCE_S / 2)
            before = list(self.running)
            for model in sorted(self.present):
                self.ask(model)
            if self.loading:
                self.end_load(well=True)
            self.end_unload()
            # Only now, so that what is loaded always runs something unless nobody is let in.
            for model in before:
                self.end(self.running.index(model))
        raise AssertionError(f"{len(served)} waited, and some still do")


AnyUse.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_any_use = AnyUse.TestCase
