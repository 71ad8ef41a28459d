"""GGUF files made by hand."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

Value = str | int | bool | float | Sequence[str | int]


def gguf(metadata: Mapping[str, Value], *, version: int = 3, tensors: int = 1) -> bytes:
    """A whole file with ``tensors`` tensors of 32 float32 weights each."""
    header = b"GGUF" + struct.pack("<IQQ", version, tensors, len(metadata))
    for key, value in metadata.items():
        header += _string(key) + _value(value)
    for index in range(tensors):
        header += _string(f"t{index}") + struct.pack("<IQIQ", 1, 32, 0, index * 128)
    return header + b"\0" * (-len(header) % 32) + b"\1" * 128 * tensors


def language_model(context_length: int = 8192, *, more: Mapping[str, Value] | None = None) -> bytes:
    return gguf(
        {
            "general.architecture": "gemma3",
            "tokenizer.ggml.tokens": ("<bos>", "hello", "🦄"),
            "general.name": "A model",
            "gemma3.context_length": context_length,
            **(more or {}),
        }
    )


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Value) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + _string(value)
        case _ if value and isinstance(value[0], int):
            return struct.pack("<IIQ", 9, 4, len(value)) + struct.pack(f"<{len(value)}I", *value)
        case _:
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(_string(str(one)) for one in value)
