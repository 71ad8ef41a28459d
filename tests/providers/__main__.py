"""The server as a process of its own: prints one line of JSON with its port, and serves until it is terminated.

Its ledger is at ``GET /_ledger``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from collections.abc import Sequence

from tests.providers.model import Model
from tests.providers.script import Script
from tests.providers.server import providers


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.providers", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 finds a free one")
    parser.add_argument("--key", action="append", default=[], help="a good key; may be repeated (default: test)")
    parser.add_argument("--requests", type=int, help="each key's limit of requests in a window")
    parser.add_argument("--tokens", type=int, help="each key's limit of tokens in a window")
    parser.add_argument("--concurrent", type=int, help="each key's limit of requests at once")
    parser.add_argument("--window", type=float, default=60.0, metavar="S")
    parser.add_argument("--model", action="append", default=[], help="a model besides the usual ones; may be repeated")
    parser.add_argument("--words", type=int, default=16, help="length of an answer")
    parser.add_argument("--first-token", type=float, default=0.0, metavar="S")
    parser.add_argument("--token", type=float, default=0.0, metavar="S", help="between two tokens")
    parser.add_argument("--mix", action="append", default=[], metavar="FAULT=SHARE")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


async def _serve(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    script = Script(words=arguments.words, first_token_s=arguments.first_token, token_s=arguments.token)
    async with providers(
        port=arguments.port,
        default=script,
        mix=_mix(arguments.mix),
        seed=arguments.seed,
        window_s=arguments.window,
    ) as server:
        for key in arguments.key or ["test"]:
            server.add_key(key, arguments.requests, arguments.tokens, arguments.concurrent)
        server.models.update({name: Model() for name in arguments.model})
        print(json.dumps({"port": int(server.url.rpartition(":")[2]), "url": server.url}), flush=True)
        await stop.wait()


def _mix(shares: Sequence[str]) -> dict[str, float]:
    return {fault: float(share) for fault, _, share in (item.partition("=") for item in shares)}


if __name__ == "__main__":
    asyncio.run(_serve(_arguments()))
