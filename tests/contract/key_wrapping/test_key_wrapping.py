"""What wraps data keys: a key opens again, in its place only, and unchanged only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backplane.ports.key_wrapping import CannotUnwrap, KeyWrapping
from backplane.security.sealing import MasterKey
from tests.vault.server import vault

Fresh = Callable[[], KeyWrapping]
"""Makes one of the same installation that remembers nothing."""
Installation = Callable[[], AbstractAsyncContextManager[Fresh]]


@asynccontextmanager
async def by_master_key() -> AsyncIterator[Fresh]:
    yield lambda: MasterKey("5a" * 32)


@asynccontextmanager
async def by_vault() -> AsyncIterator[Fresh]:
    made = []
    async with vault() as server:

        def fresh() -> KeyWrapping:
            made.append(server.transit())
            return made[-1]

        yield fresh
        for each in made:
            await each.aclose()


EACH = pytest.mark.parametrize("installation", [by_master_key, by_vault])
PLACES = st.text(min_size=1, max_size=100).filter(lambda text: text.isprintable())


def run(installation: Installation, check: Callable[[Fresh], Awaitable[None]]) -> None:
    async def checked() -> None:
        async with installation() as fresh:
            await check(fresh)

    asyncio.run(checked())


@EACH
@settings(max_examples=10, deadline=None)
@given(key=st.binary(min_size=1, max_size=64), place=PLACES)
def test_a_wrapped_key_opens_in_every_process(installation: Installation, key: bytes, place: str) -> None:
    async def check(fresh: Fresh) -> None:
        one = fresh()
        wrapped = await one.wrap(key, place)
        assert await one.unwrap(wrapped, place) == key
        another = fresh()
        assert [await another.unwrap(wrapped, place) for _ in range(2)] == [key, key]

    run(installation, check)


@EACH
@settings(max_examples=10, deadline=None)
@given(key=st.binary(min_size=32, max_size=32), place=PLACES, elsewhere=PLACES)
def test_it_opens_nowhere_else(installation: Installation, key: bytes, place: str, elsewhere: str) -> None:
    async def check(fresh: Fresh) -> None:
        one = fresh()
        wrapped = await one.wrap(key, place)
        await one.unwrap(wrapped, place)
        for wrapping in (one, fresh()):
            with pytest.raises(CannotUnwrap, match="belongs elsewhere"):
                await wrapping.unwrap(wrapped, f"{place}{elsewhere}")

    run(installation, check)


@EACH
@settings(max_examples=10, deadline=None)
@given(key=st.binary(min_size=32, max_size=32), at=st.integers(1, 40), by=st.integers(1, 255))
def test_a_changed_one_does_not_open(installation: Installation, key: bytes, at: int, by: int) -> None:
    async def check(fresh: Fresh) -> None:
        one = fresh()
        changed = bytearray(await one.wrap(key, "here"))
        # The end of it, which is what was encrypted, in whatever form.
        changed[-at] ^= by
        for wrapping in (one, fresh()):
            with pytest.raises(CannotUnwrap, match="it was changed"):
                await wrapping.unwrap(bytes(changed), "here")

    run(installation, check)


@EACH
async def test_the_same_key_never_looks_the_same_and_shows_nowhere(installation: Installation) -> None:
    key = b"a key of thirty-two bytes, yes.."
    async with installation() as fresh:
        one = fresh()
        wrapped = {await one.wrap(key, "here") for _ in range(20)}
        assert len(wrapped) == 20
        assert not any(key in each for each in wrapped)
        assert "a key" not in repr(one)
