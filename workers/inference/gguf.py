"""What the header of a GGUF file says, read without loading the model.

ModelError          no model can be had; the message says what to do
└── NotAModel       a file that was named is missing, is no GGUF, or is cut short
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Problem = Literal["not there", "not a GGUF", "cut short", "not a text model"]


class ModelError(Exception):
    """No model can be had. The message is for people and says what to do."""


class NotAModel(ModelError):
    """``problem`` is stable: not there, not a GGUF, cut short, not a text model."""

    def __init__(self, path: Path, problem: Problem, advice: str) -> None:
        super().__init__(f"model file {path}: {problem}; {advice}")
        self.path = path
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Attention:
    """What decides how large the KV cache is. ``heads`` are those that keys and values have in a layer, the most where
    layers differ; lengths are numbers in one head. ``sliding_window`` is in tokens, 0: none. One of
    ``period`` layers looks beyond it, 0: the file does not say."""

    layers: int
    heads: int
    key_length: int
    value_length: int
    sliding_window: int = 0
    period: int = 0


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """``context_length`` is the number of tokens the model was made for. ``size`` is the file's, in bytes."""

    version: int
    architecture: str
    name: str | None
    context_length: int
    chat_template: bool
    size: int
    attention: Attention


def read_header(path: Path) -> GgufHeader:
    """Read and check the header of the GGUF file at ``path``. Raises NotAModel."""
    try:
        with path.open("rb") as file:
            if file.read(4) != _MAGIC:
                raise NotAModel(path, "not a GGUF", "it does not begin with the letters GGUF; name a .gguf file")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _parse(path, data)
    except (FileNotFoundError, NotADirectoryError):
        raise NotAModel(path, "not there", "correct the path or put the file there") from None
    except IsADirectoryError:
        raise NotAModel(path, "not a GGUF", "it is a folder; name the .gguf file in it") from None
    except PermissionError:
        raise NotAModel(path, "not there", "this user may not read it; change its permissions") from None


_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
_FLOATS = (6, 12)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_KNOWN_VERSIONS = (2, 3)
_DEFAULT_ALIGNMENT = 32
_MAX_NESTING = 4
_MOST_LAYERS = 1024
_MAX_DIMENSIONS = 8

_BLOCKS = {
    # tensor type: weights in a block, bytes of a block
    0: (1, 4),
    1: (1, 2),
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    9: (32, 36),
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    15: (256, 292),
    16: (256, 66),
    17: (256, 74),
    18: (256, 98),
    19: (256, 50),
    20: (32, 18),
    21: (256, 110),
    22: (256, 82),
    23: (256, 136),
    24: (1, 1),
    25: (1, 2),
    26: (1, 4),
    27: (1, 8),
    28: (1, 8),
    29: (256, 56),
    30: (1, 2),
    34: (256, 54),
    35: (256, 66),
    39: (32, 17),
}

_Scalar = int | float | bool | str


class _CutShort(Exception):
    pass


class _Malformed(Exception):
    pass


class _Cursor:
    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.position = 0

    def skip(self, size: int) -> None:
        if size > len(self.data) - self.position:
            raise _CutShort
        self.position += size

    def scalar(self, code: str) -> _Scalar:
        start = self.position
        self.skip(struct.calcsize(f"<{code}"))
        value: _Scalar = struct.unpack_from(f"<{code}", self.data, start)[0]
        return value

    def integer(self, code: str) -> int:
        return int(self.scalar(code))

    def string(self) -> str:
        length = self.integer("Q")
        start = self.position
        self.skip(length)
        return self.data[start : self.position].decode(errors="replace")

    def value(self, kind: int) -> _Scalar | None:
        """A scalar or a string. A number a layer gives the largest one; other arrays are passed over and give None."""
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._largest()
        if kind not in _SCALARS:
            raise _Malformed
        return self.scalar(_SCALARS[kind])

    def _largest(self) -> int | None:
        start = self.position
        kind, count = self.integer("I"), self.integer("Q")
        if kind in _SCALARS and kind not in _FLOATS and 0 < count <= _MOST_LAYERS:
            return max(self.integer(_SCALARS[kind]) for _ in range(count))
        self.position = start
        self._skip_array(1)
        return None

    def _skip_array(self, depth: int) -> None:
        kind, count = self.integer("I"), self.integer("Q")
        if kind == _STRING:
            for _ in range(count):
                self.skip(self.integer("Q"))
        elif kind == _ARRAY and depth < _MAX_NESTING:
            for _ in range(count):
                self._skip_array(depth + 1)
        elif kind in _SCALARS:
            self.skip(count * struct.calcsize(f"<{_SCALARS[kind]}"))
        else:
            raise _Malformed


def _parse(path: Path, data: mmap.mmap) -> GgufHeader:
    cursor = _Cursor(data)
    try:
        cursor.skip(len(_MAGIC))
        version = cursor.integer("I")
        if version not in _KNOWN_VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            what = "big-endian" if swapped in _KNOWN_VERSIONS else f"version {version}"
            raise NotAModel(path, "not a GGUF", f"{what} is not supported; use a little-endian file of version 2 or 3")
        tensors, pairs = cursor.integer("Q"), cursor.integer("Q")
        metadata: dict[str, _Scalar] = {}
        for _ in range(pairs):
            key = cursor.string()
            value = cursor.value(cursor.integer("I"))
            if value is not None:
                metadata[key] = value
        _check_tensors(cursor, tensors, metadata)
    except _CutShort:
        raise NotAModel(path, "cut short", f"it ends after {len(data)} bytes; download or copy it again") from None
    except _Malformed:
        raise NotAModel(path, "not a GGUF", "its header makes no sense; download or copy it again") from None
    architecture = metadata.get("general.architecture")
    context_length = metadata.get(f"{architecture}.context_length")
    if not isinstance(architecture, str) or not isinstance(context_length, int) or context_length < 1:
        raise NotAModel(
            path, "not a text model", f"architecture {architecture!r} has no context length; name a language model"
        )
    name = metadata.get("general.name")
    return GgufHeader(
        version=version,
        architecture=architecture,
        name=name if isinstance(name, str) else None,
        context_length=context_length,
        chat_template=bool(metadata.get("tokenizer.chat_template")),
        size=len(data),
        attention=_attention(architecture, metadata),
    )


def _attention(architecture: str, metadata: dict[str, _Scalar]) -> Attention:
    def number(name: str) -> int:
        value = metadata.get(f"{architecture}.{name}")
        return int(value) if isinstance(value, int) else 0

    heads = number("attention.head_count")
    length = number("embedding_length") // max(1, heads)
    return Attention(
        layers=number("block_count"),
        heads=number("attention.head_count_kv") or heads,
        key_length=number("attention.key_length") or length,
        value_length=number("attention.value_length") or length,
        sliding_window=number("attention.sliding_window"),
        period=number("attention.sliding_window_pattern"),
    )


def _check_tensors(cursor: _Cursor, count: int, metadata: dict[str, _Scalar]) -> None:
    """Pass over the table of tensors and see that the file is long enough for each of them."""
    end = 0
    for _ in range(count):
        cursor.string()
        weights, dimensions = 1, cursor.integer("I")
        if dimensions > _MAX_DIMENSIONS:
            raise _Malformed
        for _ in range(dimensions):
            weights *= cursor.integer("Q")
        per_block, block_bytes = _BLOCKS.get(cursor.integer("I"), (1, 0))
        end = max(end, cursor.integer("Q") + -(-weights // per_block) * block_bytes)
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise _Malformed
    data_start = -(-cursor.position // alignment) * alignment
    if end and data_start + end > len(cursor.data):
        raise _CutShort
