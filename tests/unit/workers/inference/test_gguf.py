from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.workers.inference.gguf_files import Value, gguf, language_model
from workers.inference.gguf import Attention, NotAModel, read_header


def _write(folder: Path, data: bytes) -> Path:
    path = folder / "m.gguf"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_what_the_header_says(tmp_path: Path, version: int) -> None:
    data = gguf(
        {"general.architecture": "llama", "llama.context_length": 2048, "a.flag": True, "a.float": 1.5},
        version=version,
        tensors=3,
    )
    header = read_header(_write(tmp_path, data))
    assert (header.version, header.architecture, header.context_length) == (version, "llama", 2048)
    assert header.name is None
    assert not header.chat_template
    assert header.size == len(data)


def test_name_and_chat_template(tmp_path: Path) -> None:
    header = read_header(_write(tmp_path, language_model(more={"tokenizer.chat_template": "{{ messages }}"})))
    assert header.name == "A model"
    assert header.chat_template


def test_what_decides_the_size_of_the_cache(tmp_path: Path) -> None:
    said = {"block_count": 18, "embedding_length": 640, "attention.head_count": 4, "attention.sliding_window": 512}
    more = {f"gemma3.{name}": value for name, value in said.items()}
    header = read_header(_write(tmp_path, language_model(more=more)))
    assert header.attention == Attention(layers=18, heads=4, key_length=160, value_length=160, sliding_window=512)
    more |= {"gemma3.attention.head_count_kv": 1, "gemma3.attention.key_length": 256}
    header = read_header(_write(tmp_path, language_model(more=more)))
    assert (header.attention.heads, header.attention.key_length, header.attention.value_length) == (1, 256, 160)


def test_of_a_number_for_each_layer_the_largest_counts(tmp_path: Path) -> None:
    more: dict[str, Value] = {"gemma3.attention.head_count_kv": (1, 8, 4), "gemma3.block_count": 3}
    assert read_header(_write(tmp_path, language_model(more=more))).attention.heads == 8


@given(name=st.text(max_size=50), tokens=st.lists(st.text(max_size=5), max_size=20), context=st.integers(1, 2**32 - 1))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
def test_any_header_is_read_back(tmp_path: Path, name: str, tokens: list[str], context: int) -> None:
    metadata: dict[str, Value] = {
        "general.architecture": "x",
        "t": tokens,
        "general.name": name,
        "x.context_length": context,
    }
    header = read_header(_write(tmp_path, gguf(metadata)))
    assert (header.name, header.context_length) == (name, context)


@given(share=st.floats(0, 1, exclude_max=True))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
def test_a_file_cut_anywhere_is_no_model(tmp_path: Path, share: float) -> None:
    data = language_model()
    cut = data[: int(len(data) * share)]
    with pytest.raises(NotAModel) as wrong:
        read_header(_write(tmp_path, cut))
    assert wrong.value.problem == ("cut short" if len(cut) >= 4 else "not a GGUF")


@given(junk=st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)
def test_junk_is_refused_and_nothing_else_is_raised(tmp_path: Path, junk: bytes) -> None:
    with pytest.raises(NotAModel):
        read_header(_write(tmp_path, b"GGUF" + struct.pack("<I", 3) + junk))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(NotAModel, match="not there") as wrong:
        read_header(tmp_path / "nothing.gguf")
    assert wrong.value.problem == "not there"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a GGUF"),
        (b"PK\x03\x04 a zip", "begin with"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (gguf({"general.architecture": "clip"}), "not a text model"),
    ],
)
def test_other_files(tmp_path: Path, data: bytes, says: str) -> None:
    with pytest.raises(NotAModel, match=says):
        read_header(_write(tmp_path, data))


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(NotAModel, match="folder"):
        read_header(tmp_path)
