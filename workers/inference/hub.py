"""GGUF files from the Hugging Face hub. Needs the extra ``hub``."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from workers.inference.gguf import ModelError
from workers.inference.port import Progress

_PART = re.compile(r"^(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf$")
_LISTED = 20


def download(repo: str, pattern: str | None, folder: Path, progress: Progress) -> Path:
    """The file of ``repo`` that ``pattern`` names (wildcards allowed), below ``folder``. Blocks. Raises ModelError.

    What was downloaded whole before is used without asking the hub. A model that is split over several files comes
    whole; the path is its first file's.
    """
    home = folder / repo.replace("/", "--")
    here = sorted(file.relative_to(home).as_posix() for file in home.rglob("*.gguf")) if home.is_dir() else []
    if (parts := _one_model(here, pattern)) is not None and set(parts) <= set(here):
        return home / parts[0]
    try:
        from huggingface_hub import HfApi, hf_hub_download
        from huggingface_hub.utils.tqdm import tqdm
    except ImportError as error:
        raise ModelError(
            "LLM_HUGGINGFACE_REPO is set and the hub's client is not installed; install it with `uv sync --extra hub` "
            "or `pip install 'parley[hub]'`"
        ) from error
    try:
        files = [file for file in HfApi().list_repo_files(repo) if file.endswith(".gguf")]
        parts = _one_model(files, pattern)
        if parts is None:
            raise ModelError(_not_one(repo, pattern, files))
        for index, file in enumerate(parts):
            hf_hub_download(repo, file, local_dir=home, tqdm_class=_bar(tqdm, file, index, len(parts), progress))
    except ModelError:
        raise
    except Exception as error:  # the client raises its own, its HTTP library's and the system's errors
        raise ModelError(
            f"downloading {pattern or 'a model'} from the hub's repository {repo} failed: {type(error).__name__}: "
            f"{_first_line(error)}; check LLM_HUGGINGFACE_REPO, the network, and HF_TOKEN if the repository is gated"
        ) from error
    return home / parts[0]


def _one_model(files: list[str], pattern: str | None) -> list[str] | None:
    """The files of the one model that matches, in order; None if none or several do."""
    wanted = pattern or "*.gguf"
    matching = sorted(file for file in files if fnmatch(file, wanted) or fnmatch(file.rsplit("/", 1)[-1], wanted))
    stems = {(part["stem"] if (part := _PART.match(file)) else file) for file in matching}
    if len(stems) != 1:
        return None
    part = _PART.match(matching[0])
    if part is None:
        return matching
    return [f"{part['stem']}-{n:05}-of-{part['count']}.gguf" for n in range(1, int(part["count"]) + 1)]


def _not_one(repo: str, pattern: str | None, files: list[str]) -> str:
    listed = ", ".join(sorted(files)[:_LISTED]) or "none"
    more = f" and {len(files) - _LISTED} more" if len(files) > _LISTED else ""
    return (
        f"LLM_HUGGINGFACE_FILE ({pattern or 'not set'}) does not name exactly one GGUF model of {repo}; it has: "
        f"{listed}{more}"
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")


def _bar(tqdm: Any, file: str, index: int, count: int, progress: Progress) -> Any:
    """The client's progress bar, which tells ours instead of drawing itself."""

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})  # it draws nothing, and it counts below

        def update(self, n: float | None = 1) -> bool | None:
            self.n += n or 0
            if self.total:
                progress(f"downloading {file}", (index + min(self.n / self.total, 1.0)) / count)
            return None

    return Bar
