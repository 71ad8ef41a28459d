"""People who ask one prompt after the other through the proxy, go on at every cut, and remember all."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import httpx2
from openai import APIConnectionError, APIError, AsyncOpenAI, DefaultAsyncHttpxClient

from tests.e2e.client import Answer, Client, Json


@dataclass
class Visit:
    """One prompt, and what its client was told."""

    expected: str | None
    """None: nobody knows beforehand what the model says."""
    accepted: Json = field(default_factory=dict)
    answer: Answer = field(default_factory=Answer)

    @property
    def generation_id(self) -> str:
        return str(self.accepted["generation_id"])


class Visitor:
    def __init__(self, name: str, client: Client, prompt: Mapping[str, Any], tokens: int | None) -> None:
        """``prompt``: fields of each prompt. ``tokens``: how many the scripted backend is told to say."""
        self.visits: list[Visit] = []
        self.faults: list[str] = []
        """Statuses that nobody may be told."""
        self._name = name
        self._client = client
        self._prompt = prompt
        self._tokens = tokens
        client.http.event_hooks["response"].append(partial(_look_at, self.faults))

    @property
    def done(self) -> int:
        """Visits that have ended."""
        return sum(visit.answer.ended for visit in self.visits)

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            key = f"{self._name}.{len(self.visits)}"
            tokens = [f"{key}/{place} " for place in range(self._tokens or 0)]
            script = {"tokens": tokens, "delay_s": 0.1} if tokens else None
            visit = Visit("".join(tokens) or None)
            self.visits.append(visit)
            visit.accepted = await self._submit(key, script)
            await self._client.follow_through(visit.generation_id, visit.answer, within=None)

    async def _submit(self, key: str, script: object) -> Json:
        """Ask until it is accepted, as clients do: the same key makes it the same prompt."""
        while True:
            try:
                response = await self._client.post_prompt(
                    f"prompt {key}", script=script, idempotency_key=key, **self._prompt
                )
            except httpx.TransportError:
                await asyncio.sleep(random.uniform(0.2, 1))
                continue
            if response.status_code == 202:
                accepted: Json = response.json()
                return accepted
            assert response.status_code == 503, f"{response.status_code}: {response.text}"
            await asyncio.sleep(float(response.headers["retry-after"]) * random.uniform(0.5, 1))


@dataclass
class Question:
    """What was asked with one idempotency key, as often as it took."""

    expected: str
    told: str | None = None
    """The answer, once it was there as a whole."""
    tries: int = 0
    generations: set[str] = field(default_factory=set)
    """Whatever any of the tries was told that it asked."""


class SdkVisitor:
    """One who has OpenAI's SDK, which knows of no cursor: what broke off is asked again with the same key."""

    def __init__(self, name: str, sdk: AsyncOpenAI, model: str, tokens: int, *, streams: bool) -> None:
        self.questions: list[Question] = []
        self.faults: list[str] = []
        """Statuses that nobody may be told."""
        self._name = name
        self._model = model
        self._tokens = tokens
        self._streams = streams
        # It asks again by itself, until somebody answers.
        self._sdk = sdk.with_options(
            max_retries=100,
            timeout=20,
            http_client=DefaultAsyncHttpxClient(event_hooks={"response": [partial(_look_at, self.faults)]}),
        )

    async def run(self, stop: asyncio.Event) -> None:
        async with self._sdk:
            while not stop.is_set():
                await self._ask()

    async def _ask(self) -> None:
        key = f"{self._name}.{len(self.questions)}"
        tokens = [f"{key}/{place} " for place in range(self._tokens)]
        question = Question("".join(tokens))
        self.questions.append(question)
        script = json.dumps({"tokens": tokens, "delay_s": 0.1})
        while question.told is None:
            question.tries += 1
            try:
                await (self._stream if self._streams else self._whole)(question, key, script)
            except (APIConnectionError, httpx2.TransportError):
                await asyncio.sleep(random.uniform(0.2, 1))
            except APIError as error:
                # Another worker began the answer anew.
                if error.code != "begun_again":
                    raise

    async def _whole(self, question: Question, key: str, script: str) -> None:
        found = await self._sdk.chat.completions.create(**self._asked(key, script))
        question.generations.add(found.id.removeprefix("chatcmpl-"))
        assert found.choices[0].finish_reason == "stop"
        question.told = found.choices[0].message.content

    async def _stream(self, question: Question, key: str, script: str) -> None:
        told = ""
        async with await self._sdk.chat.completions.create(stream=True, **self._asked(key, script)) as stream:
            async for chunk in stream:
                question.generations.add(chunk.id.removeprefix("chatcmpl-"))
                told += chunk.choices[0].delta.content or ""
                # A stream that ends without it was cut.
                if chunk.choices[0].finish_reason == "stop":
                    question.told = told

    def _asked(self, key: str, script: str) -> Any:
        return {
            "model": self._model,
            "messages": [{"role": "user", "content": f"prompt {key}"}],
            "metadata": {"script": script},
            # Who is cut off by a restart has not gone away.
            "store": True,
            "extra_headers": {"Idempotency-Key": key},
        }


async def _look_at(faults: list[str], response: httpx.Response | httpx2.Response) -> None:
    if response.status_code >= 500 and not (
        response.status_code == 503 and response.headers.get("retry-after", "").isdecimal()
    ):
        await response.aread()
        faults.append(
            f"{response.request.method} {response.request.url.path}: {response.status_code} {response.text[:200]}"
        )
