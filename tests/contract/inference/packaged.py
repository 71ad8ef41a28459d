"""The packaged model, assembled once and kept in pytest's cache."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from workers.inference.packaged_model import assemble_packaged

_CHAT_TEMPLATE = (
    "{% for m in messages %}{% if 'forbidden' in m.content %}{{ raise_exception('no') }}{% endif %}"
    "<start_of_turn>{{ m.role }}\n{{ m.content }}<end_of_turn>\n{% endfor %}<start_of_turn>model{{ '\n' }}"
)


@pytest.fixture(scope="session")
def packaged_model(pytestconfig: pytest.Config) -> Path:
    return assemble_packaged(pytestconfig.cache.mkdir("parley-models"), lambda doing, share: None)


def add_chat_template(source: Path, target: Path) -> None:
    """A copy of the model that has a chat template, which refuses the word `forbidden`."""
    data = source.read_bytes()
    (pairs,) = struct.unpack_from("<Q", data, 16)
    key, template = b"tokenizer.chat_template", _CHAT_TEMPLATE.encode()
    entry = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(template)) + template
    # A multiple of the alignment, so that the tensors stay where their table says.
    entry += _padding_entry(-(len(entry) + len(_padding_entry(0))) % 32)
    with target.open("wb") as file:
        file.write(data[:16] + struct.pack("<Q", pairs + 2) + entry + data[24:])


def _padding_entry(size: int) -> bytes:
    key = b"general.description"
    return struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, size) + b"x" * size
