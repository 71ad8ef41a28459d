from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from event_schemas.generation import Parameters
from tests.contract.inference.requests import Counted, answer, request
from workers.inference.port import BackendUnavailable, Delta, RequestRefused
from workers.inference.scripted import ScriptedBackend


@pytest.fixture
async def backend() -> AsyncIterator[ScriptedBackend]:
    backend = ScriptedBackend(slots=300)
    await backend.start(lambda doing, share: None)
    yield backend
    await backend.close()


def _script(*scripts: dict[str, object]) -> dict[str, str]:
    return {"script": json.dumps(scripts[0] if len(scripts) == 1 else scripts)}


async def test_without_a_script(backend: ScriptedBackend) -> None:
    deltas, finished = await answer(backend.generate(request("one two three", parameters=Parameters())))
    assert finished == Counted("stop", 3, 20)
    assert len(deltas) == 20


async def test_given_tokens(backend: ScriptedBackend) -> None:
    metadata = _script({"tokens": ["a", "", "b"], "finish_reason": "length"})
    deltas, finished = await answer(backend.generate(request(metadata=metadata, parameters=Parameters())))
    assert deltas == ["a", "b"]
    assert finished == Counted("length", 6, 3)


async def test_a_stop_string_across_tokens(backend: ScriptedBackend) -> None:
    metadata = _script({"tokens": ["ab", "cd", "ef"]})
    deltas, finished = await answer(backend.generate(request(metadata=metadata, stop=("zz", "de"))))
    assert deltas == ["ab", "c"]
    assert finished.finish_reason == "stop"


@pytest.mark.parametrize(("kind", "error"), [("refused", RequestRefused), ("unavailable", BackendUnavailable)])
async def test_faults(backend: ScriptedBackend, kind: str, error: type[Exception]) -> None:
    items = backend.generate(request(metadata=_script({"fail_after": 2, "fail_kind": kind, "fail_reason": "why"})))
    assert [await anext(items), await anext(items)] == [Delta("the"), Delta(" rain")]
    with pytest.raises(error) as raised:
        await anext(items)
    assert getattr(raised.value, "reason", None) == "why"


async def test_a_fault_after_the_last_token(backend: ScriptedBackend) -> None:
    with pytest.raises(BackendUnavailable):
        await answer(backend.generate(request(metadata=_script({"count": 1, "fail_after": 1}))))


async def test_each_attempt_has_its_script(backend: ScriptedBackend) -> None:
    metadata = _script({"fail_after": 0}, {"tokens": ["x"]})
    with pytest.raises(BackendUnavailable):
        await answer(backend.generate(request(metadata=metadata, attempt=1)))
    for attempt in (2, 3):
        deltas, _ = await answer(backend.generate(request(metadata=metadata, attempt=attempt)))
        assert deltas == ["x"]


async def test_hanging_ends_with_the_backend(backend: ScriptedBackend) -> None:
    items = backend.generate(request(metadata=_script({"hang_after": 1})))
    await anext(items)
    stuck = asyncio.ensure_future(answer(items))
    await asyncio.sleep(0)
    await backend.close()
    with pytest.raises(BackendUnavailable):
        await stuck


@pytest.mark.parametrize("text", ["{", '{"count": -1}', '{"cuont": 1}', "[]"])
async def test_a_wrong_script_is_refused(backend: ScriptedBackend, text: str) -> None:
    with pytest.raises(RequestRefused) as refused:
        await answer(backend.generate(request(metadata={"script": text})))
    assert refused.value.reason == "invalid_script"


async def test_tokens_are_due_at_absolute_times(backend: ScriptedBackend) -> None:
    """A slow reader does not make later tokens later: what is overdue comes at once."""
    loop = asyncio.get_running_loop()
    items = backend.generate(request(metadata=_script({"count": 6, "first_delay_s": 0.02, "delay_s": 0.01})))
    start = loop.time()
    await anext(items)
    assert loop.time() - start >= 0.0199
    due = start + 0.02 + 5 * 0.01
    read_on = loop.create_future()
    loop.call_at(due, read_on.set_result, None)
    await read_on
    rest = asyncio.ensure_future(answer(items))
    for _ in range(8):
        await asyncio.sleep(0)
    assert rest.done()


async def test_many_streams_at_once_take_turns(backend: ScriptedBackend) -> None:
    order: list[int] = []

    async def read(n: int) -> None:
        async for _ in backend.generate(request(metadata=_script({"count": 3}))):
            order.append(n)

    await asyncio.gather(*(read(n) for n in range(3)))
    assert order[:6] == [0, 1, 2] * 2  # the last item follows the last token at once
