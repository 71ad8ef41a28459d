"""How long the bus takes to make a message durable, whichever bus it is."""

from __future__ import annotations

from prometheus_client import Histogram

publish_time = Histogram(
    "parley_bus_publish_seconds",
    "From a publish to its confirmation by the bus, or to its failure",
    ["topic"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
