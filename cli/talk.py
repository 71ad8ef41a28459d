"""`parley chat`: between the terminal and the chat client."""

from __future__ import annotations

import asyncio
import signal
import sys

from backplane.settings import Settings
from cli import chat, command, configuration
from cli.failures import CommandError

_INTERRUPTED = 130


def talk(text: str, *, go_on: bool, model: str | None, system: str | None, url: str | None, key: str | None) -> int:
    """One prompt and its answer on standard output; returns the exit code. Raises CommandError."""
    settings = configuration.load()
    if text in ("", "-"):
        if sys.stdin.isatty():
            raise CommandError('nothing to ask: give a text, like parley chat "Why is the sky blue?"')
        text = sys.stdin.read().strip()
    if not text:
        raise CommandError("nothing to ask: the text is empty")
    conversation = chat.last_conversation(settings) if go_on else None
    prompt = chat.Prompt(text, model, system, conversation)
    return asyncio.run(_talk(settings, prompt, url or own_url(settings), chat.api_key(settings, key)))


async def _talk(settings: Settings, prompt: chat.Prompt, url: str, key: str) -> int:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    terminal = sys.stdout.isatty()
    # What stands in a pipe cannot be taken back when a worker is lost, so a pipe gets the answer that counts, whole.
    show = _write if terminal else _nowhere
    async with chat.ChatClient(url, key, show, lambda text: command.say(f"[{text}]")) as client:
        answer, going_on = await client.ask(prompt, stop)
    print("" if terminal else answer)
    chat.remember(settings, going_on)
    return _INTERRUPTED if stop.is_set() else 0


def own_url(settings: Settings) -> str:
    """Where this machine's Parley is."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104
    return f"http://{host}:{settings.port}"


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _nowhere(text: str) -> None: ...
