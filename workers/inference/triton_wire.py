"""What is said to a model behind Triton and what it says: pure translation between the port and its tensors."""

from __future__ import annotations

import secrets
import struct
from typing import Any, Literal, NamedTuple

import orjson

from workers.inference import transcript
from workers.inference.port import BackendUnavailable, Finished, InferenceRequest, RequestRefused
from workers.inference.stop_strings import StopCut
from workers.inference.triton_tensors import INTEGERS, Model

_SAMPLING = ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty")
_NEUTRAL: dict[str, tuple[float, ...]] = {
    "temperature": (1,),
    "top_p": (1,),
    "top_k": (0, -1),
    "min_p": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
}
"""What changes nothing, so that a model without the tensor can be asked for it."""

_MOST_TOKENS = 2**31 - 1
_DEFAULT_TOKENS = 512
"""Longest answer where the prompt says nothing: vLLM itself would give 16, and TensorRT-LLM wants a number."""

_INTEGER_FORMATS = {
    "INT8": "<b",
    "UINT8": "<B",
    "INT16": "<h",
    "UINT16": "<H",
    "INT32": "<i",
    "UINT32": "<I",
    "INT64": "<q",
    "UINT64": "<Q",
}


class Input(NamedTuple):
    """One input tensor. ``datatype`` is Triton's word for it; the shape's product is the number of values."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: tuple[bytes | bool | int | float, ...]


def request_id(request: InferenceRequest) -> str:
    """An id that no other request has: TensorRT-LLM keeps what runs by it, and a repeated one would hit another's."""
    return f"{request.generation_id}-{request.attempt}-{secrets.token_hex(8)}"


def check_request(request: InferenceRequest) -> None:
    """Raises RequestRefused for what no text model behind Triton can do."""
    limit = request.parameters.max_tokens
    if limit is not None and limit < 1:
        raise RequestRefused("invalid_request", f"max_tokens is {limit}; ask for at least 1")
    wanted = {
        "tools": bool(request.tools),
        "images": any(message.images for message in request.messages),
        "a response format": request.response_format is not None,
        "logprobs": request.parameters.logprobs,
    }
    for what, is_wanted in wanted.items():
        if is_wanted:
            raise RequestRefused(
                "unsupported", f"the prompt asks for {what}, and a model behind Triton takes and gives text only"
            )


def most_tokens(request: InferenceRequest) -> int:
    return min(request.parameters.max_tokens or _DEFAULT_TOKENS, _MOST_TOKENS)


def request_inputs(request: InferenceRequest, model: Model) -> list[Input]:
    """The request as tensors. Raises RequestRefused."""
    tensors = model.tensors
    try:
        inputs = [
            _input(model, tensors.text_input, transcript.render(request.messages).encode()),
            _input(model, tensors.stream, True),
        ]
        if tensors.exclude_input_in_output in model.inputs:
            inputs.append(_input(model, tensors.exclude_input_in_output, True))
        inputs += _vllm(request, model) if tensors.style == "vllm" else _tensorrt_llm(request, model)
    except (UnicodeEncodeError, TypeError):
        raise RequestRefused("invalid_request", "the prompt holds half a surrogate pair; send valid Unicode") from None
    for ask, told in (
        (tensors.return_finish_reason, tensors.finish_reason),
        (tensors.return_num_input_tokens, tensors.num_input_tokens),
        (tensors.return_num_output_tokens, tensors.num_output_tokens),
    ):
        if ask in model.inputs and told in model.outputs:
            inputs.append(_input(model, ask, True))
    return inputs


class Answer:
    """One answer as it comes, response by response."""

    def __init__(self, request: InferenceRequest, model: Model) -> None:
        self._tensors = model.tensors
        self._model = model.name
        self._most_tokens = most_tokens(request)
        self._asked_finish_reason = (
            self._tensors.return_finish_reason in model.inputs and self._tensors.finish_reason in model.outputs
        )
        # vLLM takes stop strings out of its answer; TensorRT-LLM streams them, or finds only those that its tokenizer
        # happens to split like the answer.
        self._cut = StopCut(_stops(request) if model.tensors.style == "tensorrt_llm" else ())
        self._at_start = True
        self._responses = 0
        self._finish_reason: str | None = None
        self._input_tokens: int | None = None
        self._output_tokens: int | None = None

    @property
    def is_cut(self) -> bool:
        """A stop string has come, and nothing that follows belongs to the answer."""
        return self._cut.found

    def read(self, response: Any) -> str:
        """The text of a ModelInferResponse, maybe empty. Raises BackendUnavailable ``bad_stream``."""
        self._responses += 1
        text = ""
        try:
            for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
                if output.name == self._tensors.text_output:
                    text = _text(raw)
                elif output.name == self._tensors.finish_reason:
                    self._finish_reason = _text(raw)
                elif output.name == self._tensors.num_input_tokens:
                    self._input_tokens = _integer(raw, output.datatype)
                elif output.name == self._tensors.num_output_tokens:
                    # Each response counts what is new in it (vLLM backend, "Number of Output Tokens").
                    self._output_tokens = (self._output_tokens or 0) + _integer(raw, output.datatype)
        except (struct.error, ValueError, KeyError) as error:
            raise BackendUnavailable(
                "bad_stream",
                f"Triton's model {self._model!r} sent a tensor that cannot be read: {type(error).__name__}",
            ) from None
        return self._strip(self._cut.feed(text))

    def rest(self) -> str:
        """What was held back; call it once, at the end."""
        return self._strip(self._cut.rest())

    def finished(self) -> Finished:
        """How it ended. Raises BackendUnavailable ``engine_lost`` where the model did not end it."""
        output_tokens = self._output_tokens
        if output_tokens is not None and not 0 <= output_tokens <= self._most_tokens:
            output_tokens = None
        input_tokens = self._input_tokens if self._input_tokens and self._input_tokens > 0 else None
        return Finished(self._how_it_ended(output_tokens), input_tokens, output_tokens)

    def _how_it_ended(self, output_tokens: int | None) -> Literal["stop", "length"]:
        if self.is_cut:
            return "stop"
        # vLLM says "None" until it ends, then "stop", "length", or "abort" where it gave up.
        lost = self._asked_finish_reason and self._finish_reason in (None, "None", "abort", "error")
        if lost or not self._responses:
            raise BackendUnavailable("engine_lost", f"Triton's model {self._model!r} broke off its answer")
        if self._asked_finish_reason:
            return "length" if self._finish_reason == "length" else "stop"
        return "length" if output_tokens is not None and output_tokens >= self._most_tokens else "stop"

    def _strip(self, text: str) -> str:
        # The blank after "Assistant:" belongs to the template.
        if self._at_start:
            text = text.lstrip()
            self._at_start = not text
        return text


