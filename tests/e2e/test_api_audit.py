"""The record of a running Parley, signed, exported by an operator and verified with the public key alone."""

from __future__ import annotations

import json

import pytest

from backplane.security import proof
from backplane.security.checkpoint import Checkpoint
from tests.e2e.client import eventually
from tests.e2e.conftest import Callers
from tests.e2e.running import Up

pytestmark = pytest.mark.timeout(180)


async def test_what_an_operator_exports_verifies(callers: Callers, parley: Up) -> None:
    tenant = await callers.tenant()
    admin = await callers.caller(tenant, "admin")
    accepted = await admin.submit("hello", script={"count": 3})
    await admin.ended(accepted["generation_id"])
    signed = await eventually(lambda: admin.get("/v1/audit/checkpoints"), lambda page: page["checkpoints"] != [], 30)
    assert (await admin.get("/v1/audit/verify"))["verified"]
    key = parley.parley("audit", "key").strip()
    exported = parley.parley("audit", "export", "--tenant", str(tenant)).encode().splitlines(keepends=True)
    kept = parley.parley("audit", "checkpoints", "--tenant", str(tenant)).splitlines()
    published = [Checkpoint.parse(json.loads(line)) for line in kept]
    assert published[0] == Checkpoint.parse(signed["checkpoints"][0])
    found = proof.verify(exported, {key}, published)
    assert found.header.tenant_id == tenant
    assert (found.first, found.keys) == (1, frozenset({key}))
    assert found.published >= 1
    # The export itself is on the record.
    (read,) = await eventually(
        lambda: admin.events(type="audit.read.v1", actor="operator"), lambda found: len(found) == 1
    )
    assert read["data"]["exported"]


async def test_who_can_sign(parley: Up) -> None:
    secret = json.loads((parley.data / "secrets.json").read_text())["signing_key"]
    for service, can in (("projections", True), ("worker", False), ("gateway", False)):
        assert (secret in parley.child(f"cli.main {service}").environ().values()) is can, service
