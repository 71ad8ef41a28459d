"""Documents of strangers are read in a process of their own, which ends where it takes too long or too much.

`python -m workers.knowledge.reading` is that process: bytes on standard input, JSON on standard output.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from dataclasses import dataclass

from workers.knowledge.documents import Kind, UnreadableDocument, kind_of, text_of

_MEMORY_BYTES = 2 * 1024**3
_ENDED_BADLY = "reading it needs too much memory, or broke off"


@dataclass(frozen=True, slots=True)
class Text:
    kind: Kind
    text: str


async def read_document(raw: bytes, within_s: float) -> Text:
    """Raises UnreadableDocument: what ``text_of`` raises, ``took_too_long``, ``broke_off``."""
    # -P: a folder named like one of ours in the working directory must not be imported instead.
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        __name__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={},
    )
    try:
        async with asyncio.timeout(within_s):
            said, _ = await child.communicate(raw)
    except TimeoutError:
        raise UnreadableDocument("took_too_long", f"reading it takes over {within_s:g} seconds, the limit") from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    if child.returncode != 0:
        raise UnreadableDocument("broke_off", _ENDED_BADLY)
    answer = json.loads(said)
    if "reason" in answer:
        raise UnreadableDocument(answer["reason"], answer["message"])
    return Text(answer["kind"], answer["text"])


def _main() -> None:
    logging.disable(logging.CRITICAL)  # libraries quote documents
    _limit_memory()
    raw = sys.stdin.buffer.read()
    try:
        kind = kind_of(raw)
        answer = {"kind": kind, "text": text_of(raw, kind)}
    except UnreadableDocument as error:
        answer = {"reason": error.reason, "message": str(error)}
    # Half of a surrogate pair, which broken PDFs give, is no UTF-8.
    sys.stdout.buffer.write(json.dumps(answer, ensure_ascii=False).encode("utf-8", "replace"))


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:
        return  # Windows has no such limit; services run on Linux and macOS
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))


if __name__ == "__main__":
    _main()
