"""Transformers with a tiny model made at random: what the contract can't ask of every backend."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from backplane.settings.pools import PoolSettings
from command_api import tokenizer
from event_schemas.chat import ChatMessage
from event_schemas.generation import Parameters
from tests.contract.inference.requests import answer, request
from tests.contract.inference.tiny_model import save_tiny_model
from tests.contract.inference.tiny_model import tiny_model as tiny_model
from workers.inference.hugging_face import TransformersBackend
from workers.inference.port import BackendUnavailable, Delta, RequestRefused
from workers.inference.transcript import render

pytestmark = [pytest.mark.transformers, pytest.mark.asyncio(loop_scope="module")]

WINDOW = 512
DEADLINE_S = 10.0
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if 'forbidden' in m.content %}{{ raise_exception('no') }}{% endif %}"
    "{{ m.role }} {{ m.content }} note {% endfor %}{% if add_generation_prompt %}Assistant{% endif %}"
)


def nothing(doing: str, share: float) -> None:
    pass


async def started(model: Path | str, window: int | None = WINDOW, slots: int = 2) -> TransformersBackend:
    backend = TransformersBackend(str(model), slots=slots, context_window=window, threads=1)
    await backend.start(nothing)
    return backend


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(tiny_model: Path) -> AsyncIterator[TransformersBackend]:
    backend = await started(tiny_model)
    yield backend
    await backend.close()


def tokens_of(model: Path, text: str) -> int:
    from transformers import AutoTokenizer

    return len(AutoTokenizer.from_pretrained(model)(text).input_ids)


async def test_usage_is_what_the_tokenizer_counts(backend: TransformersBackend, tiny_model: Path) -> None:
    messages = (ChatMessage(role="system", content="You are a sailor."), ChatMessage(role="user", content="Sing la la"))
    parameters = Parameters(max_tokens=40, temperature=0)
    deltas, finished = await answer(backend.generate(request(*messages, parameters=parameters)))
    assert finished.input_tokens == tokens_of(tiny_model, render(messages))
    assert finished.output_tokens == 40 == tokens_of(tiny_model, "".join(deltas))
    assert len(deltas) > 30


async def test_the_command_api_counts_as_the_tokenizer_does(tiny_model: Path) -> None:
    pool = PoolSettings(backend="transformers", models=({"tiny": str(tiny_model)},))
    assert tokenizer.count(pool, "tiny", "Sing la la") == tokens_of(tiny_model, "Sing la la")


async def test_a_chat_template_is_used_and_may_refuse(tmp_path: Path) -> None:
    backend = await started(save_tiny_model(tmp_path, chat_template=CHAT_TEMPLATE))
    try:
        _, finished = await answer(backend.generate(request("Hello")))
        assert finished.input_tokens == tokens_of(tmp_path, "<s> user Hello note Assistant")
        with pytest.raises(RequestRefused) as refused:
            await answer(backend.generate(request("a forbidden word")))
        assert refused.value.reason == "invalid_request"
        assert "forbidden" not in str(refused.value)
        # Taught to end, such a model may fill its window.
        _, finished = await answer(backend.generate(request("Hello", parameters=Parameters(temperature=0))))
        assert finished.finish_reason == "length"
        assert finished.input_tokens + finished.output_tokens == WINDOW
    finally:
        await backend.close()


async def test_the_models_own_end_ends_the_answer(tmp_path: Path) -> None:
    backend = await started(save_tiny_model(tmp_path, eos=True))
    try:
        _, finished = await answer(backend.generate(request("Hello")))
        assert (finished.finish_reason, finished.output_tokens) == ("stop", 1)
    finally:
        await backend.close()


async def test_a_seed_holds_beside_neighbours(backend: TransformersBackend) -> None:
    """Each generation draws with numbers of its own."""
    parameters = Parameters(max_tokens=60, temperature=1, seed=11)
    alone = await answer(backend.generate(request(parameters=parameters)))
    other = Parameters(max_tokens=60, temperature=1, seed=12)
    beside, different = await asyncio.gather(
        answer(backend.generate(request(parameters=parameters))), answer(backend.generate(request(parameters=other)))
    )
    assert beside == alone
    assert different[0] != alone[0]


async def test_sampling_follows_the_parameters(backend: TransformersBackend) -> None:
    async def said(**given: float) -> list[str]:
        parameters = Parameters(max_tokens=30, seed=3, **given)
        return "".join((await answer(backend.generate(request("Sing", parameters=parameters))))[0]).split()

    likeliest = await said(temperature=0)
    for harmless in ({"top_k": 1}, {"top_p": 0.000001}, {"min_p": 1.0}):
        assert await said(temperature=2, **harmless) == likeliest
    assert await said(temperature=2, top_k=0, top_p=1, min_p=0) != likeliest
    assert len(set(likeliest)) < 30
    for penalty in ("frequency_penalty", "presence_penalty"):
        assert len(set(await said(temperature=0, **{penalty: 100.0}))) == 30


async def test_a_prompt_that_is_cancelled_stops_in_mid_prompt(tmp_path: Path) -> None:
    import torch

    backend = await started(save_tiny_model(tmp_path, layers=64), window=16000, slots=1)
    computed = 0

    def count(module: object, given: object, result: object) -> None:
        nonlocal computed
        computed += isinstance(module, torch.nn.Linear)

    hook = torch.nn.modules.module.register_module_forward_hook(count)
    try:
        reading = asyncio.ensure_future(anext(backend.generate(request("rain " * 15000))))
        async with asyncio.timeout(DEADLINE_S):
            while not computed:
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await backend._slots._idle.wait()
        assert computed < 64 * 7 + 1
    finally:
        hook.remove()
        await backend.close()


async def test_nothing_is_printed(backend: TransformersBackend, capfd: pytest.CaptureFixture[str]) -> None:
    await answer(backend.generate(request()))
    with pytest.raises(RequestRefused):
        await answer(backend.generate(request("secret " * 600)))
    with pytest.raises(RequestRefused) as refused:
        await answer(backend.generate(request("half a pair: \ud83e")))
    assert refused.value.reason == "invalid_request"
    assert capfd.readouterr() == ("", "")


async def refusal(model: Path, window: int | None = None) -> str:
    with pytest.raises(BackendUnavailable) as raised:
        await TransformersBackend(str(model), slots=1, context_window=window).start(nothing)
    assert raised.value.reason == "model_unusable"
    assert str(model) in str(raised.value)
    return str(raised.value)


async def test_models_that_cannot_be_loaded(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "whole *.safetensors files" in await refusal(tmp_path / "gone")
    weights = save_tiny_model(tmp_path / "cut") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "SafetensorError" in await refusal(weights.parent)
    weights.unlink()
    (weights.parent / "pytorch_model.bin").write_bytes(b"a pickle would run")
    assert "safetensors" in await refusal(weights.parent)
    assert "16384" in await refusal(tiny_model, window=99999)


async def test_code_that_comes_with_a_model_is_never_run(tmp_path: Path) -> None:
    save_tiny_model(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(
        config.read_text()
        .replace('"llama"', '"own"')
        .replace("{", '{"auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"},', 1)
    )
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    await refusal(tmp_path)
    assert not (tmp_path / "ran").exists()


async def test_a_gpu_that_is_not_there(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    backend = TransformersBackend(str(tiny_model), slots=1, gpus=(3,), pool="fast")
    with pytest.raises(BackendUnavailable, match=r"\[pools.fast\].gpus names 3, and torch .*; ") as raised:
        await backend.start(nothing)
    assert raised.value.reason == "gpu_missing"


async def test_a_running_generation_does_not_keep_the_process(tiny_model: Path) -> None:
    program = textwrap.dedent(f"""
        import asyncio
        from tests.contract.inference.requests import request
        from event_schemas.generation import Parameters
        from workers.inference.hugging_face import TransformersBackend

        async def main():
            backend = TransformersBackend({str(tiny_model)!r}, slots=1, context_window=16000, threads=1)
            await backend.start(lambda doing, share: None)
            items = backend.generate(request(parameters=Parameters(temperature=0, max_tokens=15000)))
            print(type(await anext(items)).__name__, flush=True)
            raise SystemExit(3)

        asyncio.run(main())
    """)
    ended = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, f"{Delta.__name__}\n", "")
