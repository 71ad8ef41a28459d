"""Several models in one pool, with the real engine: the packaged model under several names."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from prometheus_client import REGISTRY

from backplane.settings import LlmSettings, PoolSettings
from event_schemas.generation import Parameters
from tests.contract.inference.packaged import packaged_model as packaged_model
from tests.contract.inference.requests import SONG, answer, request
from tests.unit.workers.inference.gguf_files import language_model
from workers.inference.gguf import read_header
from workers.inference.many_models import ManyModels
from workers.inference.model_memory import needed_bytes
from workers.inference.port import BackendUnavailable, Delta, InferenceRequest, Item, RequestRefused

pytestmark = [pytest.mark.model, pytest.mark.timeout(300)]

WINDOW = 1024
SLOTS = 4
DEADLINE_S = 60.0
POOL = "many"
LLM = LlmSettings(cpu_threads=1)
SHORT = Parameters(max_tokens=6, temperature=0)
LONG = Parameters(max_tokens=700, temperature=0)


@pytest.fixture
def files(packaged_model: Path, tmp_path: Path) -> dict[str, Path]:
    """Three files that are the same model."""
    made = {name: tmp_path / f"{name}.gguf" for name in ("first", "second", "third")}
    for path in made.values():
        path.symlink_to(packaged_model)
    return made


def asking(model: str, *messages: str, parameters: Parameters = SHORT) -> InferenceRequest:
    return replace(request(*messages, parameters=parameters), model=model)


def room_for(models: int, packaged_model: Path, slots: int = SLOTS) -> int:
    """Bytes with which exactly so many of these models fit."""
    header = read_header(packaged_model)
    need = needed_bytes(header, header.size, window=WINDOW, slots=slots, kv_cache_type="f16")
    return need * models + need // 2


def pool(files: dict[str, Path], limit: int | None, **more: object) -> PoolSettings:
    given = {"backend": "xllamacpp", "model_files": files, "memory_limit": limit, "slots": SLOTS}
    return PoolSettings.model_validate({**given, "context_window": WINDOW, **more})


@asynccontextmanager
async def running(described: PoolSettings, patience_s: float = 1.0) -> AsyncIterator[ManyModels]:
    backend = ManyModels(POOL, described, LLM, patience_s=patience_s)
    await backend.start(lambda doing, share: None)
    try:
        yield backend
    finally:
        await backend.close()


async def singing(backend: ManyModels, model: str) -> AsyncGenerator[Item]:
    """A long answer of which the first token is there."""
    items = backend.generate(replace(request(*SONG, parameters=LONG), model=model))
    assert isinstance(await anext(items), Delta)
    return items


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


def engines(backend: ManyModels) -> set[str]:
    return set(backend._engines)


def told(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, {"pool": POOL, **labels}) or 0.0


async def test_a_model_is_swapped_in_while_another_one_streams(files: dict[str, Path], packaged_model: Path) -> None:
    async with running(pool(files, room_for(2, packaged_model))) as backend:
        expected, _ = await answer(backend.generate(asking("second")))
        assert engines(backend) == {"first", "second"}
        song = await singing(backend, "first")
        heard: list[str] = []
        gaps: list[float] = []

        async def listen() -> None:
            last = time.monotonic()
            async for item in song:
                gaps.append(time.monotonic() - last)
                last = time.monotonic()
                if isinstance(item, Delta):
                    heard.append(item.text)

        listening = asyncio.create_task(listen())
        # The same weights under another name, so the same answer.
        assert (await answer(backend.generate(asking("third"))))[0] == expected
        assert not listening.done(), "the song was over before the swap"
        assert engines(backend) == {"first", "third"}
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await song.aclose()
        print(f"beside a load {len(heard)} tokens were heard, with a pause of {max(gaps):.3f} s at most")
        alone = Parameters(max_tokens=len(heard) + 1, temperature=0)
        again, _ = await answer(backend.generate(replace(request(*SONG, parameters=alone), model="first")))
        assert "".join(again).endswith("".join(heard))
        assert len(heard) > 10


async def test_three_models_with_room_for_two_all_answer(files: dict[str, Path], packaged_model: Path) -> None:
    limit = room_for(2, packaged_model)
    loads = told("parley_pool_model_loads_total", model="second")
    async with running(pool(files, limit)) as backend, asyncio.timeout(DEADLINE_S):
        asked = [backend.generate(asking(model)) for model in ("first", "second", "third", "second")]
        answers = await asyncio.gather(*(answer(one) for one in asked))
        assert all(one == answers[0] for one in answers)
        assert told("parley_pool_model_loads_total", model="second") == loads + 1
        assert told("parley_pool_models_loaded") == 2
        assert told("parley_pool_models_bytes") <= limit
    assert told("parley_pool_models_loaded") == 0


async def test_a_load_that_waits_long_enough_keeps_a_steady_flow_out(
    files: dict[str, Path], packaged_model: Path
) -> None:
    async with running(pool(files, room_for(1, packaged_model)), patience_s=0.5) as backend:
        second_answered = asyncio.Event()

        async def flow() -> None:
            while not second_answered.is_set():
                await answer(backend.generate(asking("first")))

        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
            for _ in range(SLOTS - 1):
                tasks.create_task(flow())
            await answer(backend.generate(asking("second")))
            second_answered.set()


async def test_who_is_cancelled_while_waiting_for_a_load_leaves_no_trace(
    files: dict[str, Path], packaged_model: Path
) -> None:
    async with running(pool(files, room_for(1, packaged_model)), patience_s=600) as backend:
        song = await singing(backend, "first")
        waiting = [asyncio.create_task(answer(backend.generate(asking("second")))) for _ in range(SLOTS - 1)]
        await until(lambda: len(backend._turns) == SLOTS - 1)
        for task in waiting:
            task.cancel()
        assert all(
            isinstance(ended, asyncio.CancelledError)
            for ended in await asyncio.gather(*waiting, return_exceptions=True)
        )
        assert not backend._turns
        assert engines(backend) == {"first"}
        assert isinstance(await anext(song), Delta)
        async with asyncio.timeout(DEADLINE_S):
            await answer(backend.generate(asking("first")))
        await song.aclose()


async def test_closing_ends_what_runs_and_what_waits_for_a_load(files: dict[str, Path], packaged_model: Path) -> None:
    async with running(pool(files, room_for(1, packaged_model)), patience_s=600) as backend:
        song = await singing(backend, "first")
        waiting = asyncio.create_task(answer(backend.generate(asking("second"))))
        await until(lambda: bool(backend._turns))
        async with asyncio.timeout(DEADLINE_S):
            await backend.close()
            for one in (waiting, asyncio.ensure_future(answer(song))):
                with pytest.raises(BackendUnavailable) as closed:
                    await one
                assert closed.value.reason == "engine_closed"


async def test_a_model_whose_process_died_is_loaded_anew(files: dict[str, Path]) -> None:
    async with running(pool(files, None)) as backend:
        expected, _ = await answer(backend.generate(asking("first")))
        pid = backend._engines["first"].pid
        assert pid is not None
        psutil.Process(pid).kill()
        await until(lambda: backend._engines["first"].lost)
        assert (await answer(backend.generate(asking("first"))))[0] == expected


async def test_unloaded_models_leave_no_memory_behind(files: dict[str, Path], packaged_model: Path) -> None:
    def taken() -> int:
        this = psutil.Process()
        return sum(process.memory_info().rss for process in (this, *this.children(recursive=True)))

    async with running(pool(files, room_for(1, packaged_model))) as backend:
        sizes = []
        for _ in range(2):
            for model in ("second", "first"):
                await answer(backend.generate(asking(model)))
            assert engines(backend) == {"first"}
            sizes.append(taken())
        print("MiB after each round:", [size >> 20 for size in sizes])
        assert max(sizes) < 1.25 * sizes[0]
        with_one = sizes[-1]
    assert with_one - taken() > 0.9 * read_header(packaged_model).size


@pytest.mark.parametrize(("slots", "window", "cache"), [(1, 512, "f16"), (8, 4096, "q8_0")])
async def test_the_estimate_is_near_what_is_taken_and_not_below(
    packaged_model: Path, slots: int, window: int, cache: str
) -> None:
    described = pool({"any": packaged_model}, None, slots=slots, context_window=window, kv_cache_type=cache)
    async with running(described) as backend:
        await answer(backend.generate(asking("any", "rain " * 300)))
        pid = backend._engines["any"].pid
        assert pid is not None
        taken = psutil.Process(pid).memory_info().rss
        assert taken < backend._plan.bytes < 1.5 * taken


async def test_a_file_cut_short_is_named_at_start(files: dict[str, Path], packaged_model: Path) -> None:
    cut(files["third"], packaged_model)
    with pytest.raises(BackendUnavailable, match=r"\[pools.many\].*third.gguf: cut short; .* copy it again") as raised:
        await ManyModels(POOL, pool(files, None), LLM).start(lambda doing, share: None)
    assert raised.value.reason == "model_unusable"


async def test_a_file_that_is_cut_short_later_fails_its_own_answers_only(
    files: dict[str, Path], packaged_model: Path
) -> None:
    async with running(pool(files, room_for(1, packaged_model))) as backend:
        cut(files["second"], packaged_model)
        song = await singing(backend, "first")
        with pytest.raises(BackendUnavailable, match=r"'second' can't be loaded: .*second.gguf: cut short") as raised:
            await answer(backend.generate(asking("second")))
        assert raised.value.reason == "model_unusable"
        assert isinstance(await anext(song), Delta)
        await song.aclose()


async def test_a_model_that_the_engine_does_not_load_fails_its_own_answers_only(
    files: dict[str, Path], packaged_model: Path
) -> None:
    files["second"].unlink()
    # Its header reads well, and it has none of the tensors.
    files["second"].write_bytes(language_model())
    async with running(pool(files, room_for(1, packaged_model))) as backend:
        with pytest.raises(BackendUnavailable, match=r"could not load .*second.gguf.*'gemma3'") as raised:
            await answer(backend.generate(asking("second")))
        assert raised.value.reason == "engine_failed"
        await answer(backend.generate(asking("first")))


async def test_a_model_larger_than_the_limit_says_what_it_needs(files: dict[str, Path]) -> None:
    with pytest.raises(BackendUnavailable) as raised:
        await ManyModels(POOL, pool(files, 100 * 1024**2), LLM).start(lambda doing, share: None)
    assert raised.value.reason == "memory_limit"
    said = str(raised.value)
    assert "the model 'first'" in said
    assert "4 slots × 1024 tokens" in said
    assert "[pools.many].memory_limit is 100 MiB; raise it" in said


async def test_a_model_without_a_file_is_refused(files: dict[str, Path]) -> None:
    async with running(pool({"first": files["first"]}, None)) as backend:
        with pytest.raises(RequestRefused, match="'other'"):
            await answer(backend.generate(asking("other")))


def cut(path: Path, whole: Path) -> None:
    path.unlink()
    with whole.open("rb") as file:
        path.write_bytes(file.read(whole.stat().st_size // 2))
