"""The record from a running Parley to an auditor's own machine, at the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.client import Client, eventually
from tests.e2e.running import Up

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
async def up(tmp_path: Path) -> AsyncIterator[Up]:
    made = Up(tmp_path / "up", PARLEY_RECORD__CHECKPOINT_S="0.2")
    made.start()
    try:
        made.ready()
        yield made
    finally:
        made.end()


class Auditor:
    """On a machine that has nothing but the files they were given."""

    def __init__(self, folder: Path, key: str) -> None:
        folder.mkdir()
        self.folder = folder
        self.key = key

    def verify(self, *arguments: str, code: int = 0, key: str | None = None, stdin: bytes = b"") -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")}
        result = subprocess.run(
            [sys.executable, "-m", "cli.main", "audit", "verify", *arguments, "--key", key or self.key],
            # Settings that cannot be read would be found out.
            cwd=self.folder,
            env=environment | {"PARLEY_SETTINGS": "not-there.toml"},
            input=stdin,
            capture_output=True,
            timeout=60,
        )
        assert result.returncode == code, result.stderr.decode()
        assert b"Traceback" not in result.stderr
        return (result.stdout if code == 0 else result.stderr).decode()

    def write(self, name: str, lines: list[str]) -> str:
        (self.folder / name).write_text("".join(line + "\n" for line in lines))
        return name


async def test_an_auditor_verifies_what_an_operator_exports(up: Up, tmp_path: Path) -> None:
    async with Client(up.url, up.admin_key) as admin:
        accepted = await admin.submit("hello", script={"count": 3})
        await admin.ended(accepted["generation_id"])

        async def signed() -> int:
            proof = await admin.get("/v1/audit/verify")
            assert proof["verified"], proof
            checkpoints = (await admin.get("/v1/audit/checkpoints", limit=500))["checkpoints"]
            return int(checkpoints[-1]["sequence"]) if checkpoints else 0

        await eventually(signed, lambda sequence: sequence >= 8)
    auditor = Auditor(tmp_path / "auditor", up.parley("audit", "key").strip())
    published = up.parley("audit", "checkpoints").splitlines()
    assert {json.loads(one)["key"] for one in published} == {auditor.key}
    lines = up.parley("audit", "export", "--tenant", "default").splitlines()
    file = auditor.write("export.ndjson", lines)
    to = json.loads(lines[0])["to"]
    assert to >= 8
    said = auditor.verify(file)
    assert said.startswith("verified: tenant ")
    assert f"lines 1 to {to}," in said
    kept = auditor.write("kept.ndjson", published)
    assert "that were published elsewhere agree" in auditor.verify(file, "--checkpoint", kept)
    assert auditor.verify("-", stdin=(auditor.folder / file).read_bytes()) == said

    changed = [line.replace('"actor":"key:', '"actor":"who:') for line in lines]
    assert "was changed" in auditor.verify(auditor.write("changed.ndjson", changed), code=1)
    assert "cut off" in auditor.verify(auditor.write("cut.ndjson", lines[:-3]), code=1)
    # Cut at an earlier checkpoint, the header made to fit: only what was published shows it.
    earlier = next(place for place, line in enumerate(lines) if line.startswith('{"checkpoint"'))
    header = json.loads(lines[0]) | {"to": json.loads(lines[earlier])["checkpoint"]["sequence"]}
    old = auditor.write("old.ndjson", [json.dumps(header), *lines[1 : earlier + 1]])
    auditor.verify(old)
    assert "an older copy" in auditor.verify(old, "--checkpoint", kept, code=1)
    assert "not one of those to be trusted" in auditor.verify(file, key="0" * 64, code=1)
    assert "64 hexadecimal digits" in auditor.verify(file, key="mine", code=1)
    assert "is no checkpoint" in auditor.verify(file, "--checkpoint", file, code=1)
    assert "does not begin with the header" in auditor.verify(kept, code=1)
    assert "No such file" in auditor.verify("nowhere.ndjson", code=1)

    # The export itself is on the record.
    async with Client(up.url, up.admin_key) as admin:
        reads = await eventually(
            lambda: admin.events(type="audit.read.v1", actor="operator"), lambda found: len(found) == 1
        )
    assert reads[0]["data"]["exported"]


async def test_who_can_sign(up: Up) -> None:
    # It is made once, in the data folder.
    secret = json.loads((up.data / "secrets.json").read_text())["signing_key"]
    holding = {
        name for name in ("projections", "worker", "gateway") if secret in "".join(up.child(name).environ().values())
    }
    assert holding == {"projections"}
