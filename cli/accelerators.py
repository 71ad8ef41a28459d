"""What this machine could compute with, what the installed llama.cpp build uses, and which build would be better."""

from __future__ import annotations

import ctypes.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from backplane.settings import Settings
from cli.finding import FAIL, OK, WARN, Finding
from cli.local_models import LOCAL_ENGINE
from cli.machine_checks import cpu_flags
from workers.inference.engine_build import OLDEST_DRIVER, Engine, install_command
from workers.inference.gpus import NvidiaGpus, nvidia_gpus, refusal, visible

_PAGE = "docs/how-to/gpus.md"
_ANSWER_S = 60.0
# The wheels run on old processors, too.
_NOT_ON_PYPI = {"avx512f": "AVX512", "amx_int8": "AMX_INT8", "sve": "SVE"}
# In a process of its own: a driver that crashes, or prints, does it there.
_ASK = """
import dataclasses, json, xllamacpp
from workers.inference.engine_build import Engine
print(json.dumps(dataclasses.asdict(Engine.installed(xllamacpp))))
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """GPUs by the interface that reaches them. ``vulkan`` None: no loader is installed; empty: it names no GPU."""

    nvidia: NvidiaGpus
    vulkan: tuple[str, ...] | None
    metal: bool

    @classmethod
    def this(cls) -> Machine:
        """Blocks."""
        return cls(nvidia_gpus(), _vulkan(), sys.platform == "darwin" and platform.machine() == "arm64")


def findings(settings: Settings) -> Iterator[Finding]:
    """GPUs, the local engine, and each pool that is pinned. Blocks."""
    machine = Machine.this()
    yield _cuda(machine.nvidia)
    yield Finding(OK, "Vulkan", _vulkan_detail(machine.vulkan))
    yield Finding(OK, "Metal", "this Mac has it" if machine.metal else "none; Macs with Apple's chips have it")
    local = {name: pool for name, pool in settings.pools.items() if pool.backend == LOCAL_ENGINE}
    engine = installed_engine({}) if local else None
    if engine is None:
        return  # that it is missing is said with the models
    yield _build(machine, engine)
    for name, pool in local.items():
        if pool.gpus is not None:
            yield _pinned(name, pool.gpus, machine.nvidia)


def installed_engine(variables: Mapping[str, str]) -> Engine | None:
    """What the engine says in a process that has these environment variables, too; None where it says nothing."""
    try:
        told = subprocess.run(
            (sys.executable, "-P", "-c", _ASK),
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_ANSWER_S,
            check=True,
        ).stdout
        found = json.loads(told.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
    return Engine(found["version"], *(tuple(found[name]) for name in ("backends", "gpus", "features")))


def better_build(machine: Machine, engine: Engine) -> tuple[str, str] | None:
    """What a better build would use, and the line that installs it; None where the installed one uses what there is."""
    if engine.uses_gpus:
        return None
    if machine.nvidia.gpus:
        return f"CUDA on GPU {machine.nvidia}", install_command("cuda", engine.version)
    if machine.vulkan:
        return f"Vulkan on {', '.join(machine.vulkan)}", install_command("vulkan", engine.version)
    return None


def main() -> None:
    """For `make install`: the line to run where PyPI does not have the matching build, else nothing."""
    engine = installed_engine({})
    better = better_build(Machine.this(), engine) if engine is not None else None
    if better is not None:
        what, command = better
        print(f"llama.cpp runs on the CPU: PyPI has no build for {what}. This installs one:\n  {command}")


def _cuda(nvidia: NvidiaGpus) -> Finding:
    if not nvidia.gpus:
        return Finding(OK, "CUDA", "no NVIDIA GPU is seen" + (f", driver {nvidia.driver}" if nvidia.driver else ""))
    detail = f"GPU {nvidia}, driver {nvidia.driver or 'unknown'}"
    major = (nvidia.driver or "").split(".")[0]
    if major.isdigit() and int(major) < OLDEST_DRIVER:
        return Finding(WARN, "CUDA", detail, f"llama.cpp's CUDA build wants driver {OLDEST_DRIVER} or newer: update it")
    return Finding(OK, "CUDA", detail)


def _vulkan_detail(gpus: tuple[str, ...] | None) -> str:
    if gpus is None:
        return "no loader is installed"
    if not gpus and shutil.which("vulkaninfo") is None:
        return "the loader is installed; vulkaninfo, which would name the GPUs, is not"
    return ", ".join(gpus) or "the loader is installed, and no GPU shows"


def _build(machine: Machine, engine: Engine) -> Finding:
    detail = f"xllamacpp {engine.version}, made for {', '.join(engine.backends)}"
    better = better_build(machine, engine)
    if better is not None:
        return Finding(WARN, "llama.cpp build", f"{detail}; best here would be {better[0]}", better[1])
    if engine.uses_gpus:
        return Finding(OK, "llama.cpp build", f"{detail}; sees {', '.join(engine.gpus) or 'no GPU'}")
    flags = cpu_flags()
    unused = [feature for flag, feature in _NOT_ON_PYPI.items() if flag in flags and feature not in engine.features]
    if unused:
        detail += f"; a build from source would also use {', '.join(unused)}: see {_PAGE}"
    return Finding(OK, "llama.cpp build", detail)


def _pinned(name: str, gpus: tuple[int, ...], nvidia: NvidiaGpus) -> Finding:
    what = f"GPUs of pool {name}"
    if not gpus:
        return Finding(OK, what, "none, as [pools.…].gpus says")
    engine = installed_engine(visible(gpus))
    wrong = "the engine does not load; its worker's log says why" if engine is None else None
    if engine is not None:
        wrong = refusal(name, gpus, nvidia, engine)
    if wrong is not None:
        detail, _, advice = wrong.partition("; ")
        return Finding(FAIL, what, detail, advice)
    return Finding(OK, what, f"pinned to {', '.join(map(str, gpus))}")


def _vulkan() -> tuple[str, ...] | None:
    if ctypes.util.find_library("vulkan") is None:
        return None
    program = shutil.which("vulkaninfo")
    if program is None:
        return ()
    try:
        told = subprocess.run(
            (program, "--summary"), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_ANSWER_S
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    devices = re.findall(r"deviceType\s*=\s*(\w+)\s*\n\s*deviceName\s*=\s*(.+)", told)
    # Drivers that compute on the CPU are no gain.
    return tuple(name.strip() for kind, name in devices if kind.endswith("_GPU"))


if __name__ == "__main__":
    main()
