"""NVIDIA GPUs: which ones the machine has, and a process that sees only some of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workers.inference.engine_build import Engine

_DRIVER_FILES = Path("/proc/driver/nvidia")
_ANSWER_S = 20.0


@dataclass(frozen=True, slots=True)
class Gpu:
    """``number`` is nvidia-smi's. ``memory_mib`` None: not known."""

    number: int
    name: str
    memory_mib: int | None = None

    def __str__(self) -> str:
        size = "" if self.memory_mib is None else f", {self.memory_mib / 1024:.0f} GiB"
        return f"{self.number} ({self.name}{size})"


@dataclass(frozen=True, slots=True)
class NvidiaGpus:
    """What the driver shows. ``driver`` None: none is loaded, or it can't be asked."""

    driver: str | None = None
    gpus: tuple[Gpu, ...] = ()

    def __str__(self) -> str:
        return ", ".join(str(gpu) for gpu in self.gpus)


def nvidia_gpus(driver_files: Path = _DRIVER_FILES) -> NvidiaGpus:
    """The machine's NVIDIA GPUs, whatever this process may see of them. Blocks."""
    return _from_nvidia_smi() or _from_driver_files(driver_files)


def visible(gpus: Sequence[int] | None) -> dict[str, str]:
    """Environment variables with which a process sees these GPUs and no others. None: nothing is said of them.

    They count only until the process has loaded its engine.
    """
    if gpus is None:
        return {}
    numbers = ",".join(map(str, gpus))
    return {
        "CUDA_VISIBLE_DEVICES": numbers,
        # Without it CUDA puts the fastest GPU first, and numbers mean something else than in nvidia-smi.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        # ROCm's own name; its newer releases don't read CUDA's.
        "HIP_VISIBLE_DEVICES": numbers,
    }


def refusal(pool: str, wanted: Sequence[int], machine: NvidiaGpus, engine: Engine) -> str | None:
    """Why a pool pinned to ``wanted`` can't run, and what to do; None where it can.

    ``engine`` is what it sees in a process that has the variables of ``visible``.
    """
    if not wanted:
        return None
    setting = f"[pools.{pool}].gpus"
    names = f"{setting} names {_listed(wanted)}"
    there = {gpu.number for gpu in machine.gpus}
    missing = [number for number in wanted if number not in there]
    if machine.gpus and missing:
        return (
            f"{names}, and {_listed(missing)} {'is' if len(missing) == 1 else 'are'} not there: this machine has "
            f"{machine}; correct {setting} in settings.toml (numbers are those of nvidia-smi)"
        )
    build = f"the installed llama.cpp build ({engine.package} {engine.version}, {', '.join(engine.backends)})"
    if machine.gpus and not engine.pinnable:
        return (
            f"{names}, and {build} {'cannot be pinned to them' if engine.uses_gpus else 'cannot use GPUs'}; "
            f"install the one for CUDA: {engine.cuda_command}"
        )
    if not machine.gpus and not engine.gpus:
        also = "" if engine.uses_gpus else f". Also, {build} cannot use GPUs; docs/how-to/gpus.md says which one can"
        return (
            f"{names}, and this machine shows no GPU: neither nvidia-smi nor {_DRIVER_FILES} knows one; take {setting} "
            f"out of settings.toml (or PARLEY_POOLS__{pool.upper()}__GPUS out of the environment), or install the "
            f"GPU's driver{also}"
        )
    if not engine.pinnable:
        return (
            f"{names}, and {build} uses {', '.join(engine.gpus)}, which numbers don't choose; take {setting} out of "
            "settings.toml, or install a build for CUDA: docs/how-to/gpus.md says how"
        )
    if len(engine.gpus) < len(wanted):
        return (
            f"{names}, and llama.cpp sees {len(engine.gpus)} of {len(wanted)}"
            f"{f' (the machine has {machine}, driver {machine.driver})' if machine.gpus else ''}; correct {setting} in "
            "settings.toml, or find out with nvidia-smi why a GPU does not work"
        )
    return None


def _listed(numbers: Sequence[int]) -> str:
    return ("GPU " if len(numbers) == 1 else "GPUs ") + ", ".join(map(str, numbers))


def _from_nvidia_smi() -> NvidiaGpus | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    asked = [program, "--query-gpu=index,name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(  # noqa: S603 - a fixed program with fixed arguments
            asked, capture_output=True, text=True, timeout=_ANSWER_S, check=True, stdin=subprocess.DEVNULL
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    rows = [[field.strip() for field in line.split(",")] for line in told.splitlines()]
    rows = [row for row in rows if len(row) == 4 and row[0].isdigit()]
    if not rows:
        return None
    gpus = (Gpu(int(number), name, int(mib) if mib.isdigit() else None) for number, name, mib, _ in rows)
    return NvidiaGpus(rows[0][3], tuple(gpus))


def _from_driver_files(files: Path) -> NvidiaGpus:
    try:
        version = re.search(r"NVRM version:.*?\s(\d+\.[\d.]+)\s", (files / "version").read_text())
        # One folder a GPU, named by its PCI address: in that order nvidia-smi counts.
        folders = sorted((files / "gpus").iterdir())
        names = [re.search(r"^Model:\s*(.+?)\s*$", (one / "information").read_text(), re.M) for one in folders]
    except OSError:
        return NvidiaGpus()
    gpus = tuple(Gpu(number, name[1] if name else "NVIDIA") for number, name in enumerate(names))
    return NvidiaGpus(version[1] if version else None, gpus)
