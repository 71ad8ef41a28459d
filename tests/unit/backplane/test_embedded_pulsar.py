"""How a broker on one machine is started, and what is said where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from backplane.adapters.embedded.account import EmbeddedServerError
from backplane.adapters.embedded.pulsar import VERSION, EmbeddedPulsar


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder where programs are found; empty."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def program(folder: Path, name: str, script: str = "exit 0") -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def jar(programs: Path, tmp_path: Path) -> Path:
    """The one jar that Maven finds, on a machine with a JDK."""
    jar = tmp_path / "broker.jar"
    jar.touch()
    program(programs, "java")
    program(
        programs, "mvn", f'for one; do case "$one" in -Dmdep.outputFile=*) echo "{jar}" > "${{one#*=}}";; esac; done'
    )
    return jar


@pytest.fixture
def server(tmp_path: Path) -> EmbeddedPulsar:
    return EmbeddedPulsar(tmp_path / "broker", 16650, 18080, extra="yes")


@pytest.mark.parametrize("there", [(), ("java",), ("mvn",)])
def test_without_a_jdk_with_maven_or_docker_it_says_so(
    programs: Path, server: EmbeddedPulsar, there: tuple[str, ...]
) -> None:
    for name in there:
        program(programs, name)
    with pytest.raises(
        EmbeddedServerError, match=r"JDK \(17 or newer\) and Maven .*, or Docker; none of them is there"
    ):
        server.prepare()


def test_docker_serves_where_there_is_no_jdk_and_only_this_machine_reaches_it(
    programs: Path, server: EmbeddedPulsar
) -> None:
    program(programs, "docker")
    argv = server.command().argv
    assert argv[:3] == (str(programs / "docker"), "run", "--rm")
    published = [argv[place + 1] for place, word in enumerate(argv) if word == "--publish"]
    assert published == ["127.0.0.1:16650:16650", "127.0.0.1:18080:18080"]
    settings = dict(argv[place + 1].split("=", 1) for place, word in enumerate(argv) if word == "--env")
    assert settings["PULSAR_PREFIX_advertisedAddress"] == "127.0.0.1"
    assert settings["PULSAR_PREFIX_extra"] == "yes"
    assert f"apachepulsar/pulsar:{VERSION}" in argv


def test_the_jars_are_fetched_once(programs: Path, jar: Path, tmp_path: Path, server: EmbeddedPulsar) -> None:
    server.prepare()
    program(programs, "mvn", "exit 1")
    argv = server.command().argv
    assert argv[0] == str(programs / "java")
    assert str(jar) in (tmp_path / "broker" / "java.arguments").read_text()
    configuration = (tmp_path / "broker" / "standalone.conf").read_text().splitlines()
    assert {"bindAddress=127.0.0.1", "brokerServicePort=16650", "extra=yes"} <= set(configuration)
    jar.unlink()
    with pytest.raises(EmbeddedServerError, match="Maven could not fetch"):
        server.prepare()


@pytest.mark.usefixtures("jar")
def test_jars_of_other_versions_are_not_taken(programs: Path, tmp_path: Path, server: EmbeddedPulsar) -> None:
    server.prepare()
    (pom,) = (tmp_path / "cache").rglob("pom.xml")
    pom.write_text(pom.read_text().replace(VERSION, "4.0.0"))
    program(programs, "mvn", "exit 1")
    with pytest.raises(EmbeddedServerError, match="Maven could not fetch"):
        server.prepare()
