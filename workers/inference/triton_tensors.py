"""Tensors by which a text model behind Triton is asked and answers: their names, and what one model has of them.

Names and types are those of the vLLM backend (its ``src/model.py``, and "Additional Outputs from vLLM" in its docs) and
of TensorRT-LLM's models ``ensemble`` and ``tensorrt_llm_bls`` (their ``config.pbtxt``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, TypeAlias

from workers.inference.port import RequestRefused

Style: TypeAlias = Literal["vllm", "tensorrt_llm"]

INTEGERS: Mapping[str, tuple[int, int]] = {
    f"{sign}INT{bits}": (0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for sign in ("", "U")
    for bits in (8, 16, 32, 64)
}
"""Triton's integer types, with the lowest and the highest number of each."""

_TYPES: Mapping[str, Iterable[str]] = {
    "text": ("BYTES",),
    "flag": ("BOOL",),
    "integer": INTEGERS,
    "number": ("FP16", "FP32", "FP64"),
}


@dataclass(frozen=True, slots=True)
class Tensors:
    """Names. ``vllm`` takes all sampling in one tensor, as JSON; ``tensorrt_llm`` has a tensor for each parameter."""

    style: Style
    text_input: str = "text_input"
    stream: str = "stream"
    exclude_input_in_output: str = "exclude_input_in_output"
    sampling_parameters: str = "sampling_parameters"
    max_tokens: str = "max_tokens"
    temperature: str = "temperature"
    top_p: str = "top_p"
    top_k: str = "top_k"
    min_p: str = "min_p"
    presence_penalty: str = "presence_penalty"
    frequency_penalty: str = "frequency_penalty"
    seed: str = "seed"
    """Older releases of TensorRT-LLM's models call it ``random_seed``."""
    stop_words: str = "stop_words"
    return_finish_reason: str = "return_finish_reason"
    return_num_input_tokens: str = "return_num_input_tokens"
    return_num_output_tokens: str = "return_num_output_tokens"
    text_output: str = "text_output"
    finish_reason: str = "finish_reason"
    num_input_tokens: str = "num_input_tokens"
    num_output_tokens: str = "num_output_tokens"

    @classmethod
    def named(cls, style: Style, names: Mapping[str, str]) -> Tensors:
        """The style's own names, but for ``names``. Raises ValueError with the name that is none of ours, or empty."""
        known = [field.name for field in fields(cls) if field.name != "style"]
        for name, value in names.items():
            if name not in known:
                raise ValueError(f"no tensor is called {name!r} here; there are {', '.join(known)}")
            if not value:
                raise ValueError(f"the tensor {name!r} has an empty name")
        return cls(style, **names)


class Spec(NamedTuple):
    """One tensor of a model. -1 in ``shape`` is any length; a model that takes batches has the batch first."""

    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """What Triton said of one model. It has every tensor that its style cannot do without."""

    name: str
    tensors: Tensors
    inputs: Mapping[str, Spec]
    outputs: Mapping[str, Spec]


def read_model(name: str, metadata: Any, *, decoupled: bool, tensors: Tensors) -> Model:
    """``metadata`` is a ModelMetadataResponse ("Model Metadata" in KServe's protocol, which Triton speaks).

    Raises RequestRefused ``model_unusable`` with what is missing, what there is, and the setting to change.
    """
    inputs = {one.name: Spec(one.datatype, tuple(one.shape)) for one in metadata.inputs}
    outputs = {one.name: Spec(one.datatype, tuple(one.shape)) for one in metadata.outputs}
    kinds = {"text_input": "text", "stream": "flag"}
    optional = dict.fromkeys(("return_finish_reason", "return_num_input_tokens", "return_num_output_tokens"), "flag")
    if tensors.style == "vllm":
        # A release without the last one may repeat the prompt in its answer.
        kinds |= {"sampling_parameters": "text", "exclude_input_in_output": "flag"}
    else:
        kinds |= {"max_tokens": "integer"}
        optional |= {"exclude_input_in_output": "flag"}
        optional |= dict.fromkeys(("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty"), "number")
        optional |= {"top_k": "integer", "seed": "integer", "stop_words": "text"}
    try:
        for field, kind in kinds.items():
            _check("input", field, kind, tensors, inputs)
        for field, kind in optional.items():
            _check("input", field, kind, tensors, inputs, optional=True)
        _check("output", "text_output", "text", tensors, outputs)
        _check("output", "finish_reason", "text", tensors, outputs, optional=True)
        for field in ("num_input_tokens", "num_output_tokens"):
            _check("output", field, "integer", tensors, outputs, optional=True)
    except ValueError as error:
        raise RequestRefused(
            "model_unusable",
            f"Triton's model {name!r} cannot be used in the style {tensors.style!r}: {error}. It has the inputs "
            f"{_list(inputs)} and the outputs {_list(outputs)}. Name its tensors under `tensors` of the pool, or set "
            "the pool's `tensor_style` to vllm or tensorrt_llm",
        ) from None
    if not decoupled:
        raise RequestRefused(
            "model_unusable",
            f"Triton's model {name!r} answers in one piece; to stream it has to be decoupled: set "
            "`model_transaction_policy { decoupled: true }` in its config.pbtxt",
        )
    return Model(name, tensors, inputs, outputs)


def _check(
    what: str, field: str, kind: str, tensors: Tensors, there: Mapping[str, Spec], *, optional: bool = False
) -> None:
    name = getattr(tensors, field)
    spec = there.get(name)
    if spec is None:
        if optional:
            return
        raise ValueError(f"the {what} tensor {name!r} (`tensors.{field}`) is missing")
    if spec.datatype not in _TYPES[kind]:
        raise ValueError(
            f"the {what} tensor {name!r} (`tensors.{field}`) is {spec.datatype}, and has to be one of "
            f"{', '.join(_TYPES[kind])}"
        )


def _list(tensors: Mapping[str, Spec]) -> str:
    return ", ".join(sorted(tensors)) or "none"
