"""The Dockerfile against its linter, the packages and the compose file."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from cli import secret_files
from tests.deploy.compose import ROOT
from workers.inference import engine_build

DOCKERFILE = ROOT / "deploy/Dockerfile"
TEXT = DOCKERFILE.read_text()


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    said = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, timeout=60)
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


def test_the_image_is_made_of_every_package_and_of_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    let_in = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert (ROOT / ".dockerignore").read_text().split("\n")[1] == "*"
    assert let_in == packages | {"pyproject.toml", "uv.lock", "README.md", "LICENSE"}
    for name in let_in:
        assert (ROOT / name).exists()


def test_what_is_left_out_are_dependencies_that_there_are() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for package in re.findall(r"--no-install-package (\S+?)\"?\s", TEXT):
        assert any(re.match(rf"{package}\b", one) for one in project["dependencies"])
    left_out = re.findall(r"--no-extra (\S+)", TEXT)
    assert set(left_out) == set(re.findall(r"--no-extra (\S+)", (ROOT / "Makefile").read_text()))
    assert set(left_out) < set(project["optional-dependencies"])


def test_it_runs_as_nobody_special() -> None:
    assert re.findall(r"^USER (.*)$", TEXT, re.MULTILINE) == [f"{secret_files.CONTAINER_UID}:0"]


def test_the_build_for_cuda_is_the_one_that_the_doctor_names() -> None:
    index = re.search(r"^ARG XLLAMACPP_INDEX=(\S+)$", TEXT, re.MULTILINE)
    assert index is not None
    assert f"--index-url {index[1]} " in engine_build.install_command("cuda", "1.0")


def test_the_health_check_is_the_services_own_readiness() -> None:
    assert re.search(r'^HEALTHCHECK .* CMD \["python", "-P", "-m", "cli\.ready"\]$', TEXT, re.MULTILINE)


def test_images_are_named_by_version() -> None:
    images = [one for one in re.findall(r"^FROM (\S+)", TEXT, re.MULTILINE) if ":" in one]
    assert images
    assert {one for one in images if one.startswith("python:")} == {images[1]}
    for image in images:
        assert re.search(r":\d+\.\d+\.\d+", image), image