def _stops(request: InferenceRequest) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*transcript.STOP_STRINGS, *(stop for stop in request.stop if stop))))


def _vllm(request: InferenceRequest, model: Model) -> list[Input]:
    """``sampling_parameters`` is JSON of vLLM's ``SamplingParams`` (vLLM backend, "Sending Your First Inference")."""
    given = request.parameters
    sampling = {name: value for name in _SAMPLING if (value := getattr(given, name)) is not None}
    if given.top_k is not None:
        sampling["top_k"] = max(-1, min(given.top_k, _MOST_TOKENS))
    if given.seed is not None:
        sampling["seed"] = given.seed % 2**63  # the engine takes 64 bits, and -1 means a random one
    said = orjson.dumps({**sampling, "max_tokens": most_tokens(request), "stop": _stops(request)})
    return [_input(model, model.tensors.sampling_parameters, said)]


def _tensorrt_llm(request: InferenceRequest, model: Model) -> list[Input]:
    tensors, given = model.tensors, request.parameters
    sampling = {name: value for name in _SAMPLING if (value := getattr(given, name)) is not None}
    if given.temperature == 0 and tensors.top_k in model.inputs:
        # Not every release takes a temperature of 0; the likeliest token is asked for by its rank.
        del sampling["temperature"]
        sampling["top_k"] = 1
    if sampling.get("top_k", 0) < 0:
        sampling["top_k"] = 0
    inputs = [_integer_input(model, tensors.max_tokens, most_tokens(request))]
    for parameter, value in sampling.items():
        name = getattr(tensors, parameter)
        if name not in model.inputs:
            if value in _NEUTRAL[parameter]:
                continue
            raise _no_tensor(model, parameter, name)
        if parameter == "top_k":
            inputs.append(_integer_input(model, name, value))
        else:
            inputs.append(_input(model, name, float(value)))
    if given.seed is not None:
        if tensors.seed not in model.inputs:
            raise _no_tensor(model, "seed", tensors.seed)
        highest = INTEGERS[model.inputs[tensors.seed].datatype][1]
        inputs.append(_input(model, tensors.seed, given.seed % (highest + 1)))
    stops = [stop.encode() for stop in _stops(request)]
    if tensors.stop_words in model.inputs:
        inputs.append(_input(model, tensors.stop_words, *stops))
    return inputs


def _no_tensor(model: Model, parameter: str, name: str) -> RequestRefused:
    return RequestRefused(
        "unsupported",
        f"Triton's model {model.name!r} takes no {parameter}: it has no input tensor {name!r}. If it has one by "
        f"another name, set `tensors.{parameter}` of the pool",
    )


def _integer_input(model: Model, name: str, value: int) -> Input:
    lowest, highest = INTEGERS[model.inputs[name].datatype]
    return _input(model, name, max(lowest, min(value, highest)))


def _input(model: Model, name: str, *values: bytes | bool | int | float) -> Input:
    """A batch of one, where the model takes batches: its metadata then has one more dimension, which comes first
    (Triton, "Model Configuration", "Maximum Batch Size")."""
    spec = model.inputs[name]
    if spec.shape and spec.shape[-1] not in (-1, len(values)):
        raise RequestRefused(
            "model_unusable",
            f"the input tensor {name!r} of Triton's model {model.name!r} takes {spec.shape[-1]} values, not "
            f"{len(values)}",
        )
    return Input(name, spec.datatype, (1,) * (len(spec.shape) - 1) + (len(values),), values)


def _text(raw: bytes) -> str:
    """The first string of a BYTES tensor: its length in 4 bytes, little endian, then itself (Triton, "Binary Tensor
    Data Extension")."""
    (length,) = struct.unpack_from("<I", raw)
    if len(raw) < 4 + length:
        raise ValueError("cut short")
    return raw[4 : 4 + length].decode(errors="replace")


def _integer(raw: bytes, datatype: str) -> int:
    (number,) = struct.unpack_from(_INTEGER_FORMATS[datatype], raw)
    return int(number)
