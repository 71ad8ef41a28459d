"""A real Pulsar broker on one machine, with no container engine needed: its jars come from Maven Central.

For development, tests and benches. It stores every message once, on this machine's disk.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from backplane.adapters.embedded.account import Command, EmbeddedServerError

VERSION = "4.0.7"

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>parley</groupId>
  <artifactId>pulsar-standalone</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.pulsar</groupId><artifactId>pulsar-broker</artifactId><version>{VERSION}</version></dependency>
  </dependencies>
</project>
"""
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

    def __init__(self, folder: Path, port: int = 6650, admin_port: int = 8080, **settings: str) -> None:
        self._folder = folder.resolve()
        self._port = port
        self._admin_port = admin_port
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
        } | settings

    @property
    def url(self) -> str:
        return f"pulsar://127.0.0.1:{self._port}"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self._admin_port}"

    def command(self) -> Command:
        """How to start the broker in the foreground. Fetches its jars first where they are not there: minutes, once.

        Raises EmbeddedServerError.
        """
        java = _program("java")
        classpath = jars()
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        configuration = self._folder / "standalone.conf"
        configuration.write_text("".join(f"{name}={value}\n" for name, value in self._settings.items()))
        logging = self._folder / "log4j2.xml"
        logging.write_text(_LOGGING)
        arguments = self._folder / "java.arguments"
        opened = "".join(f"--add-opens {package}=ALL-UNNAMED\n" for package in _OPENED)
        arguments.write_text(
            f"-Xms256m\n-Xmx512m\n-XX:MaxDirectMemorySize=512m\n{opened}"
            f'-Dlog4j.configurationFile="{logging}"\n-cp "{classpath}"\n'
        )
        return Command(
            argv=(
                *(java, f"@{arguments}", "org.apache.pulsar.PulsarStandaloneStarter"),
                *("--config", str(configuration), "--no-functions-worker", "--no-stream-storage"),
                *(
                    "--metadata-dir",
                    str(self._folder / "metadata"),
                    "--bookkeeper-dir",
                    str(self._folder / "bookkeeper"),
                ),
            ),
            folder=self._folder,
            log=self._folder / "pulsar.log",
            uid=None,
            gid=None,
        )


def jars() -> str:
    """The broker's class path; its jars lie in Maven's repository. Fetches 235 MB at the first call.

    Raises EmbeddedServerError.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "parley" / f"pulsar-{VERSION}"
    known = cache / "classpath"
    if known.is_file() and all(Path(jar).is_file() for jar in known.read_text().split(os.pathsep)):
        return known.read_text()
    maven = _program("mvn")
    cache.mkdir(parents=True, exist_ok=True)
    pom = cache / "pom.xml"
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
    return known.read_text()


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise EmbeddedServerError(
            f"`{name}` is not there: a broker on this machine needs a JDK 17 or newer and Maven "
            "(Debian: apt-get install openjdk-17-jdk-headless maven)"
        )
    return found
