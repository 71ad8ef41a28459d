"""The Triton backend against a server that speaks Triton's protocol. What every backend does is tested beside it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import grpc
import pytest
import pytest_asyncio

from event_schemas.chat import ChatMessage, ImagePart, ResponseFormat, TextPart, Tool
from event_schemas.generation import Parameters
from tests.contract.inference.requests import request
from tests.triton.models import TENSORRT_LLM, VLLM, VLLM_BEFORE_24_12, Tensor
from tests.triton.relay import Relay
from tests.triton.server import Script, TritonServer
from workers.inference.port import (
    BackendError,
    BackendUnavailable,
    Delta,
    Finished,
    InferenceRequest,
    RateLimited,
    RequestRefused,
)
from workers.inference.transcript import STOP_STRINGS
from workers.inference.triton import TritonBackend
from workers.inference.triton_tensors import Tensors

DEADLINE_S = 20.0
SLOTS = 2
WINDOW = 64

BATCHED = replace(VLLM, max_batch_size=8)
NAMES = {"text_input": "PROMPT", "sampling_parameters": "SAMPLING", "text_output": "COMPLETION"}
MODELS = {
    "vllm": VLLM,
    "old": VLLM_BEFORE_24_12,
    "batched": BATCHED,
    "renamed": VLLM.renamed(NAMES),
    "whole": replace(VLLM, decoupled=False),
    "trt": TENSORRT_LLM,
    "oldest": replace(
        VLLM_BEFORE_24_12,
        inputs={name: tensor for name, tensor in VLLM_BEFORE_24_12.inputs.items() if name != "exclude_input_in_output"},
    ),
    "image": replace(VLLM, inputs={"image": Tensor("FP32", (3, 224, 224))}, outputs={"class": Tensor("INT64")}),
    "numbers": replace(VLLM, outputs={"text_output": Tensor("INT32", (-1,))}),
}


def _no_progress(doing: str, share: float) -> None:
    assert 0 <= share <= 1


@pytest_asyncio.fixture
async def server() -> AsyncIterator[TritonServer]:
    made = TritonServer(MODELS, window=WINDOW)
    await made.start()
    yield made
    await made.stop()


@asynccontextmanager
async def _started(url: str, tensors: Tensors | None = None) -> AsyncIterator[TritonBackend]:
    backend = TritonBackend(url, tensors=tensors or Tensors("vllm"), slots=SLOTS)
    await backend.start(_no_progress)
    try:
        yield backend
    finally:
        await backend.close()


@pytest_asyncio.fixture
async def vllm(server: TritonServer) -> AsyncIterator[TritonBackend]:
    async with _started(server.url) as backend:
        yield backend


@pytest_asyncio.fixture
async def trt(server: TritonServer) -> AsyncIterator[TritonBackend]:
    async with _started(server.url, Tensors("tensorrt_llm")) as backend:
        yield backend


def _to(model: str, *messages: ChatMessage | str, **more: Any) -> InferenceRequest:
    stop = more.pop("stop", ())
    asked = request(*messages, parameters=Parameters(**{"max_tokens": 8} | more), stop=stop)
    return replace(asked, model=model)


@dataclass(frozen=True)
class Said:
    text: str
    finished: Finished


async def _said(backend: TritonBackend, asked: InferenceRequest) -> Said:
    async with asyncio.timeout(DEADLINE_S):
        items = [item async for item in backend.generate(asked)]
    *deltas, finished = items
    assert isinstance(finished, Finished)
    assert all(isinstance(delta, Delta) and delta.text for delta in deltas)
    return Said("".join(delta.text for delta in deltas if isinstance(delta, Delta)), finished)


async def _failure(backend: TritonBackend, asked: InferenceRequest) -> BackendError:
    with pytest.raises(BackendError) as failed:
        await _said(backend, asked)
    return failed.value


async def test_a_vllm_model_gets_its_tensors(vllm: TritonBackend, server: TritonServer) -> None:
    said = await _said(
        vllm,
        _to(
            "vllm",
            ChatMessage(role="system", content="Be brief."),
            "What is rain?",
            temperature=0.5,
            top_p=0.9,
            top_k=5,
            min_p=0.1,
            presence_penalty=0.2,
            frequency_penalty=0.3,
            max_tokens=4,
            seed=3,
            stop=("END",),
        ),
    )
    inputs = server.seen[0].inputs
    sampling = json.loads(bytes(inputs.pop("sampling_parameters")[0]))  # type: ignore[arg-type]
    assert sampling == {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "min_p": 0.1,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.3,
        "max_tokens": 4,
        "seed": 3,
        "stop": [*STOP_STRINGS, "END"],
    }
    assert inputs.pop("text_input") == [b"System: Be brief.\nUser: What is rain?\nAssistant:"]
    assert inputs == {
        name: [True]
        for name in (
            "stream",
            "exclude_input_in_output",
            "return_finish_reason",
            "return_num_input_tokens",
            "return_num_output_tokens",
        )
    }
    assert said == Said("on a quiet town", Finished("length", 8, 4))


async def test_an_older_vllm_model_is_asked_for_less_and_counts_nothing(
    vllm: TritonBackend, server: TritonServer
) -> None:
    said = await _said(vllm, _to("old", max_tokens=3))
    assert said == Said("the rain falls", Finished("stop", None, None))
    assert set(server.seen[0].inputs) == set(VLLM_BEFORE_24_12.inputs)


async def test_a_model_that_takes_batches_gets_a_batch_of_one(vllm: TritonBackend) -> None:
    assert (await _said(vllm, _to("batched", max_tokens=3))).text == "the rain falls"


async def test_a_tensorrt_llm_model_gets_its_tensors(trt: TritonBackend, server: TritonServer) -> None:
    said = await _said(
        trt,
        _to("trt", "Sing.", temperature=0.5, top_p=0.5, top_k=5, min_p=0, presence_penalty=1, max_tokens=3, seed=-1),
    )
    inputs = server.seen[0].inputs
    assert inputs["text_input"] == [b"User: Sing.\nAssistant:"]
    assert inputs["max_tokens"] == [3]
    assert (inputs["temperature"], inputs["top_p"], inputs["top_k"]) == ([0.5], [0.5], [5])
    assert (inputs["presence_penalty"], inputs["seed"]) == ([1.0], [2**64 - 1])
    assert inputs["stop_words"] == [stop.encode() for stop in STOP_STRINGS]
    assert "frequency_penalty" not in inputs
    assert said.finished == Finished("length", 3, 3)


async def test_tensorrt_llm_takes_the_likeliest_token_by_its_rank(trt: TritonBackend, server: TritonServer) -> None:
    await _said(trt, _to("trt", temperature=0))
    assert server.seen[0].inputs["top_k"] == [1]
    assert "temperature" not in server.seen[0].inputs


async def test_a_parameter_that_the_model_has_no_tensor_for_is_refused_by_name(trt: TritonBackend) -> None:
    refused = await _failure(trt, _to("trt", min_p=0.1))
    assert (type(refused), refused.reason) == (RequestRefused, "unsupported")
    assert "`tensors.min_p`" in str(refused)


@pytest.mark.parametrize("stop", ["quiet to", " town", "and"])
async def test_what_tensorrt_llm_streams_of_a_stop_string_is_taken_out(trt: TritonBackend, stop: str) -> None:
    whole = await _said(trt, _to("trt", max_tokens=12))
    cut = await _said(trt, _to("trt", max_tokens=12, stop=(stop,)))
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finished.finish_reason == "stop"


async def test_a_stop_string_ends_the_stream_of_a_model_that_knows_none(
    trt: TritonBackend, server: TritonServer
) -> None:
    inputs = {name: tensor for name, tensor in TENSORRT_LLM.inputs.items() if name != "stop_words"}
    server.models["trt"] = replace(TENSORRT_LLM, inputs=inputs)
    server.script = Script(words=(" Yes.", "\nUser", ": And", " you?"), hang_after=3)
    assert await _said(trt, _to("trt")) == Said("Yes.", Finished("stop", 8, 3))
    async with asyncio.timeout(DEADLINE_S):
        await server.until(lambda: len(server.cancelled) == 1)


async def test_tensors_may_have_other_names(server: TritonServer) -> None:
    async with _started(server.url, Tensors.named("vllm", NAMES)) as backend:
        assert await _said(backend, _to("renamed", max_tokens=2)) == Said("the rain", Finished("length", 8, 2))


@pytest.mark.parametrize(
    ("style", "model", "words"),
    [
        ("vllm", "image", ("'text_input'", "`tensors.text_input`", "inputs image", "outputs class", "missing")),
        ("vllm", "renamed", ("`tensors.text_input`", "PROMPT", "COMPLETION")),
        ("vllm", "trt", ("'sampling_parameters'", "`tensor_style`", "max_tokens")),
        ("tensorrt_llm", "vllm", ("'max_tokens'", "`tensor_style`")),
        ("vllm", "numbers", ("'text_output'", "INT32", "BYTES")),
        ("vllm", "oldest", ("'exclude_input_in_output'", "missing")),
        ("vllm", "whole", ("decoupled: true", "config.pbtxt")),
    ],
)
async def test_a_model_of_another_kind_is_told_apart(
    server: TritonServer, style: Any, model: str, words: tuple[str, ...]
) -> None:
    async with _started(server.url, Tensors(style)) as backend:
        refused = await _failure(backend, _to(model))
    assert (type(refused), refused.reason) == (RequestRefused, "model_unusable")
    assert all(word in str(refused) for word in (*words, repr(model)))
    assert server.seen == []


async def test_an_unknown_model_is_refused_until_there_is_one(vllm: TritonBackend, server: TritonServer) -> None:
    refused = await _failure(vllm, _to("new"))
    assert (type(refused), refused.reason) == (RequestRefused, "unknown_model")
    server.models["new"] = VLLM
    await _said(vllm, _to("new"))


async def test_a_model_is_looked_at_once(vllm: TritonBackend, server: TritonServer) -> None:
    for _ in range(3):
        await _said(vllm, _to("vllm", max_tokens=1))
    assert server.metadata_asked == 1


async def test_a_model_that_was_reloaded_otherwise_is_looked_at_again(
    vllm: TritonBackend, server: TritonServer
) -> None:
    await _said(vllm, _to("vllm"))
    server.models["vllm"] = BATCHED
    failed = await _failure(vllm, _to("vllm"))
    assert (type(failed), failed.reason) == (BackendUnavailable, "model_changed")
    await _said(vllm, _to("vllm"))
    del server.models["vllm"]
    assert (await _failure(vllm, _to("vllm"))).reason == "unknown_model"


@pytest.mark.parametrize(("style", "model"), [("vllm", "vllm"), ("tensorrt_llm", "trt")])
async def test_a_prompt_longer_than_the_window_is_refused(server: TritonServer, style: Any, model: str) -> None:
    async with _started(server.url, Tensors(style)) as backend:
        refused = await _failure(backend, _to(model, "secret " * WINDOW))
    assert (type(refused), refused.reason) == (RequestRefused, "context_length_exceeded")
    assert f"{WINDOW + 2} tokens" in str(refused)
    assert str(WINDOW) in str(refused).partition("tokens")[2]


async def test_sampling_that_vllm_does_not_take_is_refused(vllm: TritonBackend) -> None:
    refused = await _failure(vllm, _to("vllm", top_p=2))
    assert (type(refused), refused.reason) == (RequestRefused, "invalid_request")


@pytest.mark.parametrize("fail_after", [0, 3])
@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        ("UNAVAILABLE", BackendUnavailable, "provider_unreachable"),
        ("INVALID_ARGUMENT", RequestRefused, "invalid_request"),
        ("NOT_FOUND", RequestRefused, "unknown_model"),
        ("RESOURCE_EXHAUSTED", RateLimited, "rate_limited"),
        ("DEADLINE_EXCEEDED", BackendUnavailable, "provider_timeout"),
        ("UNAUTHENTICATED", BackendUnavailable, "provider_restricted"),
        ("CANCELLED", BackendUnavailable, "engine_lost"),
        ("INTERNAL", BackendUnavailable, "engine_failed"),
    ],
)
async def test_a_status_closes_the_stream(
    vllm: TritonBackend, server: TritonServer, fail_after: int, code: str, kind: type[BackendError], reason: str
) -> None:
    server.script = Script(fail_after=fail_after, status=(grpc.StatusCode[code], "at the words: secret"))
    failed = await _failure(vllm, _to("vllm", "secret"))
    assert (type(failed), failed.reason) == (kind, reason)
    assert code in str(failed)
    assert "'vllm'" in str(failed)
    assert "secret" not in str(failed)
    server.script = Script()
    await _said(vllm, _to("vllm"))


@pytest.mark.parametrize("fail_after", [0, 3])
@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("Error generating stream: secret", BackendUnavailable, "engine_failed"),
        ("Model is unavailable due to unhealthy vLLM engine", BackendUnavailable, "model_not_ready"),
        ("Request for unknown model: 'vllm' has no available versions", BackendUnavailable, "model_not_ready"),
        ("Exceeds maximum queue size", RateLimited, "rate_limited"),
    ],
)
async def test_an_error_comes_within_the_stream(
    vllm: TritonBackend, server: TritonServer, fail_after: int, text: str, kind: type[BackendError], reason: str
) -> None:
    server.script = Script(fail_after=fail_after, text_of_error=text)
    failed = await _failure(vllm, _to("vllm", "secret"))
    assert (type(failed), failed.reason) == (kind, reason)
    assert "secret" not in str(failed)


@pytest.mark.parametrize("script", [Script(end_after=0), Script(end_after=3), Script(finish_reason="abort")])
async def test_an_answer_that_the_model_did_not_end_is_lost(
    vllm: TritonBackend, server: TritonServer, script: Script
) -> None:
    server.script = script
    failed = await _failure(vllm, _to("vllm"))
    assert (type(failed), failed.reason) == (BackendUnavailable, "engine_lost")


async def test_the_models_own_reason_to_finish_is_believed(vllm: TritonBackend, server: TritonServer) -> None:
    server.script = Script(words=(" Yes", "."))
    assert await _said(vllm, _to("vllm", max_tokens=2)) == Said("Yes.", Finished("length", 8, 2))
    assert (await _said(vllm, _to("vllm", max_tokens=3))).finished == Finished("stop", 8, 2)


async def test_a_connection_that_breaks_ends_the_attempt_and_a_later_one_connects_again(
    server: TritonServer,
) -> None:
    async with Relay(server.url) as relay, _started(relay.url) as backend:
        server.script = Script(hang_after=3)
        items = backend.generate(_to("vllm"))
        assert isinstance(await anext(items), Delta)
        relay.cut()
        with pytest.raises(BackendUnavailable) as lost:
            async with asyncio.timeout(DEADLINE_S):
                async for _ in items:
                    pass
        assert lost.value.reason == "provider_unreachable"
        server.script = Script()
        async with asyncio.timeout(DEADLINE_S):
            await _said_once_connected(backend)


async def _said_once_connected(backend: TritonBackend) -> None:
    while True:
        try:
            await _said(backend, _to("vllm"))
        except BackendUnavailable as error:
            # Until gRPC has dropped the connection, it gives new calls to it, which fail with it.
            if error.reason != "provider_unreachable":
                raise
        else:
            return


async def _begun(backend: TritonBackend) -> Any:
    items = backend.generate(_to("vllm", max_tokens=WINDOW))
    assert isinstance(await anext(items), Delta)
    return items


async def test_closing_stops_the_models_work_and_no_other(vllm: TritonBackend, server: TritonServer) -> None:
    server.script = Script(hang_after=2)
    async with asyncio.timeout(DEADLINE_S):
        first, second = await _begun(vllm), await _begun(vllm)
        await first.aclose()
        await server.until(lambda: len(server.cancelled) == 1)
        assert server.cancelled == server.seen[:1]
        assert server.running == 1
        assert isinstance(await anext(second), Delta)
        third = await _begun(vllm)  # the slot of the first one
        await second.aclose()
        await third.aclose()
        await server.until(lambda: server.running == 0)
    assert len(server.cancelled) == 3


async def test_cancelling_the_consumer_of_a_model_that_hangs_stops_its_work(
    vllm: TritonBackend, server: TritonServer
) -> None:
    server.script = Script(hang_after=0)
    async with asyncio.timeout(DEADLINE_S):
        consumers = [asyncio.create_task(_said(vllm, _to("vllm"))) for _ in range(SLOTS)]
        await server.until(lambda: server.running == SLOTS)
        for consumer in consumers:
            consumer.cancel()
        ended = await asyncio.gather(*consumers, return_exceptions=True)
        assert [type(one) for one in ended] == [asyncio.CancelledError] * SLOTS
        await server.until(lambda: len(server.cancelled) == SLOTS)
        server.script = Script()
        await _said(vllm, _to("vllm"))


async def test_closing_the_backend_ends_one_that_hangs(server: TritonServer) -> None:
    server.script = Script(hang_after=0)
    async with _started(server.url) as backend:
        consumer = asyncio.create_task(_failure(backend, _to("vllm")))
        async with asyncio.timeout(DEADLINE_S):
            await server.until(lambda: server.running == 1)
            await backend.close()
            assert (await consumer).reason == "engine_closed"
            await server.until(lambda: len(server.cancelled) == 1)


async def test_closing_the_backend_ends_one_that_waits_to_know_its_model(server: TritonServer) -> None:
    server.holds_metadata = True
    async with _started(server.url) as backend:
        consumer = asyncio.create_task(_failure(backend, _to("vllm")))
        async with asyncio.timeout(DEADLINE_S):
            await server.until(lambda: server.metadata_asked == 1)
            await backend.close()
            assert (await consumer).reason == "engine_closed"


async def test_each_request_has_an_id_of_its_own(vllm: TritonBackend, server: TritonServer) -> None:
    asked = _to("vllm", max_tokens=1)
    await asyncio.gather(*(_said(vllm, asked) for _ in range(5)), _said(vllm, replace(asked, attempt=2)))
    assert len(server.seen) == 6
    assert server.repeated_ids == []
    assert all(one.id.startswith(str(asked.generation_id)) for one in server.seen)


@pytest.mark.parametrize(
    "unfit",
    [
        replace(_to("vllm"), tools=(Tool(name="look"),)),
        replace(_to("vllm"), response_format=ResponseFormat()),
        _to(
            "vllm",
            ChatMessage(role="user", content=(TextPart(text="See"), ImagePart(url="https://example.org/a.png"))),
        ),
    ],
    ids=["tools", "format", "image"],
)
async def test_what_is_no_text_is_refused(vllm: TritonBackend, server: TritonServer, unfit: InferenceRequest) -> None:
    refused = await _failure(vllm, unfit)
    assert (type(refused), refused.reason) == (RequestRefused, "unsupported")
    assert server.seen == []


@pytest.mark.parametrize("where", ["prompt", "stop"])
async def test_half_a_surrogate_pair_is_refused(vllm: TritonBackend, where: str) -> None:
    half = "\ud83d"
    asked = _to("vllm", half) if where == "prompt" else _to("vllm", stop=(half,))
    refused = await _failure(vllm, asked)
    assert (type(refused), refused.reason) == (RequestRefused, "invalid_request")


async def test_numbers_out_of_range_are_brought_into_it(trt: TritonBackend, vllm: TritonBackend) -> None:
    huge = {"max_tokens": 10**20, "top_k": 10**20, "seed": -(10**30)}
    # As many as fit the window: vLLM says that it was the length, TensorRT-LLM says nothing.
    assert (await _said(vllm, _to("vllm", **huge))).finished == Finished("length", 8, WINDOW - 8)
    assert (await _said(trt, _to("trt", **huge))).finished == Finished("stop", 8, WINDOW - 8)


async def test_no_server_is_said_with_what_to_do() -> None:
    server = TritonServer({})
    url = await server.start()
    await server.stop()
    backend = TritonBackend(url, tensors=Tensors("vllm"), slots=1)
    with pytest.raises(BackendUnavailable, match=f"no Triton server answers at {url}.*tritonserver") as failed:
        await backend.start(_no_progress)
    assert failed.value.reason == "provider_unreachable"
    assert (await _failure(backend, _to("vllm"))).reason == "engine_closed"


@pytest.mark.parametrize("lacks", ["live", "ready"])
async def test_a_server_that_is_not_ready_is_not_used(server: TritonServer, lacks: str) -> None:
    setattr(server, lacks, False)
    backend = TritonBackend(server.url, tensors=Tensors("vllm"), slots=1)
    with pytest.raises(BackendUnavailable, match="not ready"):
        await backend.start(_no_progress)
    setattr(server, lacks, True)
    await backend.start(_no_progress)
    await _said(backend, _to("vllm"))
    await backend.close()


async def test_a_missing_client_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tritonclient.grpc.aio", None)
    with pytest.raises(BackendUnavailable, match="pip install") as failed:
        await TritonBackend("127.0.0.1:8001", tensors=Tensors("vllm"), slots=1).start(_no_progress)
    assert failed.value.reason == "engine_missing"


def test_a_tensor_that_is_none_of_ours_is_said() -> None:
    with pytest.raises(ValueError, match=r"'txt'.*text_input"):
        Tensors.named("vllm", {"txt": "PROMPT"})
    with pytest.raises(ValueError, match="empty"):
        Tensors.named("vllm", {"text_input": ""})
