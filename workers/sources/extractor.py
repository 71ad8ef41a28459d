"""The processes that read pages, seen from the worker: each reads one page at a time, within a time limit."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import suppress
from typing import NamedTuple

from workers.sources.extraction import LENGTH
from workers.sources.fetcher import CannotFetch

_FIRST_S, _LONGEST_S = 30.0, 5.0
"""Seconds for a page; the first one waits for libraries, too."""

_MOST = 4
"""Processes. One nearly always does; the others are for who comes while somebody's page takes its time."""


class Extracted(NamedTuple):
    title: str | None
    text: str


class Extractor:
    """Processes begin when there are pages for them. One that takes too long is killed."""

    def __init__(self, longest_s: float = _LONGEST_S, most: int = _MOST) -> None:
        self._idle = [_Reader(longest_s) for _ in range(most)]
        self._all = (*self._idle,)
        self._turn = asyncio.Semaphore(most)

    async def extract(self, body: bytes, media_type: str, charset: str | None) -> Extracted:
        """Raises CannotFetch."""
        async with self._turn:
            reader = self._idle.pop()
            try:
                answer = await reader.read(json.dumps({"media_type": media_type, "charset": charset}).encode(), body)
            finally:
                self._idle.append(reader)
        if "error" in answer:
            raise CannotFetch(f"what was found cannot be used: {answer['error']}")
        return Extracted(answer["title"], answer["text"] or "")

    async def aclose(self) -> None:
        for reader in self._all:
            await reader.kill()


class _Reader:
    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._process: asyncio.subprocess.Process | None = None
        self._warm = False

    async def read(self, question: bytes, body: bytes) -> dict[str, str | None]:
        try:
            async with asyncio.timeout(self._longest_s if self._warm else _FIRST_S):
                answer = await self._ask(question, body)
        except TimeoutError:
            await self.kill()
            raise CannotFetch("what was found takes too long to be read") from None
        except (OSError, asyncio.IncompleteReadError):
            await self.kill()
            raise CannotFetch("what was found cannot be read: its reader broke") from None
        except BaseException:
            # What comes next would be the answer to this one.
            await self.kill()
            raise
        self._warm = True
        return answer

    async def _ask(self, question: bytes, body: bytes) -> dict[str, str | None]:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        for part in (question, body):
            process.stdin.write(LENGTH.pack(len(part)) + part)
        await process.stdin.drain()
        (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
        answer: dict[str, str | None] = json.loads(await process.stdout.readexactly(length))
        return answer

    async def _start(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            # -P: a folder named like one of ours in the working directory must not be imported instead.
            *(sys.executable, "-P", "-m", "workers.sources.extraction"),
            # It reads what strangers wrote, so it is given no secret.
            env={name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )

    async def kill(self) -> None:
        process, self._process, self._warm = self._process, None, False
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
