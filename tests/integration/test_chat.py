"""`parley chat` against a server that speaks the APIs' protocol, faults included."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cli.chat import ChatClient, Conversation, Prompt
from cli.failures import CommandError, TryAgain

DEADLINE_S = 30.0
STREAM = "/v1/generations/g1/stream"
CANCEL = "/v1/generations/g1/cancel"
ACCEPTED = {"conversation_id": "c1", "message_id": "g1", "stream_url": STREAM, "cancel_url": CANCEL}


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Server:
    """Answers each request with the next of its path's answers; the connection closes after each."""

    answers: dict[str, list[list[bytes]]]
    requests: list[Request] = field(default_factory=list)
    url: str = ""
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            method, path, _ = head[0].split()
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            self.requests.append(Request(method, path, headers, body))
            if path == CANCEL:
                self.cancelled.set()
            for part in self.answers[path].pop(0):
                if part is WAIT_FOR_CANCEL:
                    await self.cancelled.wait()
                else:
                    writer.write(part)
                    await writer.drain()
        finally:
            writer.close()


WAIT_FOR_CANCEL = b"(wait)"


@asynccontextmanager
async def serving(answers: dict[str, list[list[bytes]]]) -> AsyncIterator[Server]:
    server = Server(answers)
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    async with listening:
        yield server


def reply(status: int, body: object, kind: str = "application/json") -> list[bytes]:
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(raw)}\r\nConnection: close\r\n\r\n"
    return [head.encode() + raw]


def stream(*parts: bytes) -> list[bytes]:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [head, *(part if part is WAIT_FOR_CANCEL else b"%x\r\n%s\r\n" % (len(part), part) for part in parts)]


def frame(event: str, attempt: int = 1, seq: int = 0, **data: object) -> bytes:
    return f"id: {attempt}-{seq}\nevent: {event}\ndata: {json.dumps(data)}\n\n".encode()


END = b""  # a last chunk, so that the answer ends properly; without it the connection is cut


@dataclass
class Shown:
    pieces: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


async def ask(server: Server, prompt: Prompt, stop: asyncio.Event | None = None) -> tuple[str, Conversation, Shown]:
    shown = Shown()
    async with ChatClient(server.url, "parley_key", shown.pieces.append, shown.notices.append) as client:
        answer, going_on = await asyncio.wait_for(client.ask(prompt, stop or asyncio.Event()), DEADLINE_S)
    return answer, going_on, shown


async def test_an_answer_is_shown_as_it_comes() -> None:
    tokens = [frame("token", 1, 1, text="Blue"), b": keep-alive\n\n", frame("token", 1, 2, text=" sky")]
    answers = {
        "/v1/prompts": [reply(202, ACCEPTED)],
        STREAM: [stream(frame("started"), *tokens, frame("completed", 1, 2), END)],
    }
    async with serving(answers) as server:
        answer, going_on, shown = await ask(server, Prompt("Why?", conversation=Conversation("c0", "m0")))
    assert (answer, shown.pieces, shown.notices) == ("Blue sky", ["Blue", " sky"], [])
    assert going_on == Conversation("c1", "g1")
    assert json.loads(server.requests[0].body) == {
        "input": "Why?",
        "conversation_id": "c0",
        "parent_message_id": "m0",
    }
    assert server.requests[0].headers["authorization"] == "Bearer parley_key"


async def test_a_cut_stream_goes_on_after_the_last_frame() -> None:
    answers = {
        "/v1/prompts": [reply(202, ACCEPTED)],
        STREAM: [
            stream(frame("token", 1, 1, text="Blue"), b"id: 1-2\nevent: token\ndata: {"),
            stream(frame("token", 1, 2, text=" sky"), frame("completed", 1, 2), END),
        ],
    }
    async with serving(answers) as server:
        answer, _, shown = await ask(server, Prompt("Why?"))
    assert (answer, shown.pieces) == ("Blue sky", ["Blue", " sky"])
    assert [request.headers.get("last-event-id") for request in server.requests[1:]] == [None, "1-1"]


async def test_a_lost_submission_is_repeated_with_the_same_key() -> None:
    answers = {
        "/v1/prompts": [[], reply(503, {"title": "Unavailable"}), reply(202, ACCEPTED)],
        STREAM: [stream(frame("completed"), END)],
    }
    async with serving(answers) as server:
        await ask(server, Prompt("Why?"))
    keys = [request.headers["idempotency-key"] for request in server.requests[:3]]
    assert len(set(keys)) == 1


async def test_a_restart_begins_the_answer_anew() -> None:
    frames = [frame("token", 1, 1, text="Bl"), frame("restarted", 2), frame("token", 2, 1, text="Red")]
    answers = {
        "/v1/prompts": [reply(202, ACCEPTED)],
        STREAM: [stream(*frames, frame("completed", 2, 1), END)],
    }
    async with serving(answers) as server:
        answer, _, shown = await ask(server, Prompt("Why?"))
    assert answer == "Red"
    assert shown.notices == ["the worker was lost; the answer begins anew"]


