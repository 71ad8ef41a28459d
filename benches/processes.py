"""What processes use: CPU seconds and memory."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
from pydantic import BaseModel, ConfigDict, Field


class Memory(BaseModel):
    """Bytes of a process and its children."""

    model_config = ConfigDict(frozen=True)

    rss: int = Field(description="resident; memory that processes share counts for each of them")
    pss: int | None = Field(description="shared memory counts by its share; none where the system does not tell")


@dataclass(frozen=True, slots=True)
class Reading:
    """CPU seconds since the beginning of each group of processes, and of the whole machine."""

    groups: Mapping[str, float]
    machine: float

    def since(self, earlier: Reading) -> dict[str, float]:
        """CPU seconds by group from ``earlier`` to now."""
        return {name: self.groups[name] - earlier.groups[name] for name in self.groups if name in earlier.groups}

    def elsewhere_since(self, earlier: Reading) -> float:
        """CPU seconds that the machine spent on what is in none of the groups."""
        return max(0.0, self.machine - earlier.machine - sum(self.since(earlier).values()))


class Groups:
    """Processes by name. ``trees`` count with all of their children, ``alone`` without."""

    def __init__(self, trees: Mapping[str, psutil.Process], alone: Mapping[str, psutil.Process] | None = None) -> None:
        self._trees = dict(trees)
        self._alone = dict(alone or {})

    def with_(self, name: str, pid: int) -> Groups:
        """These, and one more tree."""
        return Groups({**self._trees, name: psutil.Process(pid)}, self._alone)

    def and_(self, others: Groups) -> Groups:
        """These and ``others``."""
        return Groups({**self._trees, **others._trees}, {**self._alone, **others._alone})

    def read(self) -> Reading:
        """Raises psutil.NoSuchProcess where one of the processes is gone."""
        groups = {name: _tree_s(root) for name, root in self._trees.items()}
        groups |= {name: _own_s(process) for name, process in self._alone.items()}
        return Reading(groups, _machine_s())

    def memory(self) -> dict[str, Memory]:
        """Raises psutil.NoSuchProcess where one of the processes is gone."""
        groups = {name: _memory(root, *root.children(recursive=True)) for name, root in self._trees.items()}
        return groups | {name: _memory(process) for name, process in self._alone.items()}


def peak_rss() -> int:
    """Bytes, the most that this process ever had resident."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        # In bytes there; on Linux it is in KiB, and begins with what the parent had.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def _own_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _tree_s(root: psutil.Process) -> float:
    total = 0.0
    for process in (*root.children(recursive=True), root):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            if process is root:
                raise
            continue  # its parent has its time now
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _machine_s() -> float:
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    # What guests use is in `user` and `nice` already.
    counted_twice = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0) + getattr(times, "steal", 0.0)
    return float(sum(times) - idle - counted_twice)


def _memory(*processes: psutil.Process) -> Memory:
    rss = pss = 0
    told = True
    for process in processes:
        try:
            rss += process.memory_info().rss
            share = _pss(process) if told else None
        except psutil.NoSuchProcess:
            continue
        told = share is not None
        pss += share or 0
    return Memory(rss=rss, pss=pss if told else None)


def _pss(process: psutil.Process) -> int | None:
    try:
        return getattr(process.memory_full_info(), "pss", None)
    except psutil.AccessDenied:
        return None
