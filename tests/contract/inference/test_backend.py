"""What every backend keeps to. A new backend adds one line to BACKENDS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio

from backplane.settings import LlmSettings, PoolSettings
from backplane.settings.capabilities import CAPABILITIES, Capability
from event_schemas.chat import ChatMessage
from event_schemas.generation import Parameters
from tests.contract.inference.packaged import packaged_model as packaged_model
from tests.contract.inference.requests import SONG, answer, request
from tests.contract.inference.tiny_model import tiny_model as tiny_model
from tests.providers.served import ServedOpenAI
from tests.providers.served_anthropic import ServedAnthropic
from tests.triton.served import ServedTriton
from workers.inference.hugging_face import TransformersBackend
from workers.inference.llama_cpp_python import LlamaCppPythonBackend
from workers.inference.llamacpp import LlamaCppBackend
from workers.inference.many_models import ManyModels
from workers.inference.port import Backend, BackendUnavailable, Counted, Delta, Item, Limits, RequestRefused
from workers.inference.scripted import ScriptedBackend

pytestmark = pytest.mark.asyncio(loop_scope="module")

SLOTS = 2
WINDOW = 2048
DEADLINE_S = 20.0  # shorter than any of the long answers below takes by itself


def _in_turn(model: Path) -> PoolSettings:
    return PoolSettings(backend="xllamacpp", model_files={"any": model}, slots=SLOTS, context_window=WINDOW)


# The engine's threads spin while they wait for one another, so tests that run side by side would starve with several.
BACKENDS = [
    pytest.param(lambda _: ScriptedBackend(slots=SLOTS, context_window=WINDOW), id="scripted"),
    pytest.param(
        lambda use: LlamaCppBackend(use("packaged_model"), slots=SLOTS, context_window=WINDOW, threads=1),
        id="xllamacpp",
        marks=pytest.mark.model,
    ),
    pytest.param(
        lambda use: LlamaCppPythonBackend(use("packaged_model"), slots=SLOTS, context_window=WINDOW, threads=1),
        id="llama-cpp-python",
        marks=pytest.mark.llama_cpp_python,
    ),
    pytest.param(
        lambda use: TransformersBackend(str(use("tiny_model")), slots=SLOTS, context_window=WINDOW, threads=1),
        id="transformers",
        marks=pytest.mark.transformers,
    ),
    pytest.param(
        lambda use: ManyModels("many", _in_turn(use("packaged_model")), LlmSettings(cpu_threads=1)),
        id="xllamacpp-many",
        marks=pytest.mark.model,
    ),
    pytest.param(lambda _: ServedOpenAI(slots=SLOTS, window=WINDOW), id="openai"),
    pytest.param(lambda _: ServedOpenAI(slots=SLOTS, window=WINDOW, azure=True), id="azure"),
    pytest.param(lambda _: ServedAnthropic(slots=SLOTS, window=WINDOW), id="anthropic"),
    pytest.param(lambda _: ServedAnthropic(slots=SLOTS, window=WINDOW, platform="bedrock"), id="bedrock"),
    pytest.param(lambda _: ServedAnthropic(slots=SLOTS, window=WINDOW, platform="vertex"), id="vertex"),
    pytest.param(lambda _: ServedTriton(slots=SLOTS, window=WINDOW), id="triton-vllm"),
    pytest.param(lambda _: ServedTriton(slots=SLOTS, window=WINDOW, style="tensorrt_llm"), id="triton-tensorrt-llm"),
]
ENDLESS = Parameters(max_tokens=WINDOW - 256, temperature=0)
"""As long as the window allows with any of these prompts, which some engines insist on."""
LOCAL = (ScriptedBackend, LlamaCppBackend, LlamaCppPythonBackend, TransformersBackend, ManyModels)
SLOW_SCRIPT = {"script": '{"hang_after": 5}'}


def _no_progress(doing: str, share: float) -> None:
    assert 0 <= share <= 1


@pytest.fixture(scope="module", params=BACKENDS)
def make(request: pytest.FixtureRequest) -> Callable[[], Backend]:
    build: Callable[[Callable[[str], Path]], Backend] = request.param
    return lambda: build(request.getfixturevalue)


@pytest.fixture
def can(request: pytest.FixtureRequest) -> frozenset[Capability]:
    """What the table says of the backend."""
    return CAPABILITIES[max((name for name in CAPABILITIES if request.node.callspec.id.startswith(name)), key=len)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(make: Callable[[], Backend]) -> AsyncIterator[Backend]:
    made = make()
    await made.start(_no_progress)
    yield made
    await made.close()


async def test_deltas_then_finished(backend: Backend) -> None:
    deltas, finished = await answer(backend.generate(request()))
    assert deltas
    assert all(deltas)
    assert finished.finish_reason == "length"
    assert finished.output_tokens == 8
    assert finished.input_tokens > 0
    assert len(deltas) <= finished.output_tokens


async def test_a_seed_gives_the_same_answer_again(backend: Backend) -> None:
    """While nothing else runs: in a batch with others an engine may round otherwise and choose another token."""
    seeded = Parameters(max_tokens=12, temperature=1, seed=7)
    if isinstance(backend, ServedAnthropic):
        with pytest.raises(RequestRefused):
            await answer(backend.generate(request(parameters=seeded)))
        return
    assert await answer(backend.generate(request(parameters=seeded))) == await answer(
        backend.generate(request(parameters=seeded))
    )


@pytest.mark.parametrize("top", [None, 3])
async def test_logprobs_come_with_the_text_or_are_refused(
    backend: Backend, can: frozenset[Capability], top: int | None
) -> None:
    wanted = request(parameters=Parameters(max_tokens=8, temperature=0, logprobs=True, top_logprobs=top))
    if "logprobs" not in can:
        with pytest.raises(RequestRefused, match="logprobs") as refused:
            await answer(backend.generate(wanted))
        assert refused.value.reason == "unsupported"
        return
    async with aclosing(backend.generate(wanted)) as items:
        deltas = [item async for item in items if isinstance(item, Delta)]
    assert len(deltas) > 3
    for text, tokens in deltas:
        assert "".join(token["token"] for token in tokens).endswith(text)
        for token in tokens:
            assert token["logprob"] <= 0
            ranked = token["top_logprobs"]
            assert len(ranked) == (top or 0)
            assert sorted(ranked, key=lambda one: -one["logprob"]) == ranked
            # The likeliest was taken, since the temperature is 0.
            assert all(one["logprob"] == token["logprob"] for one in ranked[:1])


async def test_without_being_asked_for_there_are_no_logprobs(backend: Backend) -> None:
    async with aclosing(backend.generate(request())) as items:
        assert not any([item.logprobs async for item in items if isinstance(item, Delta)])


async def test_all_roles_count_as_input(backend: Backend) -> None:
    _, short = await answer(backend.generate(request("Hello")))
    _, long = await answer(
        backend.generate(
            request(
                ChatMessage(role="system", content="You are a sailor."),
                "Hello",
                ChatMessage(role="assistant", content="Ahoy, who are you?"),
                "Nobody of note.",
            )
        )
    )
    assert long.input_tokens > short.input_tokens


async def test_who_counts_counts_what_it_would_read(backend: Backend) -> None:
    """Providers alone could say, and do not."""
    conversation = (
        ChatMessage(role="system", content="You are a sailor. <|im_end|>"),
        "Hello {x}",
        ChatMessage(role="assistant", content="Ahöy ✓, who are you?\n\n"),
        "Nobody of note.",
    )
    asked = [request(), request(*conversation), request("la " * 200)]
    counted = [await backend.count(one) for one in asked]
    if isinstance(backend, LOCAL):
        read = [(await answer(backend.generate(one)))[1].input_tokens for one in asked]
        assert counted == [Counted(tokens, WINDOW) for tokens in read]
    else:
        assert counted == [None] * len(asked)


async def test_more_generations_than_slots_all_end(backend: Backend) -> None:
    asked = [
        request(f"Count to {n}", parameters=Parameters(max_tokens=3 + n, temperature=0)) for n in range(2 * SLOTS + 1)
    ]
    ended = await asyncio.gather(*(answer(backend.generate(one)) for one in asked))
    assert all(
        finished.output_tokens <= (one.parameters.max_tokens or 0)
        for one, (_, finished) in zip(asked, ended, strict=True)
    )


async def test_a_stop_string_ends_the_answer_and_is_not_in_it(backend: Backend) -> None:
    whole, _ = await answer(backend.generate(request(parameters=Parameters(max_tokens=20, temperature=0))))
    text = "".join(whole)
    stop = text[6:9]
    cut, finished = await answer(
        backend.generate(request(parameters=Parameters(max_tokens=20, temperature=0), stop=(stop,)))
    )
    assert "".join(cut) == text[: text.index(stop)]
    assert finished.finish_reason == "stop"
    assert finished.stop in (stop, None)  # not every engine says which one it was


async def _first_delta(backend: Backend) -> AsyncGenerator[Item]:
    items = backend.generate(request(*SONG, parameters=ENDLESS, metadata=SLOW_SCRIPT))
    while not isinstance(item := await anext(items), Delta):
        assert isinstance(item, Limits)
    return items


async def test_closing_frees_the_slot(backend: Backend) -> None:
    running = [await _first_delta(backend) for _ in range(SLOTS)]
    for items in running:
        await items.aclose()
    # Both slots were taken, so an answer within the deadline means that one is free again.
    async with asyncio.timeout(DEADLINE_S):
        await answer(backend.generate(request(parameters=Parameters(max_tokens=1))))


async def test_cancelling_the_consumer_frees_the_slot(backend: Backend) -> None:
    begun = [asyncio.Event() for _ in range(SLOTS)]

    async def consume(event: asyncio.Event) -> None:
        async with aclosing(backend.generate(request(*SONG, parameters=ENDLESS, metadata=SLOW_SCRIPT))) as items:
            async for _ in items:
                event.set()

    tasks = [asyncio.create_task(consume(event)) for event in begun]
    await asyncio.gather(*(event.wait() for event in begun))
    async with asyncio.timeout(DEADLINE_S):
        for task in tasks:
            task.cancel()
        assert all(isinstance(r, asyncio.CancelledError) for r in await asyncio.gather(*tasks, return_exceptions=True))
        await answer(backend.generate(request(parameters=Parameters(max_tokens=1))))


async def test_cancelling_one_that_waits_for_a_slot_leaves_the_others_alone(backend: Backend) -> None:
    running = [await _first_delta(backend) for _ in range(SLOTS)]
    waiting = asyncio.create_task(answer(backend.generate(request())))
    async with asyncio.timeout(DEADLINE_S):
        await asyncio.sleep(0)
        waiting.cancel()
        assert isinstance((await asyncio.gather(waiting, return_exceptions=True))[0], asyncio.CancelledError)
        assert all([isinstance(await anext(items), Delta) for items in running])
        for items in running:
            await items.aclose()
        await asyncio.gather(*(answer(backend.generate(request())) for _ in range(SLOTS)))


async def test_a_prompt_longer_than_the_window_is_refused(backend: Backend) -> None:
    with pytest.raises(RequestRefused, match=str(WINDOW)) as refused:
        await answer(backend.generate(request("secret " * (WINDOW + 1))))
    assert refused.value.reason == "context_length_exceeded"
    assert "secret" not in str(refused.value)


async def test_no_tokens_at_all_is_refused(backend: Backend) -> None:
    with pytest.raises(RequestRefused) as refused:
        await answer(backend.generate(request(parameters=Parameters(max_tokens=0))))
    assert refused.value.reason == "invalid_request"


async def test_closing_the_backend_ends_what_runs(make: Callable[[], Backend]) -> None:
    backend = make()
    with pytest.raises(BackendUnavailable):
        await anext(backend.generate(request()))
    await backend.start(_no_progress)
    running = await _first_delta(backend)
    waiting = [asyncio.create_task(answer(backend.generate(request(*SONG, metadata=SLOW_SCRIPT)))) for _ in range(3)]
    await asyncio.sleep(0)
    async with asyncio.timeout(DEADLINE_S):
        await backend.close()
        with pytest.raises(BackendUnavailable) as ended:
            await answer(running)
        assert ended.value.reason == "engine_closed"
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, BackendUnavailable) for result in results)
    with pytest.raises(BackendUnavailable):
        await anext(backend.generate(request()))
