"""llama.cpp by `llama-cpp-python`: one GGUF model, for builds that `xllamacpp` does not come in.

It computes one sequence at a time, so several streams together are no faster than one after another; `xllamacpp`
batches them. A conversation goes through the chat template that the file carries. A base model has none; it gets a
transcript. Nothing that one prompt computed is kept for another.
"""

from __future__ import annotations

from pathlib import Path

from workers.inference.engine_options import EngineOptions, usable_cores
from workers.inference.gguf import ModelError, read_header
from workers.inference.model_files import choose_context_window
from workers.inference.port import BackendUnavailable, Progress
from workers.inference.threaded import TextModel, ThreadedBackend


class LlamaCppPythonBackend(ThreadedBackend):
    """``slots`` generations at a time, each with a context of ``context_window`` tokens; they compute in turn.

    The model is in memory once, the contexts' caches ``slots`` times. ``context_window`` None is the smaller of 4096
    and what the model has. ``gpu_layers`` -1 is all of them. ``threads`` None is one a core that this process may use,
    less one.
    """

    def __init__(
        self,
        model_file: Path,
        *,
        slots: int,
        context_window: int | None = None,
        gpu_layers: int = -1,
        threads: int | None = None,
        options: EngineOptions = EngineOptions(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__(slots)
        self._model_file = model_file
        self._contexts = slots
        self._wanted_window = context_window
        self._gpu_layers = 0 if options.gpus == () else gpu_layers
        self._threads = threads or max(1, usable_cores() - 1)
        self._options = options

    def load(self, progress: Progress) -> TextModel:
        try:
            header = read_header(self._model_file)
            window = choose_context_window(self._model_file, header, self._wanted_window)
        except ModelError as error:
            raise BackendUnavailable("model_unusable", str(error)) from error
        try:
            from workers.inference.llama_cpp_model import LlamaCppModel
        except ImportError as error:
            raise BackendUnavailable(
                "engine_missing",
                f"llama-cpp-python can't be imported ({error}); install it with `make install-llama-cpp-python` or "
                "`pip install 'parley[llama-cpp-python]'`, which compile it: both need a C++ compiler",
            ) from error
        return LlamaCppModel(
            self._model_file,
            header.architecture,
            contexts=self._contexts,
            window=window,
            gpu_layers=self._gpu_layers,
            threads=self._threads,
            options=self._options,
            progress=progress,
        )
