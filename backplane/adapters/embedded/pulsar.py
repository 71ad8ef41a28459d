"""A real Pulsar broker on one machine, with no container engine needed: its jars come from Maven Central.

For development, tests and benches. It stores every message once, on this machine's disk.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from backplane.adapters.embedded.account import Command, EmbeddedServerError

VERSION = "4.0.7"
_BOOKKEEPER = "4.17.3"
"""With 4.17.2, which this Pulsar names, a bookie that comes back after kill -9 may go on for a minute deleting its own
registration and making it again, and nothing is stored meanwhile (apache/bookkeeper#4686, apache/pulsar#25001)."""

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>parley</groupId>
  <artifactId>pulsar-standalone</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencyManagement>
    <dependencies>
      <dependency>
        <groupId>org.apache.bookkeeper</groupId>
        <artifactId>bookkeeper-server</artifactId>
        <version>{_BOOKKEEPER}</version>
      </dependency>
    </dependencies>
  </dependencyManagement>
  <dependencies>
    <dependency>
      <groupId>org.apache.pulsar</groupId>
      <artifactId>pulsar-broker</artifactId>
      <version>{VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""
_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
_RESOLVE = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:build-classpath"
_OPENED = (
    "java.base/java.nio",
    "java.base/sun.net",
    "java.base/jdk.internal.misc",
    "java.base/jdk.internal.platform",
    "java.management/sun.management",
)
_LOGGING = """<Configuration status="WARN">
  <Appenders><Console name="Console"><PatternLayout pattern="%d{ISO8601} %p [%t] %c{1} - %m%n"/></Console></Appenders>
  <Loggers><Root level="WARN"><AppenderRef ref="Console"/></Root></Loggers>
</Configuration>
"""


class EmbeddedPulsar:
    """A broker with its bookie and its metadata in one JVM, on the loopback address.

    ``settings`` are lines of the broker's own configuration on top of ours.
    """

    def __init__(
        self, folder: Path, port: int = 6650, admin_port: int = 8080, bookie_port: int = 3181, **settings: str
    ) -> None:
        self._folder = folder.resolve()
        self._port = port
        self._admin_port = admin_port
        self._bookie_port = bookie_port
        self._settings = {
            "clusterName": "standalone",
            "brokerServicePort": str(port),
            "webServicePort": str(admin_port),
            "bindAddress": "127.0.0.1",
            "advertisedAddress": "127.0.0.1",
            "managedLedgerDefaultEnsembleSize": "1",
            "managedLedgerDefaultWriteQuorum": "1",
            "managedLedgerDefaultAckQuorum": "1",
            # One large message kills the bookie without it: Netty's limit is below what the broker lets through.
            "nettyMaxFrameSizeBytes": "5253120",
            # A consumer that has read everything looks again at once, and not 10 ms later.
            "managedLedgerNewEntriesCheckDelayInMillis": "0",
            "allowAutoTopicCreation": "false",
            # The bookie reads this file too, and would listen everywhere.
            "listeningInterface": _LOOPBACK,
            "allowLoopback": "true",
            # Says, against its name, that the bookie's port is the one that is asked for.
            "allowEphemeralPorts": "true",
        } | settings

    @property
    def url(self) -> str:
        return f"pulsar://127.0.0.1:{self._port}"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self._admin_port}"

    def prepare(self) -> None:
        """Fetch the broker's jars where they are not there, which takes minutes. Raises EmbeddedServerError."""
        self.command()

    def command(self) -> Command:
        """How to start the broker in the foreground; in a container where there is no JDK with Maven, but Docker.

        Prepares it where that was not done. Raises EmbeddedServerError.
        """
        java, maven, docker = shutil.which("java"), shutil.which("mvn"), shutil.which("docker")
        if java and maven:
            argv = self._in_jvm(java, jars(maven))
        elif docker:
            argv = self._in_container(docker)
        else:
            raise EmbeddedServerError(
                "a Pulsar broker on this machine needs a JDK (17 or newer) and Maven "
                "(Debian: apt-get install openjdk-17-jdk-headless maven), or Docker; none of them is there"
            )
        return Command(argv, folder=self._folder, log=self._folder / "pulsar.log", uid=None, gid=None)

    def _in_jvm(self, java: str, classpath: str) -> tuple[str, ...]:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        configuration = self._folder / "standalone.conf"
        configuration.write_text("".join(f"{name}={value}\n" for name, value in self._settings.items()))
        logging = self._folder / "log4j2.xml"
        logging.write_text(_LOGGING)
        arguments = self._folder / "java.arguments"
        opened = "".join(f"--add-opens {package}=ALL-UNNAMED\n" for package in _OPENED)
        arguments.write_text(
            # A broker of minutes or hours: the optimising compiler costs more of a small machine than it brings.
            f"-Xms256m\n-Xmx512m\n-XX:MaxDirectMemorySize=512m\n-XX:+UseSerialGC\n-XX:TieredStopAtLevel=1\n{opened}"
            f'-Dlog4j.configurationFile="{logging}"\n-cp "{classpath}"\n'
        )
        return (
            *(java, f"@{arguments}", "org.apache.pulsar.PulsarStandaloneStarter"),
            *("--config", str(configuration), "--no-functions-worker", "--no-stream-storage"),
            *("--metadata-dir", str(self._folder / "metadata"), "--bookkeeper-dir", str(self._folder / "bookkeeper")),
            # A port by chance could be another's when the broker comes back, and a bookie is known by its port.
            *("--bookkeeper-port", str(self._bookie_port)),
        )

    def _in_container(self, docker: str) -> tuple[str, ...]:
        # Inside, it listens for the container's own address; outside, only this machine reaches it.
        settings = self._settings | {"bindAddress": "0.0.0.0"}  # noqa: S104
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return (
            *(docker, "run", "--rm", "--init", "--volume", f"{self._folder}:/pulsar/data"),
            *(each for port in (self._port, self._admin_port) for each in ("--publish", f"127.0.0.1:{port}:{port}")),
            *(each for name, value in settings.items() for each in ("--env", f"PULSAR_PREFIX_{name}={value}")),
            *(f"apachepulsar/pulsar:{VERSION}", "sh", "-c"),
            "bin/apply-config-from-env.py conf/standalone.conf "
            "&& exec bin/pulsar standalone --no-functions-worker --no-stream-storage",
        )


def jars(maven: str) -> str:
    """The broker's class path; its jars lie in the repository of ``maven``. Fetches 235 MB at the first call.

    Raises EmbeddedServerError.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "parley" / f"pulsar-{VERSION}"
    known, pom = cache / "classpath", cache / "pom.xml"
    if known.is_file() and pom.is_file() and pom.read_text() == _POM:
        classpath = known.read_text().strip()
        if all(Path(jar).is_file() for jar in classpath.split(os.pathsep)):
            return classpath
    cache.mkdir(parents=True, exist_ok=True)
    known.unlink(missing_ok=True)
    pom.write_text(_POM)
    found = cache / f"classpath.{os.getpid()}"
    resolving = subprocess.run(  # noqa: S603 - a fixed program with fixed arguments
        [maven, "-B", "-q", "-f", str(pom), _RESOLVE, "-DincludeScope=runtime", f"-Dmdep.outputFile={found}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if resolving.returncode != 0 or not found.is_file():
        said = " ".join((resolving.stdout + resolving.stderr).split())[:500]
        raise EmbeddedServerError(f"Maven could not fetch Pulsar {VERSION} from Maven Central: {said}")
    found.replace(known)
    return known.read_text().strip()
