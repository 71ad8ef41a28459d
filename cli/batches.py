"""Batches of a running Parley, over its API."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import httpx

from cli import chat, configuration
from cli.answer import good, unreachable
from cli.board import Board
from cli.failures import CommandError, TryAgain
from cli.talk import own_url

_TIMEOUT = httpx.Timeout(30.0, connect=5.0, write=60.0)
_POLL_S = 1.0
_GIVE_UP_S = 60.0
_PIECE = 64 * 1024
FINAL = ("completed", "cancelled", "expired")

Json = dict[str, Any]


class BatchClient:
    """Each method raises CommandError where it is refused, TryAgain where the server does not answer."""

    def __init__(self, http: httpx.Client, url: str) -> None:
        self._http = http
        self._url = url

    def submit(self, file: Path, metadata: dict[str, str]) -> Json:
        """Send the file as it is read."""
        headers = {"Content-Type": "application/jsonl", "Batch-Metadata": json.dumps(metadata)}
        try:
            with file.open("rb") as opened:
                return self._ask("POST", "/v1/batches", content=_pieces(opened), headers=headers)
        except OSError as error:
            raise CommandError(f"{file} cannot be read: {error.strerror}") from None

    def show(self, batch_id: str) -> Json:
        return self._ask("GET", f"/v1/batches/{batch_id}")

    def all(self) -> Iterator[Json]:
        """The newest first."""
        cursor: str | None = None
        while True:
            page = self._ask("GET", "/v1/batches", params={} if cursor is None else {"cursor": cursor})
            yield from page["batches"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def change(self, method: str, path: str) -> None:
        """Cancel or delete one."""
        self._asked(method, f"/v1/batches/{path}")

    def lines(self, batch_id: str, what: str) -> Iterator[bytes]:
        """Its ``results`` or ``errors``, in pieces."""
        try:
            with self._http.stream("GET", f"/v1/batches/{batch_id}/{what}") as response:
                if not response.is_success:
                    response.read()
                    good(self._url, response)
                yield from response.iter_bytes()
        except httpx.TransportError as error:
            raise unreachable(self._url, error) from None

    def wait(self, batch_id: str, board: Board) -> Json:
        """Show its progress until each of its lines has ended, through outages of the server."""
        deadline = time.monotonic() + _GIVE_UP_S
        while True:
            try:
                batch = self.show(batch_id)
            except TryAgain:
                if time.monotonic() > deadline:
                    raise
            else:
                deadline = time.monotonic() + _GIVE_UP_S
                counts = batch["request_counts"]
                ended = counts["completed"] + counts["failed"]
                board.progress("batch", f"ended of {counts['total']} lines", ended / counts["total"])
                if batch["status"] in FINAL:
                    return batch
            time.sleep(_POLL_S)

    def _ask(self, method: str, path: str, **request: Any) -> Json:
        return good(self._url, self._asked(method, path, **request))

    def _asked(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **request)
        except httpx.TransportError as error:
            raise unreachable(self._url, error) from None
        if not response.is_success:
            good(self._url, response)
        return response


@contextmanager
def client(url: str | None, key: str | None) -> Iterator[BatchClient]:
    """Of this machine's Parley where no ``url`` is given, with its first admin key where no ``key`` is."""
    settings = configuration.load()
    url = url or own_url(settings)
    headers = {"Authorization": f"Bearer {chat.api_key(settings, key)}"}
    with httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT) as http:
        yield BatchClient(http, url)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece
