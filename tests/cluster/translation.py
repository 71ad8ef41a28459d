"""What the compose file calls by the names of its networks and volumes, as it is called on this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = "127.0.0.1"


@dataclass(frozen=True)
class Translation:
    """For one container: addresses, ports and folders are replaced, and nothing else."""

    addresses: Mapping[str, Sequence[str]]
    """``host:port`` in the compose network → ``host:port`` here, one a replica."""
    ports: Mapping[int, int]
    """The container's own."""
    folders: Mapping[str, Path]
    """What is mounted into the container → where it lies."""

    def variable(self, value: str) -> str:
        """The value of a variable, which may also be a host alone."""
        hosts = {address.partition(":")[0] for address in self.addresses}
        return HERE if value == "0.0.0.0" or value in hosts else self(value)

    def __call__(self, text: str) -> str:
        for inside, outside in self.ports.items():
            text = re.sub(rf"(?:^|(?<=127\.0\.0\.1:)|(?<=--port=)|(?<=-p )){inside}\b", str(outside), text)
        for address, here in self.addresses.items():
            text = re.sub(rf"(?<![\w.-]){re.escape(address)}\b", " ".join(here), text)
        for folder in sorted(self.folders, key=len, reverse=True):
            text = re.sub(rf"(?<!\w){re.escape(folder)}(?![\w.-])", str(self.folders[folder]), text)
        return text