async def test_stopping_cancels_the_generation() -> None:
    answers = {
        "/v1/prompts": [reply(202, ACCEPTED)],
        STREAM: [stream(frame("token", 1, 1, text="Blue"), WAIT_FOR_CANCEL, frame("cancelled", 1, 1), END)],
        CANCEL: [reply(202, {"generation_id": "g1"})],
    }
    stop = asyncio.Event()
    stop.set()
    async with serving(answers) as server:
        _, _, shown = await ask(server, Prompt("Why?"), stop)
    assert [request.path for request in server.requests if request.method == "POST"] == ["/v1/prompts", CANCEL]
    assert shown.notices == ["cancelled"]


async def test_a_failed_generation_says_why() -> None:
    failed = frame("failed", 1, 0, reason="context_length_exceeded", detail="too long")
    async with serving({"/v1/prompts": [reply(202, ACCEPTED)], STREAM: [stream(failed, END)]}) as server:
        with pytest.raises(CommandError, match=r"the generation failed \(context_length_exceeded\): too long"):
            await ask(server, Prompt("Why?"))


async def test_a_refusal_names_the_field() -> None:
    problem = {"title": "Invalid", "detail": "bad", "errors": [{"field": "model", "message": "unknown"}]}
    async with serving({"/v1/prompts": [reply(422, problem)]}) as server:
        with pytest.raises(CommandError, match="Invalid: bad; model: unknown"):
            await ask(server, Prompt("Why?"))


async def test_another_kind_of_server_is_recognised() -> None:
    async with serving({"/v1/prompts": [reply(404, "<html>", "text/html")]}) as server:
        with pytest.raises(CommandError, match="not as Parley does"):
            await ask(server, Prompt("Why?"))


async def run_chat(*arguments: str, cwd: Path, environment: dict[str, str]) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli.main", "chat", *arguments),
        cwd=cwd,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_the_command_writes_the_whole_answer_into_a_pipe(tmp_path: Path) -> None:
    frames = [frame("token", 1, 1, text="Bl"), frame("restarted", 2), frame("token", 2, 1, text="Red")]
    answers = {
        "/v1/prompts": [reply(202, ACCEPTED), reply(202, ACCEPTED)],
        STREAM: [stream(*frames, frame("completed", 2, 1), END), stream(frame("completed"), END)],
    }
    environment = {"PARLEY_DATA_DIR": str(tmp_path), "PARLEY_API_KEY": "parley_key"}
    async with serving(answers) as server:
        code, out, err = await run_chat("--url", server.url, "Why?", cwd=tmp_path, environment=environment)
        assert (code, out) == (0, "Red\n")
        assert "the worker was lost" in err
        await run_chat("-c", "--url", server.url, "And?", cwd=tmp_path, environment=environment)
    again = json.loads([request for request in server.requests if request.path == "/v1/prompts"][1].body)
    assert again == {"input": "And?", "conversation_id": "c1", "parent_message_id": "g1"}


async def test_without_a_key_the_command_says_what_to_do(tmp_path: Path) -> None:
    code, out, err = await run_chat("Why?", cwd=tmp_path, environment={"PARLEY_DATA_DIR": str(tmp_path)})
    assert (code, out) == (1, "")
    assert err.startswith("parley: no API key: ")
    assert "Traceback" not in err


async def test_without_a_server_the_command_says_what_to_do(tmp_path: Path) -> None:
    async with serving({}) as server:
        url = server.url
    code, _, err = await run_chat("--url", url, "--key", "parley_key", "Why?", cwd=tmp_path, environment={})
    assert code == 75
    assert err == f"parley: {url} does not answer (ConnectError): start it with `parley up`, or give --url\n"


async def test_nobody_listening_is_not_waited_for_for_ever() -> None:
    async with serving({}) as server:
        pass
    with pytest.raises(TryAgain):
        await ask(server, Prompt("Why?"))


async def test_control_c_ends_the_command_after_the_cancel(tmp_path: Path) -> None:
    answers = {
        "/v1/prompts": [reply(202, ACCEPTED)],
        STREAM: [stream(frame("token", 1, 1, text="Blue"), WAIT_FOR_CANCEL, frame("cancelled", 1, 1), END)],
        CANCEL: [reply(202, {"generation_id": "g1"})],
    }
    async with serving(answers) as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cli.main", "chat", "--url", server.url, "--key", "parley_key", "Why?"),
            cwd=tmp_path,
            env={"PARLEY_DATA_DIR": str(tmp_path)},
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(DEADLINE_S):
            while not any(request.path == STREAM for request in server.requests):
                await asyncio.sleep(0.01)
            process.send_signal(signal.SIGINT)
            out, _ = await process.communicate()
    assert process.returncode == 130
    assert out == b"Blue\n"
