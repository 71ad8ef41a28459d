"""Which build of llama.cpp is installed, what it can use, and how another one is installed.

`llama-cpp-python` is built on the machine itself, for what `CMAKE_ARGS` says.

PyPI has one wheel of `xllamacpp` for each platform: with Metal on macOS, for CPUs alone elsewhere. Its authors keep the
CUDA and Vulkan builds in package indexes of their own, so a lock file made from PyPI can't name them.
"""

from __future__ import annotations

import ctypes
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Kind = Literal["cuda", "vulkan"]
"""A build that PyPI does not have."""

OLDEST_DRIVER = 570
"""Major version of the first NVIDIA driver that runs all of the CUDA build."""

# This one runs on every NVIDIA GPU since Maxwell; the build for CUDA 13.2 leaves old ones out and wants a newer driver.
_CUDA_INDEX = "https://xorbitsai.github.io/xllamacpp/whl/cu128"
_VULKAN_INDEX = "https://xorbitsai.github.io/xllamacpp/whl/vulkan"
_INDEXES: dict[Kind, str] = {"cuda": _CUDA_INDEX, "vulkan": _VULKAN_INDEX}
_GPU_TYPES = (1, 2)
"""ggml's numbers of GPUs, and of GPUs that share the CPU's memory."""
_PINNED_BY_ENVIRONMENT = ("CUDA", "ROCm")


@dataclass(frozen=True, slots=True)
class Engine:
    """The installed build. ``backends`` is what it was made for, ``gpus`` the names of the GPUs that it sees now,
    ``features`` what it was compiled to use of a processor, by llama.cpp's names."""

    version: str
    backends: tuple[str, ...]
    gpus: tuple[str, ...]
    features: tuple[str, ...] = ()
    package: str = field(default="xllamacpp", kw_only=True)

    @classmethod
    def installed(cls, module: Any) -> Engine:
        """What the imported module, xllamacpp or llama_cpp, says of itself. Blocks: the first look starts the GPUs'
        drivers."""
        if module.__name__ == "llama_cpp":
            package, gpus = "llama-cpp-python", _gpus_of_llama_cpp()
            system = module.llama_print_system_info().decode()
        else:
            package, system = "xllamacpp", str(module.get_system_info())
            devices: Sequence[dict[str, Any]] = module.get_device_info()
            gpus = tuple(str(device["name"]) for device in devices if "GPU" in str(device["type"]))
        return cls(
            version=str(module.__version__),
            # Each backend's name stands before a colon and its features, which have values.
            backends=tuple(re.findall(r"(\w+) : ", system)),
            gpus=gpus,
            features=tuple(re.findall(r"(\w+) = 1", system)),
            package=package,
        )

    @property
    def cuda_command(self) -> str:
        """A line for a shell that puts the same version, for CUDA, into this environment."""
        if self.package == "xllamacpp":
            return install_command("cuda", self.version)
        return 'CMAKE_ARGS="-DGGML_CUDA=on" make install-llama-cpp-python ARGS="--reinstall-package llama-cpp-python"'

    @property
    def pinnable(self) -> bool:
        """Whether environment variables choose its GPUs by number."""
        return any(name.startswith(_PINNED_BY_ENVIRONMENT) for name in self.backends + self.gpus)

    @property
    def uses_gpus(self) -> bool:
        """Whether it was made for more than CPUs."""
        return bool(self.gpus) or any(name not in ("CPU", "BLAS") for name in self.backends)


def _gpus_of_llama_cpp() -> tuple[str, ...]:
    from llama_cpp._ggml import libggml as ggml

    ggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    ggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    ggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    for of_device in (ggml.ggml_backend_dev_type, ggml.ggml_backend_dev_name):
        of_device.argtypes = [ctypes.c_void_p]
    ggml.ggml_backend_dev_name.restype = ctypes.c_char_p
    devices = [ggml.ggml_backend_dev_get(index) for index in range(ggml.ggml_backend_dev_count())]
    return tuple(
        ggml.ggml_backend_dev_name(device).decode()
        for device in devices
        if ggml.ggml_backend_dev_type(device) in _GPU_TYPES
    )


def install_command(kind: Kind, version: str | None = None) -> str:
    """A line for a shell that puts the build into this environment, at ``version`` (None: the newest).

    With the installed version only the build changes, and the environment stays what the lock file describes.
    """
    wanted = "xllamacpp" if version is None else f"xllamacpp=={version}"
    python = shlex.quote(sys.executable)
    return f"{_uv()} pip install --python {python} --reinstall-package xllamacpp --index-url {_INDEXES[kind]} {wanted}"


def _uv() -> str:
    # `make` puts uv beside the environment where the machine has none.
    own = Path(sys.prefix).parent / ".uv"
    found = next((path for path in (own / "bin/uv", own / "venv/bin/uv") if path.is_file()), None)
    return "uv" if shutil.which("uv") or found is None else shlex.quote(str(found))
