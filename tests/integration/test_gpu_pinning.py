"""A pool's GPUs in the environment of its worker, in real processes. None of this needs a GPU."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from backplane.settings import PoolSettings, Settings
from cli import accelerators, doctor
from cli.failures import EX_CONFIG
from cli.finding import FAIL, OK, WARN, Finding
from cli.programs import service_programs
from tests.unit.workers.inference.gguf_files import language_model
from workers.inference.engine_build import Engine
from workers.inference.gpus import Gpu, NvidiaGpus

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60.0
NAMES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "HIP_VISIBLE_DEVICES")
SHOW = f"import json, os; print(json.dumps([os.environ.get(name) for name in {NAMES}]))"
NO_GPUS = NvidiaGpus()
ONE_GPU = NvidiaGpus("535.104", (Gpu(0, "NVIDIA L4", 23034),))
CPU_BUILD = Engine("2026.10", ("CPU",), ())


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, on a machine without NVIDIA's programs whose operator hid all GPUs but number 5."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PARLEY_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PARLEY_PORT", "0")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    for name in NAMES[1:]:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def nvidia_smi(folder: Path, script: str) -> None:
    (folder / "bin").mkdir()
    program = folder / "bin" / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


async def run(*arguments: str, environment: dict[str, str]) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", *arguments),
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), DEADLINE_S)
    return process.returncode, out.decode(), err.decode()


async def test_each_worker_of_parley_up_sees_the_gpus_of_its_pool(folder: Path) -> None:
    pools = {
        name: PoolSettings(backend="xllamacpp", model_file=folder / "m.gguf", gpus=gpus)
        for name, gpus in {"first": (0,), "both": (0, 1), "cpu": (), "any": None}.items()
    }
    seen = {}
    for program in service_programs(Settings(data_dir=folder / "data", pools=pools)):
        launch = await program.launch()
        code, out, _ = await run("-c", SHOW, environment=dict(launch.environment))
        assert code == 0
        seen[program.name] = json.loads(out)
    untouched = ["5", None, None]
    assert seen == {
        "projections": untouched,
        "worker-first": ["0", "PCI_BUS_ID", "0"],
        "worker-both": ["0,1", "PCI_BUS_ID", "0,1"],
        "worker-cpu": ["", "PCI_BUS_ID", ""],
        "worker-any": untouched,
        "ingest": untouched,
        "gateway": untouched,
    }


async def worker(folder: Path, **options: object) -> tuple[int | None, str]:
    """`parley worker` alone with these options of its pool: how it ended, and the last line of its log."""
    model = folder / "m.gguf"
    model.write_bytes(language_model())
    pool = {"backend": "xllamacpp", "model_file": str(model), **options}
    code, _, err = await run(
        *("-m", "cli.main", "worker", "--pool", "fast"),
        environment={**os.environ, "PARLEY_POOLS": json.dumps({"fast": pool})},
    )
    return code, json.loads(err.splitlines()[-1])["message"]


async def test_a_worker_alone_is_pinned_before_it_looks_for_its_gpus(folder: Path) -> None:
    nvidia_smi(folder, f'echo "$CUDA_VISIBLE_DEVICES $CUDA_DEVICE_ORDER" > {folder}/seen; exit 9')
    code, message = await worker(folder, gpus=[7])
    assert (folder / "seen").read_text() == "7 PCI_BUS_ID\n"
    assert code == EX_CONFIG
    assert "[pools.fast].gpus names GPU 7" in message


async def test_a_gpu_that_is_not_there_is_named_with_those_that_are(folder: Path) -> None:
    nvidia_smi(folder, 'echo "0, NVIDIA L4, 23034, 570.133.7"')
    code, message = await worker(folder, gpus=[0, 7])
    assert code == EX_CONFIG
    assert "GPU 7 is not there: this machine has 0 (NVIDIA L4, 22 GiB); correct [pools.fast].gpus" in message


async def test_options_that_exclude_each_other_end_the_worker(folder: Path) -> None:
    code, message = await worker(folder, kv_cache_type="q8_0", flash_attention="off")
    assert code == EX_CONFIG
    assert "pools.fast" in message
    assert "needs flash attention" in message


async def found() -> dict[str, Finding]:
    return {finding.what: finding async for finding in doctor.findings()}


async def test_doctor_tells_what_the_machine_and_the_build_have(folder: Path) -> None:
    nvidia_smi(folder, 'echo "0, NVIDIA L4, 23034, 535.104"')
    findings = await found()
    assert findings["memory"].state == OK
    assert findings["CUDA"].detail == "GPU 0 (NVIDIA L4, 22 GiB), driver 535.104"
    assert findings["CUDA"].state == WARN
    assert "570" in findings["CUDA"].advice
    assert {"CPU", "CPU features", "Vulkan", "Metal", "llama.cpp build"} <= set(findings)


async def test_doctor_names_a_pool_whose_gpu_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi(folder, 'echo "0, NVIDIA L4, 23034, 570.133.7"')
    pools = {"fast": {"backend": "xllamacpp", "gpus": [3]}, "slow": {"backend": "xllamacpp", "gpus": []}}
    monkeypatch.setenv("PARLEY_POOLS", json.dumps(pools))
    findings = await found()
    assert findings["GPUs of pool fast"].state == FAIL
    assert "GPU 3 is not there" in findings["GPUs of pool fast"].detail
    assert findings["GPUs of pool fast"].advice.startswith("correct [pools.fast].gpus")
    assert findings["GPUs of pool slow"].state == OK


def test_vulkan_names_gpus_and_leaves_out_what_computes_on_the_cpu(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctypes.util.find_library", lambda name: f"lib{name}.so.1")
    (folder / "bin").mkdir()
    program = folder / "bin" / "vulkaninfo"
    program.write_text(
        "#!/bin/sh\ncat << END\nGPU0:\n\tdeviceType         = PHYSICAL_DEVICE_TYPE_DISCRETE_GPU\n"
        "\tdeviceName         = AMD Radeon RX 6800 XT (RADV NAVI21)\nGPU1:\n"
        "\tdeviceType         = PHYSICAL_DEVICE_TYPE_CPU\n\tdeviceName         = llvmpipe (LLVM 19.1.7)\nEND\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:/bin:/usr/bin")
    assert accelerators.Machine.this().vulkan == ("AMD Radeon RX 6800 XT (RADV NAVI21)",)


@pytest.mark.parametrize(
    ("machine", "engine", "index"),
    [
        (accelerators.Machine(ONE_GPU, ("NVIDIA L4",), metal=False), CPU_BUILD, "/cu128 "),
        (accelerators.Machine(NO_GPUS, ("AMD Radeon",), metal=False), CPU_BUILD, "/vulkan "),
    ],
)
def test_a_build_that_pypi_does_not_have_comes_with_the_line_that_installs_it(
    machine: accelerators.Machine, engine: Engine, index: str
) -> None:
    better = accelerators.better_build(machine, engine)
    assert better is not None
    assert index in better[1]


@pytest.mark.parametrize(
    ("machine", "engine"),
    [
        (accelerators.Machine(NO_GPUS, None, metal=False), CPU_BUILD),
        (accelerators.Machine(NO_GPUS, (), metal=False), CPU_BUILD),
        (accelerators.Machine(NO_GPUS, None, metal=True), Engine("2026.10", ("Metal", "CPU"), ("MTL0",))),
        (accelerators.Machine(ONE_GPU, None, metal=False), Engine("2026.10", ("CUDA", "CPU"), ("CUDA0",))),
    ],
)
def test_a_build_that_uses_what_there_is_stays(machine: accelerators.Machine, engine: Engine) -> None:
    assert accelerators.better_build(machine, engine) is None


@pytest.mark.parametrize(("gpus", "lines"), [(NO_GPUS, 0), (ONE_GPU, 2)])
def test_make_install_is_told_what_to_run_only_where_there_is_something(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], gpus: NvidiaGpus, lines: int
) -> None:
    monkeypatch.setattr(accelerators.Machine, "this", lambda: accelerators.Machine(gpus, None, metal=False))
    monkeypatch.setattr(accelerators, "installed_engine", lambda variables: CPU_BUILD)
    accelerators.main()
    told = capsys.readouterr().out.splitlines()
    assert len(told) == lines
    if told:
        assert "PyPI has no build for CUDA on GPU 0 (NVIDIA L4, 22 GiB)" in told[0]
        assert "--reinstall-package xllamacpp" in told[1]


async def test_make_install_runs_it() -> None:
    (line,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if "cli.accelerators" in line]
    code, _, err = await run(*line.split("bin/python -P ")[1].split(), environment=dict(os.environ))
    assert (code, err) == (0, "")
