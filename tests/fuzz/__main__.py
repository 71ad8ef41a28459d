"""Every operation of the API pages with requests made of its own schema, by someone who has one of everything.

A finding is an answer of 500, one that the document does not allow, or an operation that is never reached: at least
``--reached`` of all must answer 2xx once. Each finding is told with a curl command; the seed replays the run.
"""

from __future__ import annotations

import asyncio
import copy
import json
import random
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, MutableMapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import hypothesis
import requests
import schemathesis
import typer
from hypothesis import HealthCheck, Phase
from rich.console import Console
from rich.progress import Progress
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.e2e.client import Json
from tests.e2e.conftest import Callers, parley_for_all
from tests.e2e.owned import Owned, owned
from tests.e2e.running import Up
from tests.e2e.walk import Walk

_ROUND = 400
"""Requests until a new tenant is made, since deleting is among what is asked."""

_KNOWN = 0.8
"""Share of the requests in which an id is one that there is."""

_EXAMPLES = 0.4
"""Share of the requests whose body is the document's own example."""

_PATIENCE_S = 30.0
_SLOWEST = 8

_CHECKS: list[Any] = [
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]

_PLATFORM = ("/v1/tenants", "/v1/dead-letters")
"""What only the platform's own keys may."""

T = TypeVar("T")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


_LINE = (
    b'{"custom_id": "first", "method": "POST", "url": "/v1/chat/completions",'
    b' "body": {"messages": [{"role": "user", "content": "Why is the sky blue?"}]}}\n'
)


def _lines(context: Any, value: Any) -> bytes:
    """What was made, after a line that is right: a schema cannot tell what a line is."""
    text = value if isinstance(value, str) else json.dumps(value)
    return _LINE + text.encode(errors="replace") if text.strip() else _LINE


schemathesis.serializer("application/jsonl")(_lines)


@dataclass
class Told:
    """What came of one operation."""

    statuses: Counter[int] = field(default_factory=Counter)
    findings: dict[str, str] = field(default_factory=dict)
    """By what is wrong: the first request that showed it."""
    seconds: float = 0.0
    """Of all its answers."""


class Caller:
    """Asks on behalf of a tenant that has one of everything."""

    def __init__(self, up: Up, run: Callable[[Coroutine[Any, Any, Any]], Any], seed: int) -> None:
        self._up = up
        self._run = run
        self._chance = random.Random(seed)
        self._open = AsyncExitStack()
        self._owner: Owned
        self._spare: str
        """Another tenant's id, for what the platform does to tenants."""
        self._keys: dict[bool, str] = {}
        self.told: dict[str, Told] = {}
        self.document: Json = up.get("/openapi.json").json()
        self._examples = _examples_of(self.document)

    def move_in(self) -> None:
        """A new tenant, in place of the one before."""
        self._run(self._open.aclose())
        self._owner = self._run(owned(Callers(self._up, self._open)))
        callers = Callers(self._up, self._open)
        key = self._run(callers.caller(self._owner.tenant_id, "owner")).key
        self._spare = str(self._run(callers.tenant()))
        self._keys = {False: key, True: self._keys.get(True) or self._platform_key()}

    def _platform_key(self) -> str:
        return self._up.parley("key", "issue", "--tenant", "platform", "--role", "platform").split()[0]

    def ask(self, case: Any) -> None:
        of_platform = case.operation.path.startswith(_PLATFORM)
        self._put_what_is_known(case, self._owner.ids | ({"tenant_id": self._spare} if of_platform else {}))
        name = f"{case.method} {case.operation.path}"
        told = self.told.setdefault(name, Told())
        headers = {"Authorization": f"Bearer {self._keys[of_platform]}"}
        try:
            response = case.call(base_url=self._up.url, headers=headers, timeout=_PATIENCE_S)
        except requests.Timeout:
            told.findings.setdefault(f"no answer within {_PATIENCE_S:g} s", case.as_curl_command())
            return
        told.statuses[response.status_code] += 1
        told.seconds += response.elapsed
        if response.status_code == 500:
            told.findings.setdefault("500", f"{case.as_curl_command()}\n{response.text[:500]}")
        try:
            case.validate_response(response, checks=_CHECKS)
        except FailureGroup as failures:
            for failure in failures.exceptions:
                wrong = f"{response.status_code}: {failure.title}: {str(failure.message)[:300]}"
                told.findings.setdefault(wrong, f"{case.as_curl_command()}\n{response.text[:500]}")

    def _put_what_is_known(self, case: Any, ids: dict[str, str]) -> None:
        example = self._examples.get(f"{case.method.lower()} {case.operation.path}")
        if example is not None and self._chance.random() < _EXAMPLES:
            case.body = copy.deepcopy(example)
        for given in (case.path_parameters, case.query, case.headers, case.body):
            if isinstance(given, MutableMapping):
                for name in [*given]:
                    if name in ids and self._chance.random() < _KNOWN:
                        given[name] = ids[name]


