"""The real engine with the packaged model: what the contract can't ask of every backend."""

from __future__ import annotations

import asyncio
import socket
import stat
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import psutil
import pytest
import pytest_asyncio

from event_schemas.chat import ChatMessage
from event_schemas.generation import Parameters
from tests.contract.inference.packaged import add_chat_template
from tests.contract.inference.packaged import packaged_model as packaged_model
from tests.contract.inference.requests import answer, request
from workers.inference.engine_options import EngineOptions
from workers.inference.engine_socket import EngineRefusal, EngineSocket
from workers.inference.gguf import read_header
from workers.inference.llamacpp import LlamaCppBackend
from workers.inference.port import BackendUnavailable, Counted, Delta, RequestRefused
from workers.inference.transcript import render

pytestmark = [pytest.mark.model, pytest.mark.asyncio(loop_scope="module")]

WINDOW = 512
DEADLINE_S = 10.0
CONVERSATION = (
    ChatMessage(role="system", content="You are a helpful assistant."),
    ChatMessage(role="user", content="What is the capital of France? 🦄"),
    ChatMessage(role="assistant", content="Paris."),
    ChatMessage(role="user", content="And of Italy?"),
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(packaged_model: Path) -> AsyncIterator[LlamaCppBackend]:
    steps: list[tuple[str, float]] = []
    backend = LlamaCppBackend(packaged_model, slots=2, context_window=WINDOW, threads=1)
    await backend.start(lambda doing, share: steps.append((doing, share)))
    shares = [share for _, share in steps]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    yield backend
    await backend.close()


def _raw(backend: LlamaCppBackend, body: dict[str, object]) -> tuple[str, int]:
    """What the engine itself says to ``body``: the whole text and the prompt's tokens."""
    texts: list[str] = []
    counts: list[int] = []

    def receive(chunk: str) -> bool:
        told = orjson.loads(chunk)
        if told.get("usage"):
            counts.append(told["usage"]["prompt_tokens"])
        texts.extend(choice["text"] for choice in told["choices"])
        return False

    asked = {**body, "stream": True, "cache_prompt": False, "stream_options": {"include_usage": True}}
    backend._server.handle_completions(orjson.dumps(asked).decode(), receive)
    return "".join(texts), counts[-1]


async def test_the_model_gets_the_transcript_and_no_other_template(backend: LlamaCppBackend) -> None:
    sampling = {"max_tokens": 24, "temperature": 0}
    text, tokens = await asyncio.to_thread(
        _raw, backend, {"prompt": render(CONVERSATION), "stop": ["\nUser:"], **sampling}
    )
    deltas, finished = await answer(
        backend.generate(request(*CONVERSATION, parameters=Parameters(max_tokens=24, temperature=0)))
    )
    assert finished.input_tokens == tokens
    assert text.lstrip().startswith("".join(deltas))
    assert deltas[0] == deltas[0].lstrip()


async def test_characters_of_several_tokens_come_whole(backend: LlamaCppBackend) -> None:
    unicorns = "Repeat after me: 🦄𝔘𐍈 🦄𝔘𐍈 🦄𝔘𐍈 🦄𝔘𐍈"
    deltas, finished = await answer(
        backend.generate(request(unicorns, parameters=Parameters(max_tokens=30, temperature=0)))
    )
    assert "𐍈" in "".join(deltas)
    assert not any("�" in delta for delta in deltas)
    assert len(deltas) < finished.output_tokens


async def test_without_max_tokens_the_window_ends_the_answer(backend: LlamaCppBackend) -> None:
    _, finished = await answer(
        backend.generate(request("la " * (WINDOW - 30), parameters=Parameters(temperature=0), stop=("\x00",)))
    )
    assert finished.input_tokens + finished.output_tokens <= WINDOW


async def test_a_cancelled_prompt_stops_in_mid_prompt(packaged_model: Path) -> None:
    backend = LlamaCppBackend(packaged_model, slots=2, context_window=8192, threads=1)
    await backend.start(lambda doing, share: None)
    # Both slots read prompts of half a minute.
    items = [backend.generate(request("rain " * 8000)) for _ in range(2)]
    reading = [asyncio.ensure_future(anext(one)) for one in items]
    for _ in range(8):
        await asyncio.sleep(0)
    assert len(backend._slots._streams) == 2
    for one in reading:
        one.cancel()
    await asyncio.gather(*reading, return_exceptions=True)
    async with asyncio.timeout(DEADLINE_S):
        await backend._slots._idle.wait()
    await backend.close()


async def test_nothing_is_printed(backend: LlamaCppBackend, capfd: pytest.CaptureFixture[str]) -> None:
    await answer(backend.generate(request()))
    with pytest.raises(RequestRefused):
        await answer(backend.generate(request("secret " * 600)))
    assert capfd.readouterr() == ("", "")


async def test_only_this_user_reaches_the_engine_and_only_with_its_key(backend: LlamaCppBackend) -> None:
    connections = psutil.Process().net_connections(kind="all")
    assert [c.laddr for c in connections if c.family != socket.AF_UNIX and c.status == psutil.CONN_LISTEN] == []
    reached = {Path(str(c.laddr)) for c in connections if str(c.laddr).endswith("engine.sock")}
    engine = backend._socket
    assert engine is not None
    assert {path for path in reached if path.exists()} == {engine.path}
    assert stat.S_IMODE(engine.path.parent.stat().st_mode) == 0o700
    with_key = await asyncio.to_thread(engine.ask, "/tokenize", {"content": "Hello"})
    assert with_key["tokens"]
    stranger = EngineSocket()
    stranger.path = engine.path
    for path in ("/tokenize", "/v1/completions", "/completion"):
        with pytest.raises(EngineRefusal, match="401"):
            await asyncio.to_thread(stranger.ask, path, {"content": "Hello", "prompt": "Hello"})
    stranger.close()


async def test_a_chat_template_that_the_file_carries_is_used(packaged_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "with-template.gguf"
    add_chat_template(packaged_model, path)
    assert read_header(path).chat_template
    backend = LlamaCppBackend(path, slots=1, context_window=256, threads=1)
    await backend.start(lambda doing, share: None)
    try:
        user = ChatMessage(role="user", content="Say hello.")
        _, finished = await answer(backend.generate(request(user)))
        prompt = "<start_of_turn>user\nSay hello.<end_of_turn>\n<start_of_turn>model\n"
        _, tokens = await asyncio.to_thread(_raw, backend, {"prompt": prompt, "max_tokens": 1})
        assert finished.input_tokens == tokens
        assert await backend.count(request(user)) == Counted(tokens, 256)
        scored = Parameters(max_tokens=6, temperature=0, logprobs=True, top_logprobs=2)
        said = [item async for item in backend.generate(request(user, parameters=scored)) if isinstance(item, Delta)]
        assert said
        for text, (token,) in said:
            assert (token["token"], token["logprob"]) == (text, token["top_logprobs"][0]["logprob"])
        with pytest.raises(RequestRefused) as refused:
            await answer(backend.generate(request("a forbidden word")))
        assert refused.value.reason == "invalid_request"
        with pytest.raises(RequestRefused) as refused:
            await backend.count(request("a forbidden word"))
        assert refused.value.reason == "invalid_request"
    finally:
        await backend.close()


async def test_files_that_are_no_models(tmp_path: Path) -> None:
    junk = tmp_path / "junk.gguf"
    junk.write_bytes(b"junk")
    for path, says in ((tmp_path / "missing.gguf", "not there"), (junk, "not a GGUF")):
        with pytest.raises(BackendUnavailable, match=says) as raised:
            await LlamaCppBackend(path, slots=1).start(lambda doing, share: None)
        assert raised.value.reason == "model_unusable"


async def test_a_window_larger_than_the_models(packaged_model: Path) -> None:
    with pytest.raises(BackendUnavailable, match=r"99999.*32768"):
        await LlamaCppBackend(packaged_model, slots=1, context_window=99999).start(lambda doing, share: None)


async def test_a_running_generation_does_not_keep_the_process(packaged_model: Path) -> None:
    program = textwrap.dedent(f"""
        import asyncio
        from pathlib import Path
        from tests.contract.inference.requests import SONG, request
        from event_schemas.generation import Parameters
        from workers.inference.llamacpp import LlamaCppBackend

        async def main():
            backend = LlamaCppBackend(Path({str(packaged_model)!r}), slots=1, context_window=4096, threads=1)
            await backend.start(lambda doing, share: None)
            items = backend.generate(request(*SONG, parameters=Parameters(temperature=0)))
            print(type(await anext(items)).__name__, flush=True)
            raise SystemExit(3)

        asyncio.run(main())
    """)
    ended = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, f"{Delta.__name__}\n", "")


@pytest.mark.parametrize(
    "options",
    [
        EngineOptions(gpus=(), kv_cache_type="q8_0"),
        EngineOptions(kv_cache_type="q4_0", flash_attention="on"),
        EngineOptions(flash_attention="off"),
    ],
    ids=str,
)
async def test_it_answers_with_each_option(packaged_model: Path, options: EngineOptions) -> None:
    backend = LlamaCppBackend(packaged_model, slots=1, context_window=128, threads=1, options=options)
    await backend.start(lambda doing, share: None)
    try:
        deltas, finished = await answer(
            backend.generate(request("The sky is", parameters=Parameters(max_tokens=4, temperature=0)))
        )
    finally:
        await backend.close()
    assert deltas
    assert finished.output_tokens


async def test_a_gpu_that_this_build_cannot_use(packaged_model: Path) -> None:
    backend = LlamaCppBackend(packaged_model, slots=1, options=EngineOptions("fast", gpus=(99,)))
    with pytest.raises(BackendUnavailable, match=r"\[pools.fast\].gpus names GPU 99, and .*; ") as raised:
        await backend.start(lambda doing, share: None)
    assert raised.value.reason == "gpu_missing"
