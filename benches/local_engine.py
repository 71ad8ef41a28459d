"""`python -m benches.local_engine`: what Parley leaves of a local engine's speed.

The same model file and the same number of slots, in one run: the engine alone, Parley around it, and the engine alone
again, since a machine is seldom the same for minutes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import httpx
import orjson
import typer

from backplane.settings import PoolSettings, Settings
from benches.child import child, line_of
from benches.installation import Installation, apart
from benches.load import Target
from benches.machine import machine
from benches.parley import running
from benches.singing import MESSAGES, TOKENS, SingingOrder, Sung, sing
from benches.tables import number, table
from workers.inference.packaged_model import assemble_packaged

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def local_engine(
    streams: Annotated[int, typer.Option(min=1, max=64, help="Answers at a time; as many slots.")] = 8,
    seconds: Annotated[float, typer.Option(min=1, max=600, help="How long each part is measured.")] = 20.0,
) -> None:
    """Tokens a second of the packaged model, with Parley around its engine and without. A table on standard output."""
    with apart() as folder:
        typer.echo("putting the model together", err=True)
        model = assemble_packaged(folder, lambda what, share: None)
        rows = asyncio.run(
            _measure(
                folder,
                SingingOrder(model_file=str(model), streams=streams, warm_up_s=min(5.0, seconds), seconds=seconds),
            )
        )
    here = machine()
    alone = [sung.a_second for what, sung in rows if what != "Parley"]
    (with_parley,) = (sung.a_second for what, sung in rows if what == "Parley")
    typer.echo(f"{here.processor}, {here.cores} cores; {streams} streams of {TOKENS} tokens, {seconds:g} s each\n")
    lines = table("A local engine", ("", "tokens/s"), [(what, number(sung.a_second)) for what, sung in rows], words=1)
    typer.echo("\n".join(lines))
    typer.echo(f"Parley gives {with_parley / (sum(alone) / len(alone)):.0%} of what the engine gives alone.")


async def _measure(folder: Path, order: SingingOrder) -> list[tuple[str, Sung]]:
    before = await _alone(order)
    parley = await _parley(folder, order)
    return [("the engine alone", before), ("Parley", parley), ("the engine alone, again", await _alone(order))]


async def _alone(order: SingingOrder) -> Sung:
    typer.echo("the engine alone", err=True)
    async with child("benches.engine_alone", order) as process:
        return Sung.model_validate_json(await line_of(process))


async def _parley(folder: Path, order: SingingOrder) -> Sung:
    typer.echo("Parley", err=True)
    pool = PoolSettings(backend="xllamacpp", model_file=Path(order.model_file), models=("local",), slots=order.streams)
    installation = Installation(Settings(data_dir=folder / "data", port=0, pools={"local": pool}))
    async with running(installation) as parley:
        target = await parley.target()
        limits = httpx.Limits(max_connections=2 * order.streams)
        headers = {"Authorization": f"Bearer {target.key}"}
        async with httpx.AsyncClient(base_url=_url(target), headers=headers, limits=limits, timeout=120) as client:
            return await sing(order.streams, order.warm_up_s, order.seconds, lambda: _answer(client))


async def _answer(client: httpx.AsyncClient) -> AsyncIterator[int]:
    body = {
        "messages": [{"role": role, "content": text} for role, text in MESSAGES],
        "parameters": {"max_tokens": TOKENS, "temperature": 0},
    }
    accepted = await client.post("/v1/prompts", json=body)
    accepted.raise_for_status()
    seen = 0
    async with client.stream("GET", accepted.json()["stream_url"]) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if line.startswith('data: {"text"'):
                seq = orjson.loads(line[6:])["seq"]
                yield seq - seen
                seen = seq


def _url(target: Target) -> str:
    return f"http://{target.host}:{target.port}"


if __name__ == "__main__":
    app()
