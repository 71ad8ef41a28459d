"""The projections of the release after this one: they know one event more. Run as a program."""

from __future__ import annotations

from typing import ClassVar

import projections.main
from cli import process
from cli.programs import settings_of_one_service
from event_schemas import registry
from event_schemas.payload import AboutGeneration


class GenerationApplauded(AboutGeneration):
    """Somebody liked the answer."""

    wire_name: ClassVar[str] = "generation.applauded.v1"


if __name__ == "__main__":
    registry.BY_BASE[registry.split(GenerationApplauded.wire_name)[0]] = GenerationApplauded
    raise SystemExit(process.run("projections", projections.main.serve, settings_of_one_service))
