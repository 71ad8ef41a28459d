"""What llama.cpp answers over HTTP alone: a socket in a folder that nobody else may enter, and a key nobody knows."""

from __future__ import annotations

import http.client
import logging
import secrets
import socket
import tempfile
from pathlib import Path
from typing import Any

import orjson

from workers.inference.port import BackendError, BackendUnavailable

log = logging.getLogger(__name__)

_ANSWER_S = 60.0


class EngineRefusal(BackendError):
    """The engine's own words may quote the prompt, so they go to the debug log only."""


class EngineSocket:
    """Everything here blocks. The folder is there until ``close``."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="parley-")
        self.path = Path(self._folder.name) / "engine.sock"
        self.key = secrets.token_urlsafe(32)

    def ask(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """POST ``body``. Raises EngineRefusal ``invalid_request``, BackendUnavailable ``engine_failed``."""
        # One request a connection: the engine drops those that are kept.
        connection = _UnixConnection(self.path)
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json", "Connection": "close"}
        try:
            connection.request("POST", path, orjson.dumps(body), headers)
            response = connection.getresponse()
            told = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise BackendUnavailable("engine_failed", f"the engine does not answer: {type(error).__name__}") from None
        finally:
            connection.close()
        if response.status != 200:
            log.debug("engine error: %s", told)
            # A chat template that raises is a 500, too.
            raise EngineRefusal("invalid_request", f"the engine refused {path} ({response.status})")
        found: dict[str, Any] = orjson.loads(told)
        return found

    def close(self) -> None:
        self._folder.cleanup()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_ANSWER_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
