"""How Amazon Bedrock wraps Anthropic's events and errors.

Sources: Amazon Bedrock API reference, "InvokeModelWithResponseStream"; the framing: AWS "Event stream encoding"
(prelude, headers, payload, CRC-32 of each).
"""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

from tests.providers.frame import Frame, compact
from tests.providers.problem import Kind, Problem

CONTENT_TYPE = "application/vnd.amazon.eventstream"
_STRING = 7
_ERRORS: dict[Kind, tuple[int, str]] = {
    "invalid": (400, "ValidationException"),
    "unsupported_version": (400, "ValidationException"),
    "context": (400, "ValidationException"),
    "key": (403, "UnrecognizedClientException"),
    "forbidden": (403, "AccessDeniedException"),
    "not_found": (404, "ResourceNotFoundException"),
    "rate_limit": (429, "ThrottlingException"),
    "quota": (400, "ServiceQuotaExceededException"),
    "internal": (500, "InternalServerException"),
    "unavailable": (503, "ServiceUnavailableException"),
    "overloaded": (503, "ServiceUnavailableException"),
}


def message(headers: dict[str, str], payload: bytes) -> bytes:
    """One message of an event stream, whose headers are all strings."""
    encoded = b"".join(
        struct.pack("!B", len(name)) + name.encode() + struct.pack("!BH", _STRING, len(value)) + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack("!II", 16 + len(encoded) + len(payload), len(encoded))
    before = prelude + struct.pack("!I", zlib.crc32(prelude)) + encoded + payload
    return before + struct.pack("!I", zlib.crc32(before))


def chunk(frame: Frame) -> bytes:
    """An event of Anthropic's as a ``chunk``."""
    payload = compact({"bytes": base64.b64encode(compact(frame.data).encode()).decode(), "p": "abcdefgh"})
    return message(
        {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}, payload.encode()
    )


def exception() -> bytes:
    """What comes in a stream that fails."""
    return message(
        {
            ":exception-type": "serviceUnavailableException",
            ":content-type": "application/json",
            ":message-type": "exception",
        },
        compact({"message": "Bedrock is unable to process your request."}).encode(),
    )


def metrics(input_tokens: int, output_tokens: int) -> dict[str, Any]:
    """What Bedrock adds to ``message_stop``."""
    return {
        "amazon-bedrock-invocationMetrics": {
            "inputTokenCount": input_tokens,
            "outputTokenCount": output_tokens,
            "invocationLatency": 1,
            "firstByteLatency": 1,
        }
    }


def error(problem: Problem) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, body and headers of an error."""
    status, kind = _ERRORS[problem.kind]
    return status, {"message": problem.message}, {"x-amzn-errortype": kind}
