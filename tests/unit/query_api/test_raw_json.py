from __future__ import annotations

from typing import Any
from uuid import UUID

import orjson
from fastapi import Response

from query_api import raw_json
from query_api.views import ConversationWithMessages, MessageView

WRITTEN = '{"n": 1e400, "n": 123456789012345678901234567890}'


def message(parsed: str | None) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(MessageView.model_fields)
    ids = {"id": UUID(int=1), "generation_id": UUID(int=1)}
    return row | ids | {"role": "assistant", "erased": False, "status": "completed", "parsed": parsed}


def conversation(*messages: dict[str, Any]) -> ConversationWithMessages:
    row: dict[str, Any] = dict.fromkeys(ConversationWithMessages.model_fields) | {"state": "active"}
    return ConversationWithMessages.of(
        row | {"id": UUID(int=2), "erased": False, "updated_at": "2026-03-01T12:00:00.123456Z", "messages": [*messages]}
    )


def test_what_a_model_wrote_as_json_is_passed_on_as_it_is() -> None:
    view = conversation(message(WRITTEN), message(None))
    shown = raw_json.conversation(view)
    assert isinstance(shown, Response)
    body = bytes(shown.body).decode()
    assert f'"parsed":{WRITTEN}' in body
    without = orjson.loads(body.replace(WRITTEN, "null"))
    assert without == orjson.loads(conversation(message(None), message(None)).model_dump_json())


def test_others_go_the_usual_way() -> None:
    view = conversation(message(None))
    assert raw_json.conversation(view) is view
