"""A backend in a process of its own: the scripted one, which needs no model."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from backplane.settings import LlmSettings, PoolSettings
from event_schemas.generation import Parameters
from tests.contract.inference.requests import answer, request
from workers.inference.engine_process import EngineProcess
from workers.inference.port import BackendUnavailable, Delta, RequestRefused

DEADLINE_S = 30.0
SLOW = {"script": '{"hang_after": 2}'}


def process(**pool: object) -> EngineProcess:
    return EngineProcess("local", PoolSettings.model_validate({"backend": "scripted", **pool}), LlmSettings())


async def started(**pool: object) -> EngineProcess:
    engine = process(**pool)
    await engine.start(lambda doing, share: None)
    return engine


async def test_it_answers_and_its_process_ends_with_it() -> None:
    engine = await started()
    assert engine.pid is not None
    child = psutil.Process(engine.pid)
    deltas, finished = await answer(engine.generate(request(parameters=Parameters(max_tokens=8))))
    assert deltas
    assert finished.output_tokens == 8
    async with asyncio.timeout(DEADLINE_S):
        await engine.close()
    assert not child.is_running()
    with pytest.raises(BackendUnavailable) as closed:
        await answer(engine.generate(request()))
    assert closed.value.reason == "engine_closed"


async def test_what_it_refuses_says_the_same_as_in_process() -> None:
    engine = await started(context_window=16)
    with pytest.raises(RequestRefused, match="window 16") as refused:
        await answer(engine.generate(request("word " * 20)))
    assert refused.value.reason == "context_length_exceeded"
    with pytest.raises(RequestRefused, match="surrogate"):
        await answer(engine.generate(request("half \ud800")))
    await engine.close()


async def test_a_start_that_is_given_up_leaves_no_process() -> None:
    engine = process()
    before = set(psutil.Process().children())
    starting = asyncio.create_task(engine.start(lambda doing, share: None))
    async with asyncio.timeout(DEADLINE_S):
        while engine.pid is None:
            await asyncio.sleep(0.01)
        starting.cancel()
        assert isinstance((await asyncio.gather(starting, return_exceptions=True))[0], asyncio.CancelledError)
    assert set(psutil.Process().children()) == before


async def test_an_engine_that_does_not_start_ends_by_itself(tmp_path: Path) -> None:
    engine = process(backend="xllamacpp", model_file=tmp_path / "none.gguf")
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(BackendUnavailable) as broken:
            await engine.start(lambda doing, share: None)
    assert broken.value.reason == "model_unusable"
    assert engine._process is not None
    assert engine._process.returncode == 0


async def test_a_killed_process_ends_what_it_ran_and_says_how_it_ended() -> None:
    engine = await started()
    items = engine.generate(request(metadata=SLOW))
    assert isinstance(await anext(items), Delta)
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(BackendUnavailable, match="code -9") as lost:
            await answer(items)
        assert lost.value.reason == "engine_lost"
        assert engine.lost
        with pytest.raises(BackendUnavailable, match="code -9"):
            await answer(engine.generate(request()))
        await engine.close()


async def test_the_process_ends_with_the_worker_however_that_ends() -> None:
    program = """
import asyncio
import os
import signal
from backplane.settings import LlmSettings, PoolSettings
from workers.inference.engine_process import EngineProcess

async def main():
    engine = EngineProcess("local", PoolSettings(backend="scripted"), LlmSettings())
    await engine.start(lambda doing, share: None)
    print(engine.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
    worker = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE)
    out, _ = await worker.communicate()
    assert worker.returncode == -signal.SIGKILL
    async with asyncio.timeout(DEADLINE_S):
        while psutil.pid_exists(int(out)):
            await asyncio.sleep(0.02)


async def test_what_a_terminal_interrupts_is_the_worker_alone() -> None:
    engine = await started()
    assert engine.pid is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(engine.pid, number)
    _, finished = await answer(engine.generate(request(parameters=Parameters(max_tokens=2))))
    assert finished.output_tokens == 2
    await engine.close()


async def test_secrets_do_not_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARLEY_POSTGRES__URL", "postgresql://secret")
    engine = await started()
    assert engine.pid is not None
    assert not any(name.startswith("PARLEY_") for name in psutil.Process(engine.pid).environ())
    await engine.close()
