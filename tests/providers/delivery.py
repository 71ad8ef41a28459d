"""How an answer goes over the connection: its pace, its segments, and how it breaks."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

from aiohttp import web

from tests.providers.answer import Answer, Asked
from tests.providers.api import Api
from tests.providers.frame import Frame, compact
from tests.providers.ledger import Entry, Ledger, Outcome
from tests.providers.script import Script

_BETWEEN_SEGMENTS_S = 0.005
"""Long enough for a reader to take the first segment alone."""
_COMMENT = b": OPENROUTER PROCESSING\n\n"


class Delivery:
    """One answer on its way. ``over`` notes how it ended, and must be called before the client can know."""

    def __init__(
        self,
        request: web.Request,
        api: Api,
        script: Script,
        entry: Entry,
        ledger: Ledger,
        over: Callable[[Outcome], None],
    ) -> None:
        self._request = request
        self._api = api
        self._script = script
        self._entry = entry
        self._ledger = ledger
        self._over = over
        self._sent = 0
        self._waiting: list[Frame] = []
        self._response = web.StreamResponse()

    async def stream(self, answer: Answer, asked: Asked, headers: dict[str, str]) -> web.StreamResponse:
        """Streams. Does not return where the connection breaks: it is cancelled then."""
        self._response = web.StreamResponse(
            headers={**headers, "content-type": self._api.stream_type, "cache-control": "no-cache"}
        )
        await self._response.prepare(self._request)
        self._entry.status = 200
        frames = [*self._api.frames(answer, asked, self._script)]
        for frame in frames:
            if frame.part == "closing" and self._script.fault == "no_end":
                break
            if frame.part != "framing" and self._breaks_now(frame):
                return await self._break(frame)
            if frame.part == "token":
                await self._pace()
            self._waiting.append(frame)
            if len(self._waiting) >= self._script.bundle and frame is not frames[-1]:
                await self._flush()
            await asyncio.sleep(0)
        if self._script.fault == "no_end":
            await self._flush(last="broken")
        else:
            self._entry.reported = next((frame.reported for frame in frames if frame.reported is not None), None)
            await self._flush(last="finished")
        await self._response.write_eof()
        return self._response

    async def whole(self, answer: Answer, asked: Asked, headers: dict[str, str]) -> web.StreamResponse:
        """Answers in one body. A fault of the stream comes in its middle; ``hang`` before its headers."""
        script = self._script
        await asyncio.sleep(script.first_token_s + script.token_s * max(0, len(answer.pieces) - 1))
        if script.fault == "hang":
            await self.hang()
        body = self._api.body(answer, asked, script)
        data = compact(body).encode()
        half = data[: len(data) // 2]
        self._entry.status = 200
        self._entry.reported = body.get("usage")
        self._entry.output_tokens = answer.counted.output
        self._entry.text = answer.said("text")
        headers = {**headers, "content-type": "application/json"}
        if script.fault in {"truncated", "no_end"}:
            self._over("broken")
            return web.Response(body=half, headers=headers)
        if script.fault is None:
            self._ledger.wrote(self._entry)
            self._over("finished")
            return web.Response(body=data, headers=headers)
        self._response = web.StreamResponse(headers={**headers, "content-length": str(len(data))})
        await self._response.prepare(self._request)
        await self._response.write(half)
        self._ledger.wrote(self._entry)
        if script.fault == "stall":
            await self.hang()
        return await self.cut(reset=script.fault == "reset")

    async def hang(self) -> None:
        """Until the client goes away, which cancels."""
        await asyncio.get_running_loop().create_future()

    async def cut(self, *, reset: bool = False) -> web.StreamResponse:
        """Closes the connection, in whatever it is."""
        self._over("broken")
        transport = self._request.transport
        if transport is not None:
            if reset:
                connection: socket.socket = transport.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        await self.hang()
        return self._response

    def _breaks_now(self, frame: Frame) -> bool:
        fault = self._script.fault
        if fault is None or fault == "no_end":
            return False
        return fault == "hang" or self._sent >= self._script.after or frame.part == "closing"

    async def _break(self, frame: Frame) -> web.StreamResponse:
        await self._flush()
        match self._script.fault:
            case "hang" | "stall":
                await self.hang()
            case "truncated":
                data = self._encoded(frame)
                await self._write(data[: len(data) // 2])
                self._over("broken")
            case "stream_error":
                await self._write(self._lines(self._api.stream_error()))
                self._over("broken")
            case "cut" | "reset":
                return await self.cut(reset=self._script.fault == "reset")
        await self._response.write_eof()
        return self._response

    async def _pace(self) -> None:
        if self._sent:
            pause = self._script.token_s
        else:
            pause = self._script.first_token_s
            await self._flush()
            for _ in range(self._script.comments):
                await self._write(self._lines(_COMMENT))
        if pause:
            await self._flush()
            await asyncio.sleep(pause)
        self._sent += 1

    async def _flush(self, last: Outcome | None = None) -> None:
        data = b"".join(map(self._encoded, self._waiting))
        for frame in self._waiting:
            if frame.piece is not None:
                self._entry.output_tokens += 1
                self._entry.text += frame.piece.text if frame.piece.kind == "text" else ""
        self._waiting.clear()
        if last is not None:
            # Before the last bytes: their reader may ask again at once, and must not find this one running.
            self._over(last)
        at = self._where_to_split(data)
        if at is not None:
            await self._write(data[:at])
            await asyncio.sleep(_BETWEEN_SEGMENTS_S)
            data = data[at:]
        if data:
            await self._write(data)

    def _where_to_split(self, data: bytes) -> int | None:
        if self._script.split == "character":
            return next((at for at, byte in enumerate(data) if byte & 0xC0 == 0x80), None)
        return len(data) // 2 if data and self._script.split == "line" else None

    def _encoded(self, frame: Frame) -> bytes:
        return self._lines(self._api.encode(frame))

    def _lines(self, data: bytes) -> bytes:
        if self._script.crlf and self._api.stream_type.startswith("text/event-stream"):
            return data.replace(b"\n", b"\r\n")
        return data

    async def _write(self, data: bytes) -> None:
        await self._response.write(data)
        self._ledger.wrote(self._entry)
