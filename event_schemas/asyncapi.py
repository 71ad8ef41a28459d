"""The topics and their messages as an AsyncAPI 3.0 document (https://www.asyncapi.com/docs/reference/specification/v3.0.0).

python -m event_schemas.asyncapi           print the document
"""

from __future__ import annotations

import json
import sys
from typing import Any

from event_schemas.envelope import Envelope
from event_schemas.generation import CancelGeneration, SubmitPrompt
from event_schemas.knowledge import IngestDocument
from event_schemas.payload import Payload
from event_schemas.registry import EVENTS
from event_schemas.topics import CONTROL, INGESTIONS
from event_schemas.topics import EVENTS as EVENT_TOPIC

Document = dict[str, Any]


def document() -> Document:
    """Every topic that carries messages, and every message on it."""
    channels = {
        "commands": {
            "address": "commands-{pool}",
            "title": "Prompts for one pool of workers",
            "parameters": {"pool": {"description": "the pool's name"}},
            "messages": _references(SubmitPrompt),
        },
        "control": {
            "address": CONTROL,
            "title": "Commands that never wait behind a backlog",
            "messages": _references(CancelGeneration),
        },
        "ingestions": {
            "address": INGESTIONS,
            "title": "Documents that are to become chunks of their collections",
            "messages": _references(IngestDocument),
        },
        "events": {
            "address": EVENT_TOPIC,
            "title": "What happened, keyed by tenant",
            "messages": _references(*EVENTS),
        },
        "dead_letters": {
            "address": "{topic}-dlq",
            "title": "What could not be handled, with its reason in the properties",
            "parameters": {"topic": {"description": "the topic it came from"}},
            "messages": {"any": {"$ref": "#/components/messages/dead_letter"}},
        },
    }
    payloads: tuple[type[Payload], ...] = (SubmitPrompt, CancelGeneration, IngestDocument, *EVENTS)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Parley",
            "version": "1",
            "description": "Commands and events of Parley. Every message is a CloudEvent 1.0 in structured JSON mode.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": {
            "submit_prompt": _operation("send", "commands"),
            "run_prompts": _operation("receive", "commands"),
            "cancel": _operation("send", "control"),
            "ingest": _operation("receive", "ingestions"),
            "record": _operation("receive", "events"),
            "tell": _operation("send", "events"),
        },
        "components": {
            "messages": {
                **{_id(payload): _message(payload) for payload in payloads},
                "dead_letter": {"name": "dead letter", "payload": {"type": "string", "description": "as it came"}},
            },
            "schemas": {_id(payload): _envelope(payload) for payload in payloads},
        },
    }


def _id(payload: type[Payload]) -> str:
    return payload.wire_name.replace(".", "_")


def _references(*payloads: type[Payload]) -> Document:
    return {_id(payload): {"$ref": f"#/components/messages/{_id(payload)}"} for payload in payloads}


def _operation(action: str, channel: str) -> Document:
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}}


def _message(payload: type[Payload]) -> Document:
    return {
        "name": payload.wire_name,
        "title": payload.__name__,
        "summary": (payload.__doc__ or payload.__name__).strip().splitlines()[0],
        "contentType": "application/cloudevents+json",
        "payload": {"$ref": f"#/components/schemas/{_id(payload)}"},
    }


def _envelope(payload: type[Payload]) -> Document:
    schema = Envelope[payload].model_json_schema(  # type: ignore[valid-type]
        mode="serialization", ref_template=f"#/components/schemas/{_id(payload)}/$defs/{{model}}"
    )
    schema["properties"]["type"] = {"const": payload.wire_name}
    return schema


if __name__ == "__main__":
    sys.stdout.write(json.dumps(document(), indent=2) + "\n")
