"""Which model a machine runs, and where its file is.

A file that is named wins over a hub repository, that over what lies in `models/`, that over the packaged model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from backplane.settings import LlmSettings
from workers.inference.gguf import GgufHeader, ModelError, NotAModel, read_header
from workers.inference.hub import download
from workers.inference.packaged_model import PACKAGED_LICENSE, PACKAGED_NAME, assemble_packaged
from workers.inference.port import Progress

DEFAULT_CONTEXT_WINDOW = 4096
"""Tokens that a conversation gets where nothing else is said and the model has them."""

_FIRST_PART = re.compile(r"-00001-of-(\d{5})$")
_LATER_PART = re.compile(r"-(?!00001)\d{5}-of-\d{5}$")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model that is there and looks whole. ``license_notice`` is to be shown once to whoever runs it."""

    name: str
    path: Path
    context_window: int
    chat_template: bool
    license_notice: str | None


def find_model(llm: LlmSettings, *, models_dir: Path, data_dir: Path, progress: Progress) -> ModelFile:
    """Find the model to run; download or assemble it where it has to be. Blocks: run it in a thread.

    Raises ModelError, which says what is wrong and what to do.
    """
    if llm.huggingface_file and not llm.huggingface_repo:
        raise ModelError("LLM_HUGGINGFACE_FILE is set and LLM_HUGGINGFACE_REPO is not; set both")
    path, name, notice = _choose(llm, models_dir, data_dir, progress)
    header = read_header(path)
    return ModelFile(
        name=name or _model_name(path),
        path=path.resolve(),
        context_window=choose_context_window(path, header, llm.context_window),
        chat_template=header.chat_template,
        license_notice=notice,
    )


def choose_context_window(path: Path, header: GgufHeader, wanted: int | None) -> int:
    """Tokens of prompt and answer together. Raises ModelError if more are wanted than the model has."""
    if wanted is None:
        return min(DEFAULT_CONTEXT_WINDOW, header.context_length)
    if wanted > header.context_length:
        raise ModelError(
            f"a context window of {wanted} tokens is wanted and the model {path.name} has {header.context_length}; "
            f"set LLM_CONTEXT_WINDOW, or the pool's context_window, to at most {header.context_length}"
        )
    return wanted


def common_window(files: Iterable[Path], wanted: int | None) -> int:
    """Tokens of prompt and answer together that each of these models has. Reads headers. Raises ModelError."""
    return min(choose_context_window(path, read_header(path), wanted) for path in files)


def whole_size(path: Path, header: GgufHeader) -> int:
    """Bytes of the model, of all its files where it is split over several. Raises NotAModel where one is not there."""
    parts = _FIRST_PART.search(path.stem)
    if parts is None:
        return header.size
    size = header.size
    for number in range(2, int(parts[1]) + 1):
        part = path.with_name(f"{path.stem[: parts.start()]}-{number:05}-of-{parts[1]}{path.suffix}")
        if not part.is_file():
            raise NotAModel(part, "not there", f"{path.name} is the first of {int(parts[1])} files; put all beside it")
        size += part.stat().st_size
    return size


def _choose(
    llm: LlmSettings, models_dir: Path, data_dir: Path, progress: Progress
) -> tuple[Path, str | None, str | None]:
    """The file, its name where it isn't made from the file's, its licence notice."""
    if llm.model_file:
        return _named(llm.model_file, models_dir), None, None
    if llm.huggingface_repo:
        return download(llm.huggingface_repo, llm.huggingface_file, data_dir / "models", progress), None, None
    found = _in_folder(models_dir)
    if len(found) > 1:
        raise ModelError(
            f"{models_dir} holds {len(found)} models: {', '.join(file.name for file in found)}; name one of them in "
            "LLM_MODEL_FILE"
        )
    if found:
        return found[0], None, None
    return assemble_packaged(data_dir / "models", progress), PACKAGED_NAME, PACKAGED_LICENSE


def _named(wanted: str, models_dir: Path) -> Path:
    candidates = [Path(wanted).expanduser(), models_dir / wanted, models_dir / f"{wanted}.gguf"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    found = _in_folder(models_dir)
    for file in found:
        if _model_name(file) == wanted:
            return file
    there = f"{models_dir} holds {', '.join(file.name for file in found) or 'no model'}"
    raise NotAModel(candidates[0], "not there", f"correct LLM_MODEL_FILE; {there}")


def _in_folder(models_dir: Path) -> list[Path]:
    """The models in the folder; one that is split over several files is its first."""
    if not models_dir.is_dir():
        return []
    files = (file for file in models_dir.iterdir() if file.suffix.lower() == ".gguf" and file.is_file())
    return sorted(file for file in files if not _LATER_PART.search(file.stem))


def _model_name(path: Path) -> str:
    stem = _FIRST_PART.sub("", path.stem)
    return re.sub(r"[^a-z0-9._-]+", "-", stem.lower()).strip("-._") or "model"
