"""What the images of the compose file do when they start, with the programs of this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from backplane.adapters.embedded.account import identity, let_through, private_folder
from backplane.adapters.embedded.postgres import program
from backplane.adapters.embedded.pulsar import EmbeddedPulsar
from cli.child import Launch
from tests.cluster.container import Image
from tests.cluster.translation import HERE

_PULSAR_PREFIX = "PULSAR_PREFIX_"


def path() -> str:
    """Where health checks find what their images have: Python as ours, and Postgres's programs."""
    own = str(Path(sys.executable).parent), str(program("pg_isready").parent)
    return os.pathsep.join((*own, os.environ["PATH"]))


def parley(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> Image:
    return Image(Launch((str(Path(sys.executable).parent / "parley"), *command), environment, folder))


def caddy(environment: Mapping[str, str], folder: Path, configuration: Path) -> Image:
    homes = {"XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    # Published to this machine alone, as the compose file's ports are: a line for its site, of which CADDY_TLS is one.
    bound = {"CADDY_TLS": f"bind {HERE}"}
    argv = (_installed("caddy"), "run", "--config", str(configuration / "Caddyfile"), "--adapter", "caddyfile")
    return Image(Launch(argv, {**environment, **homes, **bound}, folder))


def redis(command: Sequence[str], environment: Mapping[str, str], folder: Path, port: int) -> Image:
    argv = (_installed(command[0]), *command[1:], "--bind", HERE, "--port", str(port), "--dir", str(folder))
    return Image(Launch(argv, environment, folder))


def postgres(command: Sequence[str], environment: Mapping[str, str], folder: Path, port: int) -> Image:
    """Makes its folder with the user and the database of ``environment``, as the image's entry point does."""
    uid, gid = identity()
    cluster = folder / "cluster"
    for one in (folder, cluster):
        private_folder(one, uid, gid)
    let_through(cluster, uid)
    let_through(program("postgres"), uid)
    password = folder / "password"
    password.touch(mode=0o600)
    password.write_text(Path(environment["POSTGRES_PASSWORD_FILE"]).read_text())
    if uid is not None and gid is not None:
        os.chown(password, uid, gid)
    user, database = environment["POSTGRES_USER"], environment["POSTGRES_DB"]
    options = environment["POSTGRES_INITDB_ARGS"].split()
    made: Sequence[tuple[tuple[str, ...], str]] = (
        (("initdb", "-D", str(cluster), "--username", user, "--pwfile", str(password), *options), ""),
        (("postgres", "--single", "-D", str(cluster), "postgres"), f'CREATE DATABASE "{database}"\n'),
    )
    for (name, *arguments), said in made:
        subprocess.run(
            [program(name), *arguments],
            input=said,
            check=True,
            capture_output=True,
            text=True,
            user=uid,
            group=gid,
            extra_groups=None if uid is None else [],
            cwd=folder,
            env=dict(environment),
        )
    password.unlink()
    places = ("-D", str(cluster), "-k", str(folder), "-c", f"listen_addresses={HERE}", "-c", f"port={port}")
    argv = (str(program(command[0])), *command[1:], *places)
    return Image(Launch(argv, environment, folder, uid, gid), signal.SIGINT)


def pulsar(environment: Mapping[str, str], folder: Path, port: int, admin_port: int, bookie_port: int) -> Image:
    """With the broker's settings of ``environment``, on top of those that a broker on this machine has."""
    settings = {
        name.removeprefix(_PULSAR_PREFIX): value
        for name, value in environment.items()
        if name.startswith(_PULSAR_PREFIX)
    }
    command = EmbeddedPulsar(folder, port, admin_port, bookie_port, **settings).command()
    return Image(Launch(command.argv, environment, folder))


def _installed(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise RuntimeError(f"{name} is not there: apt-get install caddy redis-server")
    return found