@contextmanager
def _loop() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """What runs coroutines, all of them on one loop, while this thread asks."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield lambda work: asyncio.run_coroutine_threadsafe(work, loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@app.command()
def fuzz(
    requests_: Annotated[int, typer.Option("--requests", min=1, help="How many, over all operations.")] = 50_000,
    seed: Annotated[int | None, typer.Option(help="Replays a run; none: a new one, which is told.")] = None,
    reached: Annotated[float, typer.Option(min=0, max=1, help="Share of the operations that must answer 2xx.")] = 0.8,
    only: Annotated[str, typer.Option(help="Only operations whose name has this in it, such as /v1/batches.")] = "",
) -> None:
    """Requests made of the OpenAPI document, on a Parley of its own. Exits 1 where an answer is not as documented."""
    seed = random.randrange(2**32) if seed is None else seed
    typer.echo(f"seed {seed}", err=True)
    with tempfile.TemporaryDirectory(prefix="parley-fuzz-") as folder, _loop() as run:
        up = parley_for_all(Path(folder))
        try:
            up.start()
            up.ready()
            caller = Caller(up, run, seed)
            _ask(caller, requests_, seed, only)
        finally:
            up.end()
    wrong = _report(caller.told, reached)
    raise typer.Exit(1 if wrong else 0)


def _examples_of(document: Json) -> dict[str, Json]:
    """Operations, as ``post /v1/prompts``, and a body that each takes."""
    walk = Walk(document, {})
    described = {f"{method} {path}": one for path, found in document["paths"].items() for method, one in found.items()}
    bodies = {operation: walk.body(operation, one) for operation, one in described.items()}
    return {operation: body for operation, body in bodies.items() if body is not None}


def _ends_something(operation: Any) -> bool:
    path: str = operation.path
    return operation.method == "delete" or path.endswith(("/erase", "/end", "/suspend", "/cancel"))


def _ask(caller: Caller, most: int, seed: int, only: str) -> None:
    found: list[Any] = [*schemathesis.openapi.from_dict(caller.document).get_all_operations()]
    operations = [one.ok() for one in found if only in f"{one.ok().method.upper()} {one.ok().path}"]
    # What a round's tenant has is there until all else was asked.
    operations.sort(key=lambda one: (_ends_something(one), one.method == "delete"))
    each = max(1, most // len(operations))
    asked = 0
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("requests", total=each * len(operations))
        left = {operation.label: each for operation in operations}
        while any(left.values()):
            caller.move_in()
            share = max(1, _ROUND // len(operations))
            for place, operation in enumerate(operations):
                count = min(share, left[operation.label])
                left[operation.label] -= count
                if count:
                    _examples(operation, count, seed + asked + place, caller.ask)
                    progress.advance(task, count)
                asked += count


def _examples(operation: Any, count: int, seed: int, ask: Callable[[Any], None]) -> None:
    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy())
    def one_more(case: Any) -> None:
        ask(case)

    one_more()


def _report(told: dict[str, Told], reached: float) -> bool:
    """Whether anything is wrong."""
    findings = {name: one.findings for name, one in told.items() if one.findings}
    for name, of_it in findings.items():
        for what, request in of_it.items():
            typer.echo(f"{name}: {what}\n{request}\n")
    never = [name for name, one in told.items() if not any(200 <= status < 300 for status in one.statuses)]
    share = 1 - len(never) / len(told)
    asked = sum(sum(one.statuses.values()) for one in told.values())
    typer.echo(f"{asked:,} requests to {len(told)} operations; {share:.0%} answered 2xx; findings: {len(findings)}")
    for name, one in sorted(told.items(), key=lambda each: -each[1].seconds)[:_SLOWEST]:
        typer.echo(f"took longest: {name}: {one.seconds:.1f} s for {one.statuses.total()} answers")
    for name in never:
        typer.echo(f"never 2xx: {name}: {dict(told[name].statuses)}")
    return bool(findings) or share < reached


if __name__ == "__main__":
    app()
