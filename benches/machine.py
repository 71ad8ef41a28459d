"""What a run was made on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, Field


class Machine(BaseModel):
    model_config = ConfigDict(frozen=True)

    processor: str
    cores: int = Field(description="logical ones that this process may run on")
    memory: int = Field(description="bytes")
    system: str
    python: str
    load_average: float = Field(description="processes that wanted a core in the minute before the run, on average")


def machine() -> Machine:
    """This one, now."""
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory=psutil.virtual_memory().total,
        system=platform.system(),
        python=platform.python_version(),
        load_average=os.getloadavg()[0],
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
