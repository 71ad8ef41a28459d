"""The program ``llm`` with Parley as an OpenAI-compatible server, as its manual says."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from tests.clients.busy import Busy
from tests.clients.conftest import World, programs_of
from tests.e2e.client import Client, eventually
from tests.providers.script import Call, Script

pytestmark = [pytest.mark.clients, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

LLM = programs_of("llm") / "llm"
ENDLESS = {"count": 100_000, "delay_s": 0.02}


def told(**script: Any) -> str:
    return f"script: {json.dumps(script)}"


class Llm:
    """``llm`` of one person, with settings and history of their own."""

    def __init__(self, world: World, caller: Client, folder: Path) -> None:
        self.world = world
        self.caller = caller
        models = [
            {
                "model_id": f"{prefix}{name}",
                "model_name": name,
                "api_base": f"{world.up.url}/v1",
                "api_key_name": "openai",
                "supports_tools": True,
                "supports_schema": True,
                "responses": bool(prefix),
            }
            for prefix in ("", "responses-")
            for name in ("script", "fast", "tools", "gpt-17")
        ]
        (folder / "extra-openai-models.yaml").write_text(yaml.safe_dump(models))
        self.environment = {
            "LLM_USER_PATH": str(folder),
            "OPENAI_API_KEY": caller.key,
            "OPENAI_BASE_URL": f"{world.up.url}/v1",
        }

    async def __call__(self, *arguments: str, code: int = 0, key: str | None = None) -> str:
        environment = self.environment | ({} if key is None else {"OPENAI_API_KEY": key})
        ran = await self.world.run(LLM, *arguments, **environment)
        assert ran.code == code, ran.said
        return ran.said


@pytest_asyncio.fixture(loop_scope="session")
async def llm(world: World, tmp_path: Path) -> Llm:
    return Llm(world, await world.callers.admin(), tmp_path)


@pytest.fixture(params=["", "responses-"], ids=["chat", "responses"])
def prefix(request: pytest.FixtureRequest) -> str:
    """Of the models' names: by which of OpenAI's two APIs they are asked."""
    found: str = request.param
    return found


async def test_chat_and_stream(llm: Llm, prefix: str) -> None:
    for how in ((), ("--no-stream",)):
        assert await llm("-m", f"{prefix}script", *how, told(tokens=["a ", "b"])) == "a b\n"


async def test_a_conversation_goes_on(llm: Llm, prefix: str) -> None:
    await llm("-m", f"{prefix}script", told(tokens=["a"]))
    assert await llm("-c", told(tokens=["b"])) == "b\n"
    logged = json.loads(await llm("logs", "-n", "0", "--json"))
    assert len(logged) == 2
    assert len({one["conversation_id"] for one in logged}) == 1


async def test_tools_are_called_run_and_answered(llm: Llm, prefix: str) -> None:
    code = "def weather(city: str) -> str:\n    return f'sunny in {city}'\n"
    call = Script(calls=(Call(name="weather", arguments={"city": "Bonn"}),))
    for how in ((), ("--no-stream",)):
        llm.world.server.queue(call, Script(text="It is."), key="sk-tools")
        said = await llm("-m", f"{prefix}tools", *how, "--functions", code, "--td", "The weather in Bonn?")
        assert "sunny in Bonn" in said
        assert said.endswith("It is.\n")


async def test_json_schema(llm: Llm, prefix: str) -> None:
    said = await llm("-m", f"{prefix}fast", "--schema", "name, inhabitants int", "A city")
    assert json.loads(said) == {"name": "words", "inhabitants": 7}


async def test_embeddings(llm: Llm) -> None:
    said = await llm("embed", "-m", "text-embedding-3-small", "-c", "A cat sleeps.", "-f", "json")
    assert len(json.loads(said)) == 384


async def test_who_interrupts_it_cancels(llm: Llm) -> None:
    command = (LLM, "-m", "script", told(**ENDLESS))
    async with asyncio.timeout(60), llm.world.running(*command, **llm.environment) as process:
        assert process.stdout is not None
        assert await process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        await process.communicate()

    async def listed() -> list[Any]:
        found: list[Any] = (await llm.caller.get("/v1/conversations"))["conversations"]
        return found

    (conversation,) = await eventually(listed, bool)
    (message, *_) = reversed(await llm.caller.messages(conversation["id"]))
    assert (await llm.caller.ended(message["id"]))["status"] == "cancelled"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("-m", "gpt-17", "a"), "404"),
        (("-m", "script", "-o", "temperature", "1", "-o", "logit_bias", '{"7": 5}', "a"), "400"),
        (("-m", "script", "--key", "sk-wrong", "a"), "401"),
        (("-m", "script", told(fail_after=1, fail_kind="refused", fail_reason="invalid_request")), "breaks off"),
    ],
    ids=["no such model", "not taken", "wrong key", "fails on the way"],
)
async def test_errors_are_told(llm: Llm, arguments: tuple[str, ...], says: str) -> None:
    said = await llm(*arguments, code=1)
    assert says in said
    assert "Traceback" not in said


async def test_it_asks_again_where_a_limit_is_in_the_way(llm: Llm) -> None:
    async with Busy.of(llm.caller) as busy:
        asking = asyncio.create_task(llm("-m", "script", told(tokens=["a"]), key=busy.key))
        await busy.free()
        assert await asking == "a\n"
