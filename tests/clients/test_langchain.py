"""LangChain's `ChatOpenAI` and `OpenAIEmbeddings`, which have an environment of their own."""

from __future__ import annotations

import pytest

from tests.clients.conftest import HERE, World, programs_of

pytestmark = [pytest.mark.clients, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]


async def test_it_works_with_parley(world: World) -> None:
    folder = HERE / "langchain"
    plain = ("-p", "no:cacheprovider", "--noconftest", "--rootdir", folder, "-c", folder / "pytest.ini")
    await world.passes(programs_of("langchain") / "python", "-m", "pytest", *plain, folder / "chat_openai.py")
