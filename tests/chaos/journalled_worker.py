"""A worker whose backend writes down what it produces, token by token, before the worker has it. Run as a program."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import workers.main
from backplane.settings import LlmSettings, PoolSettings, Settings
from cli import process
from cli.programs import settings_of_one_service
from workers.inference.port import Backend, Counted, Finished, InferenceRequest, Item, Progress
from workers.inference.registry import make_backend

FOLDER = "CHAOS_JOURNALS"
"""Environment variable: where every such process keeps a file of its own."""


class Journalled:
    """A backend, and its journal. What stands there survives a kill -9: each line is one write, to the kernel."""

    def __init__(self, backend: Backend, folder: Path) -> None:
        self._backend = backend
        file = folder / f"{time.time_ns()}-{os.getpid()}.jsonl"
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def start(self, progress: Progress) -> None:
        await self._backend.start(progress)

    async def generate(self, request: InferenceRequest) -> AsyncGenerator[Item]:
        produced = 0
        self._write(request, "begun", time.time())
        async with aclosing(self._backend.generate(request)) as items:
            async for item in items:
                if isinstance(item, Finished):
                    self._write(request, "finished", [item.input_tokens, item.output_tokens])
                else:
                    produced += 1
                    self._write(request, "produced", produced)
                yield item

    async def count(self, request: InferenceRequest) -> Counted | None:
        return await self._backend.count(request)

    async def close(self) -> None:
        await self._backend.close()

    def _write(self, request: InferenceRequest, what: str, value: Any) -> None:
        os.write(self._file, f"{json.dumps([str(request.generation_id), request.attempt, what, value])}\n".encode())


@dataclass
class Produced:
    """What backends did for one attempt, whatever became of their workers."""

    begun: list[tuple[float, str]] = field(default_factory=list)
    """Unix time, and the journal of the process: one, since an attempt is run by one worker only, and once."""
    tokens: int = 0
    finished: tuple[int, int] | None = None
    """Input and output tokens, as the backend counted them at the end. None: it never came to its end."""


def read(folder: Path) -> dict[tuple[str, int], Produced]:
    """What all journals in ``folder`` say, by generation and attempt."""
    found: dict[tuple[str, int], Produced] = defaultdict(Produced)
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.read_text().splitlines():
            generation_id, attempt, what, value = json.loads(line)
            produced = found[generation_id, attempt]
            if what == "begun":
                produced.begun.append((value, file.name))
            elif what == "produced":
                produced.tokens = max(produced.tokens, value)
            else:
                produced.finished = (value[0], value[1])
    return dict(found)


def _make_backend(pool_name: str, pool: PoolSettings, llm: LlmSettings) -> Backend:
    return Journalled(make_backend(pool_name, pool, llm), Path(os.environ[FOLDER]))


if __name__ == "__main__":
    vars(workers.main)["make_backend"] = _make_backend

    async def serve(settings: Settings, stop: asyncio.Event) -> None:
        await workers.main.serve(settings, stop, pool="local")

    raise SystemExit(process.run("worker-local", serve, settings_of_one_service))
