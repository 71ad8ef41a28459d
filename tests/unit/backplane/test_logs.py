"""What no line of the log has."""

from __future__ import annotations

import json
import logging

import pytest

from backplane.security.api_key import ApiKey
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
