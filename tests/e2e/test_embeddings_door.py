"""Embeddings at OpenAI's door, with OpenAI's own SDK and the embedder that comes with Parley."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from tests.e2e.client import Client, eventually
from tests.e2e.conftest import Callers
from tests.e2e.running import Up

pytestmark = pytest.mark.timeout(180)

EMBEDDER, DIMENSIONS = "minilm", 384
ALIAS = "text-embedding-3-small"
CAT, KITTEN, TAX = "A cat sleeps on the sofa.", "A kitten naps on the couch.", "The tax form is due in March."


@asynccontextmanager
async def sdk_of(parley: Up, caller: Client) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{parley.url}/v1", api_key=caller.key, max_retries=0) as made:
        yield made


@pytest.fixture
async def sdk(parley: Up, admin: Client) -> AsyncIterator[AsyncOpenAI]:
    async with sdk_of(parley, admin) as made:
        yield made


def alike(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


async def refused(caller: Client, **body: Any) -> tuple[int, dict[str, Any]]:
    answer = await caller.http.post("/v1/embeddings", json={"model": EMBEDDER, "input": CAT} | body)
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error


async def test_texts_that_mean_the_same_are_close(sdk: AsyncOpenAI) -> None:
    found = await sdk.embeddings.create(model=ALIAS, input=[CAT, KITTEN, TAX], encoding_format="float", user="u-17")
    cat, kitten, tax = (one.embedding for one in found.data)
    assert [one.index for one in found.data] == [0, 1, 2]
    assert len(cat) == DIMENSIONS
    assert math.isclose(alike(cat, cat), 1, abs_tol=1e-5)
    assert alike(cat, kitten) > alike(cat, tax) + 0.2
    assert (found.object, found.model) == ("list", EMBEDDER)
    assert found.usage.prompt_tokens == found.usage.total_tokens > 15


async def test_both_encodings_are_the_same_vector(sdk: AsyncOpenAI, admin: Client) -> None:
    as_floats = (await sdk.embeddings.create(model=EMBEDDER, input=CAT, encoding_format="float")).data[0].embedding
    # The SDK asks for base64 where nothing is said, and decodes it.
    assert (await sdk.embeddings.create(model=EMBEDDER, input=CAT)).data[0].embedding == pytest.approx(as_floats)
    raw = await admin.http.post("/v1/embeddings", json={"model": EMBEDDER, "input": CAT, "encoding_format": "base64"})
    vector = base64.b64decode(raw.json()["data"][0]["embedding"])
    assert struct.unpack(f"<{DIMENSIONS}f", vector) == pytest.approx(as_floats)


async def test_many_texts_come_in_order(sdk: AsyncOpenAI) -> None:
    texts = [f"number {number}" for number in range(70)]
    found = await sdk.embeddings.create(model=EMBEDDER, input=texts, dimensions=DIMENSIONS)
    assert [one.index for one in found.data] == list(range(70))
    alone = await sdk.embeddings.create(model=EMBEDDER, input=texts[69])
    assert alike(found.data[69].embedding, alone.data[0].embedding) > 0.999


async def test_they_are_in_the_record_and_in_the_usage_without_a_word_of_the_texts(
    sdk: AsyncOpenAI, admin: Client
) -> None:
    found = await sdk.embeddings.create(model=ALIAS, input=[CAT, KITTEN])
    told = await eventually(admin.events, lambda told: "embeddings.made.v1" in {one["type"] for one in told})
    (event,) = (one for one in told if one["type"] == "embeddings.made.v1")
    assert (event["data"]["model"], event["data"]["inputs"]) == (EMBEDDER, 2)
    assert event["data"]["usage"]["input_tokens"] == found.usage.prompt_tokens
    assert "sofa" not in json.dumps(told)
    usage = await eventually(lambda: admin.get("/v1/usage", group_by="model"), lambda found: found["groups"])
    (group,) = usage["groups"]
    assert (group["group"], group["embeddings"], group["generations"]) == (EMBEDDER, 1, 0)
    assert (group["input_tokens"], group["output_tokens"]) == (found.usage.prompt_tokens, 0)


async def test_limits_hold_and_are_told(parley: Up, callers: Callers) -> None:
    tenant_id = await callers.tenant()
    caller = await callers.caller(tenant_id, "member")
    parley.parley("limits", "set", "--tenant", str(tenant_id), "--requests-per-minute", "1")
    async with sdk_of(parley, caller) as sdk:
        raw = await sdk.embeddings.with_raw_response.create(model=EMBEDDER, input=CAT)
        assert raw.headers["x-ratelimit-limit-requests"] == "1"
        assert raw.headers["x-ratelimit-remaining-requests"] == "0"
        with pytest.raises(openai.RateLimitError) as limit:
            await sdk.embeddings.create(model=EMBEDDER, input=CAT)
    assert limit.value.code == "rate_limit_exceeded"
    assert int(limit.value.response.headers["retry-after"]) >= 1


async def test_tokens_are_settled_to_what_was_counted(parley: Up, callers: Callers) -> None:
    tenant_id = await callers.tenant()
    admin = await callers.caller(tenant_id, "admin")
    given = ("--tokens-per-minute", "100000", "--concurrent", "10", "--requests-per-minute", "10")
    parley.parley("limits", "set", "--tenant", str(tenant_id), *given)
    async with sdk_of(parley, admin) as sdk:
        found = await sdk.embeddings.create(model=EMBEDDER, input=["word " * 200] * 3)

    async def used() -> Any:
        (of_tenant,) = (await admin.get("/v1/limits"))["items"]
        return {kind: use["used"] for kind, use in of_tenant["use"].items()}

    of_limit = await eventually(used, lambda used: not used["concurrent"])
    assert of_limit == {
        "tokens_per_minute": found.usage.total_tokens,
        "requests_per_minute": 1,
        "concurrent": 0,
    }


async def test_a_key_embeds_with_its_own_models_only(parley: Up, admin: Client, callers: Callers) -> None:
    async def of_models(*models: str) -> Client:
        made = await admin.http.post("/v1/api-keys", json={"role": "member", "models": models})
        assert made.status_code == 201, made.text
        return await callers.with_key(made.json()["key"])

    prompts, texts = await of_models("script"), await of_models(EMBEDDER)
    async with sdk_of(parley, prompts) as sdk:
        assert not {EMBEDDER, ALIAS} & {one.id async for one in sdk.models.list()}
        with pytest.raises(openai.PermissionDeniedError):
            await sdk.embeddings.create(model=ALIAS, input=CAT)
    async with sdk_of(parley, texts) as sdk:
        assert {EMBEDDER, ALIAS} <= {one.id async for one in sdk.models.list()}
        assert "script" not in {one.id async for one in sdk.models.list()}
        assert (await sdk.models.retrieve(ALIAS)).owned_by == EMBEDDER
        assert (await sdk.embeddings.create(model=ALIAS, input=CAT)).data


async def test_an_auditor_may_not(parley: Up, callers: Callers) -> None:
    auditor = await callers.caller(await callers.tenant(), "auditor")
    status, error = await refused(auditor)
    assert (status, error["type"]) == (403, "permission_error")


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"input": [1, 2, 3]}, "input", "token ids"),
        ({"input": [[1, 2], [3]]}, "input", "token ids"),
        ({"input": []}, "input", "at least 1"),
        ({"input": ""}, "input", "at least 1"),
        ({"input": [CAT, ""]}, "input", "at least 1"),
        ({"input": ["a"] * 2049}, "input", "2048"),
        ({"input": "word " * 300}, "input", "300 tokens"),
        ({"dimensions": 64}, "dimensions", "384"),
        ({"encoding_format": "int8"}, "encoding_format", "base64"),
        ({"sort": True}, "sort", "not permitted"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_name(admin: Client, body: Any, param: str, says: str) -> None:
    status, error = await refused(admin, **body)
    assert (status, error["type"]) == (400, "invalid_request_error")
    assert error["param"].startswith(param)
    assert says in error["message"]


async def test_a_model_that_embeds_nothing_is_no_embedder(admin: Client) -> None:
    for model in ("script", "text-embedding-9"):
        status, error = await refused(admin, model=model)
        assert (status, error["code"], error["param"]) == (404, "model_not_found", "model")
        assert EMBEDDER in error["message"]


async def test_what_was_refused_used_nothing(parley: Up, callers: Callers) -> None:
    tenant_id = await callers.tenant()
    admin = await callers.caller(tenant_id, "admin")
    parley.parley("limits", "set", "--tenant", str(tenant_id), "--requests-per-minute", "1")
    assert (await refused(admin, dimensions=64))[0] == 400
    answer: httpx.Response = await admin.http.post("/v1/embeddings", json={"model": EMBEDDER, "input": CAT})
    assert answer.status_code == 200, answer.text
