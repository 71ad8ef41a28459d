"""Who calls as clients of the earlier systems do: a bare key in `Authorization`, in the URL, or as a subprotocol."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from backplane.security.api_key import ApiKey
from gateway.callers import holds, key_of

_SUBPROTOCOLS = "sec-websocket-protocol"


class holds_as_before(holds):
    """As `holds`, of `Authorization: <key>`, `?key=` and a subprotocol, too: a browser's socket sends no header."""

    def given(self, request: HTTPConnection) -> str | None:
        bare = request.headers.get("authorization", "").strip()
        found = key_of(request) or (bare if " " not in bare else None) or request.query_params.get("key")
        return found or next((one for one in subprotocols(request) if ApiKey.parse(one) is not None), None)


def subprotocols(request: HTTPConnection) -> list[str]:
    """What the client of a socket offers to speak, the best first."""
    offered = ",".join(request.headers.getlist(_SUBPROTOCOLS))
    return [one.strip() for one in offered.split(",") if one.strip()]


def spoken(request: HTTPConnection) -> str | None:
    """The subprotocol that is answered with: browsers hang up where they offered some and none is taken.

    One that is no key, where there is one: a response's headers are seen by more than a request's.
    """
    offered = subprotocols(request)
    return next((one for one in offered if ApiKey.parse(one) is None), offered[0] if offered else None)
