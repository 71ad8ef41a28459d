"""A server of embeddings and rankings as somebody else's would be one: OpenAI's `/embeddings`, Cohere's `/rerank`."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

DIMENSIONS = 64
KEY = "key-of-a-test"
WINDOW_WORDS = 200


@dataclass
class EmbeddingServer:
    url: str = ""
    faults: list[int] = field(default_factory=list)
    """Statuses that the next requests get instead of an answer."""
    requests: list[dict[str, Any]] = field(default_factory=list)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")
                headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines[1:] if line)}
                body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))))
                status, answer = self.answer(lines[0].split(" ")[1], headers, body)
                raw = json.dumps(answer).encode()
                framed = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(raw)}\r\n\r\n"
                writer.write(framed.encode() + raw)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    def answer(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        self.requests.append(body)
        if headers.get("authorization") != f"Bearer {KEY}":
            return 401, _error("invalid_api_key")
        if self.faults:
            return self.faults.pop(0), _error("fault")
        if path == "/v1/embeddings":
            texts = body["input"]
            if any(len(text.split()) > WINDOW_WORDS for text in texts):
                return 400, _error("context_length_exceeded")
            size = body.get("dimensions", DIMENSIONS)
            data = [
                {"object": "embedding", "index": n, "embedding": bag_of_words(text, size)}
                for n, text in enumerate(texts)
            ]
            # Nothing says that they come in order.
            return 200, {"object": "list", "model": body["model"], "data": data[::-1], "usage": {"prompt_tokens": 1}}
        if path == "/v1/rerank":
            asked = _words(body["query"])
            found = [
                {"index": n, "relevance_score": len(asked & _words(text)) / (1 + len(asked))}
                for n, text in enumerate(body["documents"])
            ]
            return 200, {"results": sorted(found, key=lambda each: -each["relevance_score"])}
        return 404, _error("not_found")


def bag_of_words(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """Texts with the same words are close. Not of length one, since not every server's are."""
    vector = [0.01] * dimensions
    for word in _words(text):
        vector[hashlib.sha256(word.encode()).digest()[0] % dimensions] += 1.0
    return vector


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def _error(code: str) -> dict[str, Any]:
    return {"error": {"message": "said in a test", "type": "invalid_request_error", "code": code}}


@asynccontextmanager
async def embedding_server() -> AsyncIterator[EmbeddingServer]:
    made = EmbeddingServer()
    server = await asyncio.start_server(made.take, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield made
    finally:
        server.close()
