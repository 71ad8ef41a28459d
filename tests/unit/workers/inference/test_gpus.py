"""Which GPUs there are, who sees them, and what is said where one is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.inference.engine_build import Engine
from workers.inference.gpus import Gpu, NvidiaGpus, nvidia_gpus, refusal, visible

NOBODY = NvidiaGpus()
TWO = NvidiaGpus("570.133.7", (Gpu(0, "NVIDIA L4", 23034), Gpu(1, "NVIDIA H200", 143771)))
CPU = Engine("2026.10", ("CPU",), ())
CUDA = Engine("2026.10", ("CUDA", "CPU"), ("CUDA0", "CUDA1"))
CUDA_SEES_ONE = Engine("2026.10", ("CUDA", "CPU"), ("CUDA0",))
ROCM = Engine("2026.10", ("ROCm", "CPU"), ("ROCm0",))
VULKAN = Engine("2026.10", ("Vulkan", "CPU"), ("Vulkan0",))


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder where programs are found; empty."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def nvidia_smi(folder: Path, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def driver_files(folder: Path) -> Path:
    for address, model in (("0000:b1:00.0", "NVIDIA H200"), ("0000:17:00.0", "NVIDIA L4")):
        gpu = folder / "gpus" / address
        gpu.mkdir(parents=True)
        (gpu / "information").write_text(f"Model: \t\t {model}\nIRQ:   \t\t 92\n")
    (folder / "version").write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  565.57.01  Release Build  (dvs-builder@U16)\n"
        "GCC version:  gcc version 13.3.0\n"
    )
    return folder


def test_a_pinned_process_sees_these_gpus_by_the_numbers_of_nvidia_smi() -> None:
    assert visible((2, 0)) == {
        "CUDA_VISIBLE_DEVICES": "2,0",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "HIP_VISIBLE_DEVICES": "2,0",
    }


def test_an_empty_list_hides_all_and_none_says_nothing() -> None:
    assert visible(())["CUDA_VISIBLE_DEVICES"] == ""
    assert visible(None) == {}


def test_nvidia_smi_is_asked_first(path: Path, tmp_path: Path) -> None:
    nvidia_smi(path, 'echo "0, NVIDIA L4, 23034, 570.133.7"; echo "1, NVIDIA H200, 143771, 570.133.7"')
    assert nvidia_gpus(driver_files(tmp_path / "driver")) == TWO


def test_memory_that_the_driver_does_not_tell_is_not_known(path: Path, tmp_path: Path) -> None:
    nvidia_smi(path, 'echo "0, NVIDIA GB10, [N/A], 580.95.05"')
    assert nvidia_gpus(tmp_path) == NvidiaGpus("580.95.05", (Gpu(0, "NVIDIA GB10"),))


@pytest.mark.parametrize("script", ["exit 9", "echo No devices were found"])
def test_without_an_answer_the_drivers_own_files_are_read_in_bus_order(path: Path, tmp_path: Path, script: str) -> None:
    nvidia_smi(path, script)
    found = nvidia_gpus(driver_files(tmp_path / "driver"))
    assert found == NvidiaGpus("565.57.01", (Gpu(0, "NVIDIA L4"), Gpu(1, "NVIDIA H200")))


def test_a_machine_without_a_driver_has_none(tmp_path: Path) -> None:
    assert nvidia_gpus(tmp_path / "none") == NOBODY


@pytest.mark.parametrize(
    ("wanted", "machine", "engine"),
    [((), NOBODY, CPU), ((0, 1), TWO, CUDA), ((1,), TWO, CUDA_SEES_ONE), ((3,), NOBODY, ROCM)],
)
def test_what_is_there_is_not_refused(wanted: tuple[int, ...], machine: NvidiaGpus, engine: Engine) -> None:
    assert refusal("fast", wanted, machine, engine) is None


@pytest.mark.parametrize(
    ("wanted", "machine", "engine", "says"),
    [
        ((0, 4), TWO, CUDA, ["GPUs 0, 4", "GPU 4 is not there", "0 (NVIDIA L4, 22 GiB), 1 (NVIDIA H200", "correct"]),
        ((0,), TWO, CPU, ["cannot use GPUs", "install the one for CUDA", "pip install", "xllamacpp==2026.10"]),
        ((0,), TWO, VULKAN, ["cannot be pinned", "install the one for CUDA"]),
        ((0,), NOBODY, CPU, ["shows no GPU", "PARLEY_POOLS__FAST__GPUS", "cannot use GPUs"]),
        ((0,), NOBODY, VULKAN, ["uses Vulkan0", "numbers don't choose", "take"]),
        ((0, 1), TWO, CUDA_SEES_ONE, ["sees 1 of 2", "driver 570.133.7", "nvidia-smi"]),
        ((0, 1), NOBODY, ROCM, ["sees 1 of 2", "correct"]),
    ],
)
def test_a_refusal_says_what_where_and_what_to_do(
    wanted: tuple[int, ...], machine: NvidiaGpus, engine: Engine, says: list[str]
) -> None:
    told = refusal("fast", wanted, machine, engine)
    assert told is not None
    assert [part for part in ["[pools.fast].gpus", *says] if part not in told] == []
