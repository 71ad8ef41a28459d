"""Which bus is measured."""

from __future__ import annotations

import shutil
from enum import StrEnum


class Bus(StrEnum):
    postgres = "postgres"
    pulsar = "pulsar"

    @property
    def label(self) -> str:
        """As the tables name it."""
        return self.value.capitalize()


def missing() -> list[str]:
    """Programs that a Pulsar broker on this machine needs and that are not there.

    A container would do to run it, but hides what the broker uses.
    """
    return [program for program in ("java", "mvn") if shutil.which(program) is None]
