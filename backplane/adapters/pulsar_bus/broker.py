"""The connection to the broker, and what it knows of topics."""

from __future__ import annotations

import asyncio
import os

import pulsar
from pulsar.asyncio import Client, PulsarException

from backplane.adapters.pulsar_bus.address import PulsarAddress
from backplane.adapters.pulsar_bus.errors import translated
from backplane.ports.bus import UnknownTopic
from backplane.ports.partitioning import Partitioned
from backplane.ports.single_flight import SingleFlight

_FRESH_S = 10.0
"""How long a topic's number of partitions is believed; more may be added while we run."""


class Broker:
    """One client a process; nothing is opened before its first use."""

    def __init__(self, address: PulsarAddress, timeout_s: float) -> None:
        self.address = address
        self.timeout_s = timeout_s
        self._opened: Client | None = None
        self._known: dict[str, tuple[Partitioned, float]] = {}
        # Those who look the same topic up at the same time share it, so that the first messages of a process keep
        # their order.
        self._looking_up = SingleFlight(self.look_up)

    @property
    def client(self) -> Client:
        if self._opened is None:
            address = self.address
            self._opened = Client(
                address.url,
                authentication=pulsar.AuthenticationToken(address.token) if address.token else None,
                operation_timeout_seconds=max(1, round(self.timeout_s)),
                connection_timeout_ms=round(self.timeout_s * 1000),
                tls_trust_certs_file_path=str(address.ca_file) if address.ca_file else None,
                tls_validate_hostname=True,
                # The client writes to standard output otherwise. What goes wrong reaches us as results.
                logger=pulsar.FileLogger(pulsar.LoggerLevel.Error, os.devnull),
            )
        return self._opened

    async def topic(self, name: str) -> Partitioned:
        """The topic as it was lately. Raises UnknownTopic, BusUnavailable, BusRefused."""
        known = self._known.get(name)
        if known is None:
            return await self._looking_up.get(name)
        topic, looked_up = known
        if asyncio.get_running_loop().time() - looked_up > _FRESH_S:
            # Nobody waits for this: partitions are added, and what they were stays right.
            self._looking_up.begin(name)
        return topic

    async def look_up(self, name: str) -> Partitioned:
        """Ask the broker, whatever is remembered. Raises UnknownTopic, BusUnavailable, BusRefused."""
        try:
            partitions = await self.client.get_topic_partitions(self.address.topic(name))
        except PulsarException as failure:
            error = translated(failure, self.address, name, "look up")
            if isinstance(error, UnknownTopic):
                self._known.pop(name, None)
            raise error from None
        known = self._known.get(name)
        if known is not None and known[0].partitions == len(partitions):
            topic = known[0]
        else:
            topic = Partitioned(name, len(partitions))
        self._known[name] = topic, asyncio.get_running_loop().time()
        return topic

    async def close(self) -> None:
        if self._opened is not None:
            try:
                async with asyncio.timeout(self.timeout_s):
                    await self._looking_up.settled()
                    await self._opened.close()
            except (PulsarException, TimeoutError):
                self._opened.shutdown()
            self._opened = None
