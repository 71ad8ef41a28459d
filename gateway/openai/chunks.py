"""An answer as OpenAI streams it. Bytes are put together by hand: this runs for every token.

https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from event_schemas.chat import Piece, text_of
from query_api.chat_completion import token_logprob

DONE = b"data: [DONE]\n\n"


def event(body: Mapping[str, Any]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(body)


@dataclass(slots=True)
class Chunks:
    """Of one response. ``usage_is_null``: each chunk but the last one says so, since usage was asked for.

    A delta has no key that says nothing: strict clients take null for a value.
    """

    id: str
    created: int
    model: str
    usage_is_null: bool = False

    def _chunk(self, choices: bytes) -> bytes:
        head = orjson.dumps(
            {"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model}
        )
        tail = b',"usage":null' if self.usage_is_null else b""
        return b'data: %b,"choices":[%b]%b}\n\n' % (head[:-1], choices, tail)

    def _of_choice(self, index: int, delta: bytes, finish: bytes = b"null", logprobs: bytes = b"null") -> bytes:
        choice = b'{"index":%d,"delta":%b,"logprobs":%b,"finish_reason":%b}' % (index, delta, logprobs, finish)
        return self._chunk(choice)

    def begin(self, index: int) -> bytes:
        return self._of_choice(index, b'{"role":"assistant","content":""}')

    def tokens(self, index: int, deltas: Sequence[Piece]) -> Iterator[bytes]:
        """Those of text in one chunk, as they came between others."""
        run: list[Piece] = []
        for piece in deltas:
            if isinstance(piece, str) or "text" in piece:
                run.append(piece)
                continue
            if run:
                yield self._text(index, run)
                run = []
            yield self._of_choice(index, orjson.dumps(_delta(piece)))
        if run:
            yield self._text(index, run)

    def _text(self, index: int, run: Sequence[Piece]) -> bytes:
        likely = [one for piece in run if isinstance(piece, dict) and "text" in piece for one in piece["logprobs"]]
        delta = b'{"content":%b}' % orjson.dumps(text_of(run))
        if not likely:
            return self._of_choice(index, delta)
        logprobs = orjson.dumps({"content": [token_logprob(one) for one in likely], "refusal": None})
        return self._of_choice(index, delta, logprobs=logprobs)

    def finish(self, index: int, reason: str) -> bytes:
        return self._of_choice(index, b"{}", finish=orjson.dumps(reason))

    def usage(self, used: Mapping[str, Any]) -> bytes:
        self.usage_is_null = False
        return self._chunk(b"")[:-3] + b',"usage":%b}\n\n' % orjson.dumps(used)


def _delta(piece: Any) -> dict[str, Any]:
    if "reasoning" in piece:
        return {"reasoning_content": piece["reasoning"]}
    call: dict[str, Any] = {"index": piece["tool_call"]}
    if "id" in piece:
        call |= {"id": piece["id"], "type": "function"}
    name = {"name": piece["name"]} if "name" in piece else {}
    return {"tool_calls": [call | {"function": name | {"arguments": piece["arguments"]}}]}
