"""What a publish says that failed: refused only where nothing was published for certain."""

from __future__ import annotations

import base64
import json
from typing import Any, cast

import pytest
from pulsar import Result
from pulsar.asyncio import PulsarException

from backplane.adapters.pulsar_bus.address import PulsarAddress
from backplane.adapters.pulsar_bus.broker import Broker
from backplane.adapters.pulsar_bus.errors import translated
from backplane.adapters.pulsar_bus.publishing import Publishing
from backplane.ports.bus import BusError, BusRefused, BusUnavailable, UnknownTopic
from backplane.ports.partitioning import Partitioned

LONG_AGO = 1_600_000_000


def address(exp: object) -> PulsarAddress:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": exp}).encode()).decode().rstrip("=")
    return PulsarAddress("pulsar://broker", "http://broker", "parley", "main", f"e30.{claims}.x")


EXPIRED = address(LONG_AGO)


class ScriptedBroker:
    """A broker of one topic; what it is told to fail at fails."""

    timeout_s = 5.0

    def __init__(
        self, *, create: Result | None = None, send: Result | None = None, look_up: BusError | None = None
    ) -> None:
        self.address = EXPIRED
        self.client = self
        self._create, self._send, self._look_up = create, send, look_up

    async def topic(self, name: str) -> Partitioned:
        return Partitioned(name, 1)

    async def look_up(self, name: str) -> None:
        if self._look_up is not None:
            raise self._look_up

    async def create_producer(self, topic: str, **options: Any) -> ScriptedBroker:
        if self._create is not None:
            raise PulsarException(self._create)
        return self

    async def send(self, payload: bytes, **options: Any) -> None:
        assert self._send is not None
        raise PulsarException(self._send)

    async def close(self) -> None: ...


async def failure(broker: ScriptedBroker) -> BusError:
    publishing = Publishing(cast(Broker, broker))
    with pytest.raises(BusError) as raised:
        await publishing.publish("t", b"x", key=None, partition=None, properties=None)
    return raised.value


@pytest.mark.parametrize("result", [Result.Timeout, Result.NotConnected, Result.ConnectError], ids=str)
async def test_a_token_that_expired_makes_no_refusal_of_a_broker_that_is_silent(result: Result) -> None:
    said = await failure(ScriptedBroker(send=result))
    assert type(said) is BusUnavailable
    assert "bus.pulsar.token expired at 2020-09-13T12:26:40+00:00: set a new one" in str(said)


async def test_who_is_refused_after_a_message_was_sent_may_have_published_it() -> None:
    said = await failure(ScriptedBroker(send=Result.AuthenticationError))
    assert type(said) is BusUnavailable
    assert "does not let us publish to 't'" in str(said)
    said = await failure(ScriptedBroker(send=Result.Timeout, look_up=BusRefused("not you")))
    assert (type(said), str(said)) == (BusUnavailable, "not you")


async def test_who_is_refused_before_has_not() -> None:
    assert type(await failure(ScriptedBroker(create=Result.AuthorizationError))) is BusRefused
    assert type(await failure(ScriptedBroker(send=Result.Timeout, look_up=UnknownTopic("gone")))) is UnknownTopic


@pytest.mark.parametrize("exp", [10**12, 10**30, -(10**18), True, "soon", None, 1.5], ids=str)
def test_an_odd_end_of_a_token_makes_no_other_error_of_an_outage(exp: object) -> None:
    said = translated(PulsarException(Result.Timeout), address(exp), "t", "publish to")
    assert type(said) is BusUnavailable
