"""A client of the APIs as an application would write one: it resumes its streams, and checks what it is told."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar

import httpx

from cli.event_stream import ServerSentEvent, events, lines_of

DEADLINE_S = 60.0
TERMINAL = ("completed", "failed", "cancelled")

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0

Json = dict[str, Any]


@dataclass
class Answer:
    """An answer as far as it was told, and where to go on."""

    text: str = ""
    cursor: str | None = None
    told: list[str] = field(default_factory=list)
    """Names of the events, in order."""
    attempt: int = 0
    seq: int = 0
    detail: Json = field(default_factory=dict)
    """Of the ending."""
    cuts: int = 0
    """How often it had to be taken up again."""

    @property
    def ended(self) -> bool:
        return bool(self.told) and self.told[-1] in TERMINAL

    def take(self, event: ServerSentEvent) -> None:
        assert not self.ended, f"{event.event} came after {self.told[-1]}"
        assert event.id is not None
        data = json.loads(event.data)
        attempt, seq = map(int, event.id.split("-"))
        if event.event in ("started", "restarted"):
            assert attempt > self.attempt
            assert (event.event == "restarted") == bool(self.attempt)
            self.text = ""
        elif event.event == "token":
            assert (data["attempt"], data["seq"]) == (attempt, seq)
            assert self.attempt in (0, attempt), "tokens of two attempts were mixed"
            assert seq > self.seq, "a token came twice"
            self.text += data["text"]
        elif event.event in TERMINAL:
            self.detail = data
        else:
            assert event.event == "queued"
        self.attempt, self.seq, self.cursor = attempt, seq, event.id
        self.told.append(event.event)

    def resumed_at(self, cursor: str) -> Answer:
        """Someone who was told everything up to ``cursor`` and nothing is known of how."""
        attempt, seq = map(int, cursor.split("-"))
        return Answer(self.text, cursor, attempt=attempt, seq=seq)


class Client:
    """One caller with one key."""

    def __init__(self, url: str, key: str) -> None:
        self.key = key
        self.http = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(20),
            limits=httpx.Limits(max_connections=None),
            trust_env=False,
        )

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.aclose()

    async def post_prompt(
        self, text: str | None = None, *, script: object = None, idempotency_key: str | None = None, **body: Any
    ) -> httpx.Response:
        """``script`` is what the scripted backend is told to do."""
        if text is not None:
            body["input"] = text
        if script is not None:
            body["metadata"] = body.get("metadata", {}) | {"script": json.dumps(script)}
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        return await self.http.post("/v1/prompts", json=body, headers=headers)

    async def submit(self, text: str | None = None, **body: Any) -> Json:
        response = await eventually(lambda: self.post_prompt(text, **body), lambda told: not _is_behind(told))
        assert response.status_code == 202, response.text
        accepted: Json = response.json()
        return accepted

    async def submit_batch(
        self, texts: Sequence[str], *, script: object = None, metadata: dict[str, str] | None = None
    ) -> Json:
        """One line for each text; ``script`` is what the scripted backend is told to do with each."""
        told = {} if script is None else {"metadata": {"script": json.dumps(script)}}
        lines = [
            {
                "custom_id": f"line {place}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"messages": [{"role": "user", "content": text}], **told},
            }
            for place, text in enumerate(texts, 1)
        ]
        headers = {"Content-Type": "application/jsonl", "Batch-Metadata": json.dumps(metadata or {})}
        content = "".join(json.dumps(line) + "\n" for line in lines)
        response = await self.http.post("/v1/batches", content=content, headers=headers)
        assert response.status_code == 202, response.text
        accepted: Json = response.json()
        return accepted

    async def get(self, path: str, **parameters: Any) -> Json:
        # As clients do: a 503 says when to ask again, and is no answer.
        response = await eventually(
            lambda: self.http.get(path, params=parameters or None), lambda told: told.status_code != 503
        )
        assert response.status_code == 200, response.text
        found: Json = response.json()
        return found

    async def generation(self, generation_id: str) -> Json:
        return await self.get(f"/v1/generations/{generation_id}")

    async def ended(self, generation_id: str) -> Json:
        """The generation, once it has ended."""
        return await eventually(lambda: self._patiently(generation_id), lambda found: found["status"] in TERMINAL)

    async def _patiently(self, generation_id: str) -> Json:
        """As clients do: a 503 says when to ask again, and is no answer."""
        response = await self.http.get(f"/v1/generations/{generation_id}")
        if response.status_code == 503:
            assert response.headers["retry-after"].isdecimal()
            return {"status": "unavailable"}
        assert response.status_code == 200, response.text
        found: Json = response.json()
        return found

    async def cancel(self, generation_id: str) -> None:
        response = await eventually(
            lambda: self.http.post(f"/v1/generations/{generation_id}/cancel"), lambda told: told.status_code != 503
        )
        assert response.status_code == 202, response.text

    async def messages(self, conversation_id: str) -> list[Json]:
        found: list[Json] = (await self.get(f"/v1/conversations/{conversation_id}"))["messages"]
        return found

    async def events(self, **filters: Any) -> list[Json]:
        """All envelopes of the record that the filters let through."""
        response = await self.http.get("/v1/events", params={**filters, "format": "ndjson"})
        assert response.status_code == 200, response.text
        return [json.loads(line)["event"] for line in response.text.splitlines()]

    async def stream(
        self, generation_id: str, cursor: str | None = None, *, by_header: bool = True
    ) -> AsyncGenerator[ServerSentEvent, None]:
        """What one request for the stream tells."""
        headers = {"Last-Event-ID": cursor} if cursor is not None and by_header else {}
        parameters = {"after": cursor} if cursor is not None and not by_header else {}
        path = f"/v1/generations/{generation_id}/stream"
        async with self.http.stream("GET", path, headers=headers, params=parameters) as response:
            if response.status_code != 200:
                await response.aread()
                response.raise_for_status()
            assert response.headers["content-type"].startswith("text/event-stream")
            async for event in events(lines_of(response.aiter_text())):
                yield event

    async def follow(self, generation_id: str, answer: Answer | None = None, *, by_header: bool = True) -> Answer:
        """Take the stream up where ``answer`` stands, with one request, and read it to the end."""
        answer = answer or Answer()
        async with asyncio.timeout(DEADLINE_S):
            async for event in self.stream(generation_id, answer.cursor, by_header=by_header):
                answer.take(event)
        return answer

    async def follow_through(
        self, generation_id: str, answer: Answer, *, most_events: int | None = None, within: float | None = DEADLINE_S
    ) -> Answer:
        """Follow to the end through whatever breaks, resuming at every cut.

        ``most_events``: hang up after so many, as a restless client would.
        """
        pause_s = _FIRST_PAUSE_S
        async with asyncio.timeout(within):
            while not answer.ended:
                try:
                    async with aclosing(self.stream(generation_id, answer.cursor)) as stream:
                        async for place, event in aenumerate(stream):
                            answer.take(event)
                            pause_s = _FIRST_PAUSE_S
                            if place == most_events:
                                break
                    continue
                except httpx.TransportError:
                    answer.cuts += 1
                except httpx.HTTPStatusError as error:
                    if error.response.status_code != 503:
                        raise
                await asyncio.sleep(pause_s * random.uniform(0.5, 1))
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        return answer


async def aenumerate(events: AsyncIterator[ServerSentEvent]) -> AsyncGenerator[tuple[int, ServerSentEvent], None]:
    """From 1."""
    place = 0
    async for event in events:
        place += 1
        yield place, event


def _is_behind(response: httpx.Response) -> bool:
    """Whether nothing was accepted since the read models do not know yet what the prompt names."""
    return response.status_code == 503 and response.json().get("service") == "projections"


T = TypeVar("T")


async def eventually(ask: Callable[[], Awaitable[T]], is_it: Callable[[T], object], within: float = DEADLINE_S) -> T:
    """What ``ask`` gives once it ``is_it``."""
    deadline = time.monotonic() + within
    while True:
        found = await ask()
        if is_it(found):
            return found
        assert time.monotonic() < deadline, f"still {found!r}"
        await asyncio.sleep(0.02)
