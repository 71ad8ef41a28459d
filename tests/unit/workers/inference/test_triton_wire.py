"""What needs no server to be seen; the rest is in tests/contract/triton."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import pytest

from event_schemas.generation import Parameters
from tests.contract.inference.requests import request
from workers.inference.port import BackendUnavailable, Finished, InferenceRequest, RequestRefused
from workers.inference.triton_tensors import Model, Spec, Tensors
from workers.inference.triton_wire import Answer, check_request, request_inputs

TEXT, FLAG = Spec("BYTES", (1,)), Spec("BOOL", (1,))


def _vllm(**inputs: Spec) -> Model:
    counted = {"num_input_tokens": Spec("UINT32", (1,)), "num_output_tokens": Spec("UINT32", (-1,))}
    return Model(
        "m",
        Tensors("vllm"),
        {"text_input": TEXT, "stream": FLAG, "sampling_parameters": TEXT, **inputs},
        {"text_output": TEXT, "finish_reason": TEXT, **counted},
    )


def _response(**tensors: bytes | int) -> Any:
    outputs, contents = [], []
    for name, value in tensors.items():
        is_text = isinstance(value, bytes)
        outputs.append(SimpleNamespace(name=name, datatype="BYTES" if is_text else "INT32"))
        contents.append(struct.pack("<I", len(value)) + value if isinstance(value, bytes) else struct.pack("<i", value))
    return SimpleNamespace(outputs=outputs, raw_output_contents=contents)


def _asked(max_tokens: int | None = 8) -> InferenceRequest:
    return request(parameters=Parameters(max_tokens=max_tokens))


def test_counts_add_up_and_the_blank_before_the_answer_goes() -> None:
    answer = Answer(_asked(), _vllm())
    told = [
        answer.read(_response(text_output=text, num_input_tokens=5, num_output_tokens=count))
        for text, count in ((b" ", 1), (b" Hi", 1), (b" there", 2))
    ]
    assert told == ["", "Hi", " there"]
    assert answer.finished() == Finished("stop", 5, 4)


@pytest.mark.parametrize("count", [-1, 9])
def test_a_count_that_cannot_be_true_is_none(count: int) -> None:
    answer = Answer(_asked(), _vllm())
    answer.read(_response(text_output=b"Hi", num_input_tokens=0, num_output_tokens=count))
    assert answer.finished() == Finished("stop", None, None)


def test_without_a_finish_reason_the_count_tells() -> None:
    answer = Answer(_asked(), _vllm())
    answer.read(_response(text_output=b"Hi", num_output_tokens=8))
    assert answer.finished() == Finished("length", None, 8)


@pytest.mark.parametrize("reason", [b"None", b"abort", None])
def test_where_a_finish_reason_was_asked_for_there_has_to_be_one(reason: bytes | None) -> None:
    answer = Answer(_asked(), _vllm(return_finish_reason=FLAG))
    answer.read(_response(text_output=b"Hi") if reason is None else _response(text_output=b"Hi", finish_reason=reason))
    with pytest.raises(BackendUnavailable) as lost:
        answer.finished()
    assert lost.value.reason == "engine_lost"


def test_half_a_character_is_replaced() -> None:
    assert Answer(_asked(), _vllm()).read(_response(text_output="é".encode()[:1])) == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("raw", [b"", b"\x05\0\0\0ab"])
def test_a_broken_tensor_is_told(raw: bytes) -> None:
    broken = _response(text_output=b"")
    broken.raw_output_contents[0] = raw
    with pytest.raises(BackendUnavailable) as failed:
        Answer(_asked(), _vllm()).read(broken)
    assert failed.value.reason == "bad_stream"


def test_an_answer_is_bounded_where_the_prompt_does_not_bound_it() -> None:
    sampling = request_inputs(_asked(None), _vllm())[2]
    assert sampling.name == "sampling_parameters"
    assert b'"max_tokens":512' in bytes(sampling.values[0])  # type: ignore[arg-type]


def test_a_tensor_of_a_fixed_length_takes_no_other() -> None:
    model = Model(
        "m",
        Tensors("tensorrt_llm"),
        {
            "text_input": Spec("BYTES", (-1, 1)),
            "stream": Spec("BOOL", (-1, 1)),
            "max_tokens": Spec("INT32", (-1, 1)),
            "stop_words": Spec("BYTES", (-1, 1)),
        },
        {"text_output": Spec("BYTES", (-1, -1))},
    )
    with pytest.raises(RequestRefused, match="stop_words") as refused:
        request_inputs(_asked(), model)
    assert refused.value.reason == "model_unusable"


@pytest.mark.parametrize("limit", [0, -1])
def test_no_tokens_at_all_is_refused(limit: int) -> None:
    with pytest.raises(RequestRefused) as refused:
        check_request(_asked(limit))
    assert refused.value.reason == "invalid_request"
