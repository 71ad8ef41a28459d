"""What no line of the log has."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest

from backplane.security.api_key import ApiKey
from backplane.telemetry import logs
from backplane.telemetry.logs import JsonLines

KEY = ApiKey("0123456789abcdef", "0123456789abcdef" * 4)


@pytest.mark.parametrize(
    ("message", "logged"),
    [
        (f'127.0.0.1 - "WebSocket /gpt-socket/clerk?key={KEY.reveal()}" [accepted]', "?key=…"),
        ("GET /gpt/clerk?prompt=a&key=somebody%20elses&session=b", "?prompt=a&key=…&session=b"),
        ("GET /gpt/clerk?token=abc", "?token=…"),
        (f"GET /chat/{KEY.reveal()}/01990f6e/history", "/chat/…/01990f6e/history"),
        ("GET /chat/token4724306863716988259/01990f6e/history", "/chat/…/01990f6e/history"),
        (f"the key {KEY.reveal()} is known", f"the key {KEY.public}_… is known"),
    ],
)
def test_keys_are_replaced_wherever_they_stand(message: str, logged: str) -> None:
    record = logging.makeLogRecord({"msg": message, "levelname": "INFO", "url": message})
    line = json.loads(JsonLines("api").format(record))
    for text in (line["message"], line["url"]):
        assert logged in text
        for secret in (KEY.secret, "somebody", "token4724306863716988259", "=abc"):
            assert secret not in text


def test_a_trace_has_none_either() -> None:
    try:
        raise ValueError(f"no host in ws://localhost/gpt-socket/clerk?key={KEY.reveal()}")
    except ValueError as error:
        record = logging.makeLogRecord({"msg": "broken", "exc_info": (ValueError, error, error.__traceback__)})
    line = JsonLines("api").format(record)
    assert "?key=…" in line
    assert KEY.secret not in line


def test_what_is_no_key_stays() -> None:
    record = logging.makeLogRecord({"msg": 'monkey=1&keys=2 "a\\b" /chat/ a/history'})
    assert json.loads(JsonLines("api").format(record))["message"] == 'monkey=1&keys=2 "a\\b" /chat/ a/history'


def _line() -> dict[str, object]:
    found: dict[str, object] = json.loads(JsonLines("api").format(logging.makeLogRecord({"msg": "done"})))
    return found


async def test_lines_say_whom_they_concern_in_their_task_alone() -> None:
    async def work(tenant: str) -> dict[str, object]:
        logs.concerns(tenant_id=tenant)
        await asyncio.sleep(0)
        return _line()

    first, second = await asyncio.gather(work("a"), work("b"))
    assert (first["tenant_id"], second["tenant_id"]) == ("a", "b")
    assert "tenant_id" not in _line()


def test_what_is_over_concerns_nobody_any_more() -> None:
    with logs.concerning(tenant_id="a"):
        with logs.concerning(correlation_id="c"):
            assert (_line()["tenant_id"], _line()["correlation_id"]) == ("a", "c")
        assert "correlation_id" not in _line()
    assert "tenant_id" not in _line()
