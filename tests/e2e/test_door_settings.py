"""What an operator decides of the doors."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import websockets
from openai import AsyncOpenAI
from websockets.asyncio.client import connect

from backplane.security.api_key import ApiKey
from tests.e2e.client import Client
from tests.e2e.running import Up

pytestmark = pytest.mark.timeout(120)

DUMMY = "sk-no-key-required"


async def test_a_client_with_a_key_of_nobody_is_let_in_by_the_local_key_from_here_alone(short_folder: Path) -> None:
    up = Up(short_folder / "local", PARLEY_DOORS__ALIASES='{"old-friend": "script"}')
    try:
        up.start()
        up.ready()
        assert up.get("/v1/models", DUMMY).status_code == 401
        assert up.stop() == 0
        up.environment |= {
            "PARLEY_DOORS__LOCAL_KEY": up.admin_key,
            "PARLEY_DOORS__CANCEL_ON_DISCONNECT": "false",
        }
        up.start()
        up.ready()
        async with AsyncOpenAI(base_url=f"{up.url}/v1", api_key=DUMMY, max_retries=0) as sdk:
            assert [model.id async for model in sdk.models.list()][:2] == ["script", "old-friend"]
            stream = await sdk.chat.completions.create(
                model="old-friend",
                messages=[{"role": "user", "content": "Hello?"}],
                stream=True,
                metadata={"script": '{"count": 30, "delay_s": 0.02}'},
            )
            first = await anext(aiter(stream))
            await stream.close()
        async with Client(up.url, up.admin_key) as tenant:
            # It is the tenant's own, and its reader's leaving did not end it.
            assert (await tenant.ended(first.id.removeprefix("chatcmpl-")))["status"] == "completed"

        def asked(**headers: str) -> int:
            return httpx.get(f"{up.url}/v1/models", headers=headers).status_code

        assert asked() == 200
        assert asked(Authorization=f"Bearer {ApiKey.make().reveal()}") == 401
        assert asked(Host="elsewhere.example") == 401
        assert asked(Host="localhost") == 200
        # Parley's own API never lets anybody in by it.
        assert up.get("/v1/conversations", DUMMY).status_code == 401
        assert up.stop() == 0
    finally:
        up.end()


async def test_a_door_can_be_shut(short_folder: Path) -> None:
    up = Up(short_folder / "shut", PARLEY_DOORS__OPENAI="false", PARLEY_DOORS__PERSONAS="false")
    try:
        up.start()
        up.ready()
        response = up.get("/v1/models")
        assert (response.status_code, response.json()["type"]) == (404, "urn:parley:problem:not-found")
        paths = up.get("/openapi.json").json()["paths"].keys()
        assert not paths & {"/v1/chat/completions", "/v1/responses", "/v1/embeddings"}
        assert "/v1/messages" in paths
        socket = connect(f"{up.url.replace('http', 'ws')}/gpt-socket/anybody?key={up.admin_key}", proxy=None)
        with pytest.raises(websockets.InvalidStatus) as refused:
            await socket
        assert refused.value.response.status_code == 403
        assert up.stop() == 0
    finally:
        up.end()


async def test_who_signs_up_may_ask_so_often_and_no_more(short_folder: Path) -> None:
    up = Up(short_folder / "rate", PARLEY_DOORS__RATE_LIMIT="2")
    try:
        up.start()
        up.ready()
        async with Client(up.url, up.admin_key) as admin:
            form = {"username": "ada", "password": "Pasw0rd"}
            made = await admin.http.post("/signup/", data=form, headers={"Authorization": admin.key})
            assert made.status_code == 200, made.text

            async def chat(key: str) -> httpx.Response:
                body = {"message": "Hi!", "model": "gpt-4"}
                return await admin.http.post("/chat/", json=body, headers={"Authorization": key})

            ada = [await chat(made.json()["api_key"]) for _ in range(3)]
            assert [answer.status_code for answer in ada] == [200, 200, 429], ada[-1].text
            assert int(ada[-1].headers["retry-after"]) >= 1
            # It is the user's own, and nobody else's of the tenant.
            assert [(await chat(admin.key)).status_code for _ in range(3)] == [200] * 3
            (shown,) = [one for one in (await admin.get("/v1/limits"))["items"] if one["dimension"] == "user"]
            assert shown["use"]["requests_per_minute"]["limit"] == 2
        assert up.stop() == 0
    finally:
        up.end()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.4"])
def test_the_local_key_and_a_host_that_others_reach_are_refused_together(short_folder: Path, host: str) -> None:
    up = Up(short_folder / "open", PARLEY_HOST=host, PARLEY_DOORS__LOCAL_KEY=ApiKey.make().reveal())
    told = up.parley("up", code=78)
    assert "doors.local_key" in told
    assert host in told
