"""LangChain as its users have it: nothing of Parley's is imported here."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import aclosing
from typing import Any
from uuid import uuid4

import httpx
import openai
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

URL, KEY, BUSY_KEY = (os.environ[name] for name in ("PARLEY_URL", "PARLEY_KEY", "PARLEY_BUSY_KEY"))
ASK = "Why is the sky blue?"


class City(BaseModel):
    """A city."""

    name: str
    inhabitants: int


def weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


get_weather = tool("get_weather", weather)


def chat(model: str = "script", key: str = KEY, **more: Any) -> ChatOpenAI:
    return ChatOpenAI(model=model, base_url=f"{URL}/v1", api_key=SecretStr(key), **{"max_retries": 0} | more)


def told(**script: Any) -> str:
    return f"script: {json.dumps(script)}"


@pytest.fixture(params=[False, True], ids=["chat", "responses"])
def responses(request: pytest.FixtureRequest) -> bool:
    """Which of OpenAI's two APIs is asked."""
    found: bool = request.param
    return found


async def test_chat(responses: bool) -> None:
    found = await chat(use_responses_api=responses).ainvoke(told(tokens=["a ", "b"]))
    assert found.text == "a b"
    assert found.usage_metadata is not None
    assert found.usage_metadata["output_tokens"] == 2


async def test_stream(responses: bool) -> None:
    model = chat(use_responses_api=responses, stream_usage=True)
    chunks = [one async for one in model.astream(told(tokens=["a ", "b"]))]
    assert "".join(one.text for one in chunks) == "a b"
    (usage,) = (one.usage_metadata for one in chunks if one.usage_metadata is not None)
    assert usage["output_tokens"] == 2


async def test_tools(responses: bool) -> None:
    model = chat("fast", use_responses_api=responses)
    asked = await model.bind_tools([get_weather], tool_choice="required").ainvoke(ASK)
    (call,) = asked.tool_calls
    assert (call["name"], call["args"]) == ("get_weather", {"city": "words"})
    result = await get_weather.ainvoke(call)
    assert isinstance(result, ToolMessage)
    answered = await model.bind_tools([get_weather]).ainvoke([HumanMessage(ASK), asked, result])
    assert answered.text
    assert not answered.tool_calls
    pieces = [one async for one in model.bind_tools([get_weather], tool_choice="required").astream(ASK)]
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    assert [one["args"] for one in whole.tool_calls] == [{"city": "words"}]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
async def test_an_answer_of_a_given_shape(responses: bool, method: Any) -> None:
    model = chat("fast", use_responses_api=responses).with_structured_output(City, method=method)
    assert await model.ainvoke(ASK) == City(name="words", inhabitants=7)


async def test_embeddings() -> None:
    # Else it sends ids of OpenAI's own tokens, which no other model knows.
    model = OpenAIEmbeddings(
        model="text-embedding-3-small",
        base_url=f"{URL}/v1",
        api_key=SecretStr(KEY),
        check_embedding_ctx_length=False,
    )
    cat, kitten, tax = await model.aembed_documents(["A cat sleeps.", "A kitten naps.", "The tax form is due."])

    def alike(one: list[float], other: list[float]) -> float:
        return sum(a * b for a, b in zip(one, other, strict=True))

    assert alike(cat, kitten) > alike(cat, tax)
    assert await model.aembed_query("A cat sleeps.") == pytest.approx(cat, abs=1e-5)


async def test_who_goes_away_cancels() -> None:
    asked = told(tokens=[f"{uuid4()} ", "and"], hang_after=2)
    async with aclosing(chat().astream(asked)) as stream:
        async for chunk in stream:
            if chunk.text:
                break
    assert await status_of(asked) == "cancelled"


async def test_errors_are_the_sdks() -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await chat("gpt-17").ainvoke(ASK)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as refused:
        await chat(temperature=3).ainvoke(ASK)
    assert refused.value.param == "temperature"
    with pytest.raises(openai.AuthenticationError):
        await chat(key="sk-wrong").ainvoke(ASK)
    with pytest.raises(openai.APIError):
        async for _ in chat().astream(told(fail_after=1, fail_kind="refused", fail_reason="invalid_request")):
            pass


async def test_it_asks_again_where_a_limit_is_in_the_way() -> None:
    with pytest.raises(openai.RateLimitError):
        await chat(key=BUSY_KEY).ainvoke(ASK)
    assert (await chat(key=BUSY_KEY, max_retries=20).ainvoke(told(tokens=["a"]))).text == "a"


async def status_of(asked: str) -> str:
    """How it ended, by Parley's own API."""
    headers = {"Authorization": f"Bearer {KEY}"}
    async with asyncio.timeout(60), httpx.AsyncClient(base_url=URL, headers=headers, trust_env=False) as parley:

        async def get(path: str) -> Any:
            answer = await parley.get(path)
            assert answer.status_code == 200, answer.text
            return answer.json()

        while True:
            for conversation in (await get("/v1/conversations"))["conversations"]:
                messages = (await get(f"/v1/conversations/{conversation['id']}"))["messages"]
                if messages and messages[0]["content"] == asked:
                    status: str = (await get(f"/v1/generations/{messages[-1]['id']}"))["status"]
                    if status in ("completed", "failed", "cancelled"):
                        return status
            await asyncio.sleep(0.02)
