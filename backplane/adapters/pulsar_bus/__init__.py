"""The bus in the cluster: Apache Pulsar."""

from backplane.adapters.pulsar_bus.address import PulsarAddress
from backplane.adapters.pulsar_bus.bus import PulsarBus

__all__ = ["PulsarAddress", "PulsarBus"]
