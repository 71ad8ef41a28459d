"""A conversation with the packaged model rests and goes on, over the API."""

from __future__ import annotations

import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.inference.packaged import packaged_model as packaged_model
from tests.e2e.client import Client, Json, eventually
from tests.e2e.running import Up

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]

POOL = {"backend": "xllamacpp", "models": ["gemma"], "slots": 2, "context_window": 512}


@pytest.fixture
async def up(packaged_model: Path, short_folder: Path) -> AsyncIterator[Up]:
    made = Up(
        short_folder / "suspended",
        PARLEY_POOLS=json.dumps({"local": {**POOL, "model_file": str(packaged_model)}}),
        LLM_CPU_THREADS="1",
    )
    try:
        made.start()
        made.ready()
        yield made
    finally:
        made.end()


async def said(client: Client, text: str, **body: object) -> Json:
    accepted = await client.submit(text, parameters={"max_tokens": 6, "temperature": 0}, **body)
    ended = await client.ended(accepted["generation_id"])
    assert ended["status"] == "completed", ended
    return ended


async def test_what_was_read_before_a_rest_is_not_read_again_after_it(up: Up) -> None:
    async with Client(up.url, up.admin_key) as client:
        firsts = [await said(client, f"The {word} fox jumps over the lazy dog. " * 12) for word in ("red", "blue")]
        conversations = [first["conversation_id"] for first in firsts]
        for conversation in conversations:
            assert (await client.http.post(f"/v1/conversations/{conversation}/suspend")).status_code == 200
        folder = up.data / "suspended" / "local"

        async def resting() -> list[Path]:
            return sorted(file for file in folder.iterdir() if file.is_file())

        files = await eventually(resting, lambda found: [file.name for file in found] == sorted(conversations))
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700

        async def plain() -> list[Path]:
            return list(folder.glob("engine-*/*"))

        await eventually(plain, lambda found: not found)
        resumed = await client.http.post("/v1/conversations/resume", json={"conversation_ids": conversations})
        assert resumed.status_code == 200
        for first in firsts:
            usage = (await said(client, "And what comes then?", conversation_id=first["conversation_id"]))["usage"]
            assert usage["input_tokens"] > usage["cached_input_tokens"] > firsts[0]["usage"]["input_tokens"] * 0.8
        assert await resting() == []
        await eventually(plain, lambda found: not found)
    assert up.stop() == 0
    assert list(folder.iterdir()) == [], "its own folder is gone with the worker"
