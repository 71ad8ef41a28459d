"""Models as a Triton server describes them, and its checks of a request against them."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tritonclient.grpc import model_config_pb2, service_pb2

Value = bytes | bool | int | float

_FIXED = {"BOOL": "<?", "INT32": "<i", "UINT32": "<I", "INT64": "<q", "UINT64": "<Q", "FP32": "<f"}


class Refused(Exception):
    """What Triton says of a request that it does not take."""


@dataclass(frozen=True)
class Tensor:
    """``dims`` as in config.pbtxt: without the batch."""

    datatype: str
    dims: tuple[int, ...] = (1,)
    optional: bool = False


@dataclass(frozen=True)
class ServedModel:
    """``max_batch_size`` 0: no batches, and so no batch dimension. ``names`` are those of tensors that have others."""

    platform: str
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    max_batch_size: int = 0
    decoupled: bool = True
    names: Mapping[str, str] = field(default_factory=dict)

    def renamed(self, names: Mapping[str, str]) -> ServedModel:
        return replace(
            self,
            inputs={names.get(name, name): tensor for name, tensor in self.inputs.items()},
            outputs={names.get(name, name): tensor for name, tensor in self.outputs.items()},
            names=names,
        )

    def metadata(self, name: str) -> Any:
        return service_pb2.ModelMetadataResponse(
            name=name,
            versions=["1"],
            platform=self.platform,
            inputs=[self._described(one, tensor) for one, tensor in self.inputs.items()],
            outputs=[self._described(one, tensor) for one, tensor in self.outputs.items()],
        )

    def config(self, name: str) -> Any:
        config = model_config_pb2.ModelConfig(name=name, max_batch_size=self.max_batch_size)
        config.model_transaction_policy.decoupled = self.decoupled
        return service_pb2.ModelConfigResponse(config=config)

    def shape(self, tensor: Tensor) -> tuple[int, ...]:
        return (-1, *tensor.dims) if self.max_batch_size else tensor.dims

    def read(self, name: str, request: Any) -> dict[str, list[Value]]:
        """The values of each input, by its usual name. Raises Refused as Triton words it."""
        given: dict[str, list[Value]] = {}
        for index, one in enumerate(request.inputs):
            tensor = self.inputs.get(one.name)
            if tensor is None:
                raise Refused(f"unexpected inference input '{one.name}' for model '{name}'")
            if one.datatype != tensor.datatype:
                raise Refused(
                    f"inference input '{one.name}' data-type is '{one.datatype}', but model '{name}' expects "
                    f"'{tensor.datatype}'"
                )
            expected = self.shape(tensor)
            fits = len(one.shape) == len(expected) and all(
                want in (-1, got) for want, got in zip(expected, one.shape, strict=True)
            )
            if not fits or (self.max_batch_size and one.shape[0] > self.max_batch_size):
                raise Refused(
                    f"unexpected shape for input '{one.name}' for model '{name}'. Expected {_list(expected)}, got "
                    f"{_list(one.shape)}"
                )
            given[one.name] = _values(one, request.raw_input_contents[index])
        missing = [one for one, tensor in self.inputs.items() if not tensor.optional and one not in given]
        if missing:
            raise Refused(
                f"expected number of inputs between {len(missing)} and {len(self.inputs)} but got {len(given)} inputs "
                f"for model '{name}'. Got input(s) {sorted(given)}, but missing required input(s) {missing}. Please "
                "provide all required input(s)."
            )
        usual = {other: name for name, other in self.names.items()}
        return {usual.get(name, name): values for name, values in given.items()}

    def _described(self, name: str, tensor: Tensor) -> Any:
        return service_pb2.ModelMetadataResponse.TensorMetadata(
            name=name, datatype=tensor.datatype, shape=self.shape(tensor)
        )


def packed(datatype: str, value: Value) -> bytes:
    """One element as Triton packs it in ``raw_output_contents``."""
    if isinstance(value, bytes):
        return struct.pack("<I", len(value)) + value
    return struct.pack(_FIXED[datatype], value)


def _values(one: Any, raw: bytes) -> list[Value]:
    count = 1
    for length in one.shape:
        count *= length
    values: list[Value] = []
    while raw:
        if one.datatype == "BYTES":
            (length,) = struct.unpack_from("<I", raw)
            values.append(raw[4 : 4 + length])
            raw = raw[4 + length :]
        else:
            size = struct.calcsize(_FIXED[one.datatype])
            values.append(struct.unpack(_FIXED[one.datatype], raw[:size])[0])
            raw = raw[size:]
    if len(values) != count:
        raise Refused(f"expected {count} elements for inference input '{one.name}', got {len(values)}")
    return values


def _list(shape: Any) -> str:
    return "[" + ",".join(map(str, shape)) + "]"


_TEXT, _MAYBE_TEXT = Tensor("BYTES"), Tensor("BYTES", optional=True)
_FLAG = Tensor("BOOL", optional=True)
_NUMBER = Tensor("FP32", optional=True)

VLLM_BEFORE_24_12 = ServedModel(
    platform="",
    inputs={
        "text_input": _TEXT,
        "stream": _FLAG,
        "sampling_parameters": _MAYBE_TEXT,
        "exclude_input_in_output": _FLAG,
    },
    outputs={"text_output": Tensor("BYTES", (-1,))},
)

VLLM = ServedModel(
    platform="",
    inputs={
        **VLLM_BEFORE_24_12.inputs,
        "return_finish_reason": _FLAG,
        "return_num_input_tokens": _FLAG,
        "return_num_output_tokens": _FLAG,
    },
    outputs={
        **VLLM_BEFORE_24_12.outputs,
        "finish_reason": Tensor("BYTES", (-1,)),
        "num_input_tokens": Tensor("UINT32"),
        "num_output_tokens": Tensor("UINT32", (-1,)),
    },
)

TENSORRT_LLM = ServedModel(
    platform="ensemble",
    max_batch_size=64,
    inputs={
        "text_input": _TEXT,
        "max_tokens": Tensor("INT32"),
        "stop_words": Tensor("BYTES", (-1,), optional=True),
        "exclude_input_in_output": _FLAG,
        "stream": _FLAG,
        "temperature": _NUMBER,
        "top_p": _NUMBER,
        "top_k": Tensor("INT32", optional=True),
        "presence_penalty": _NUMBER,
        "frequency_penalty": _NUMBER,
        "seed": Tensor("UINT64", optional=True),
        "return_num_input_tokens": _FLAG,
        "return_num_output_tokens": _FLAG,
    },
    outputs={
        "text_output": Tensor("BYTES", (-1,)),
        "num_input_tokens": Tensor("INT32"),
        "num_output_tokens": Tensor("INT32"),
    },
)
