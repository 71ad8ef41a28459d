"""`parley up` as a person uses it: started, talked to, killed, stopped, started again."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import ROLES, TestDatabase, ValkeyServer
from tests.e2e.running import DEADLINE_S, Up, until

ANSWER = "the rain falls on a quiet"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    made = Up(tmp_path)
    yield made
    made.end()


def pasted(up: Up, heading: str) -> str:
    """The line that is printed under ``heading``, run by a shell as it stands."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    lines = up.output.splitlines()
    line = lines[lines.index(heading) + 1]
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=DEADLINE_S, check=True).stdout


def test_the_printed_lines_work_and_data_stay(up: Up) -> None:
    up.start()
    up.ready()
    key = (up.data / "admin.key").read_text().strip()
    assert f"  {key}\n" in up.output
    assert (up.data / "admin.key").stat().st_mode & 0o777 == 0o600
    accepted: dict[str, Any] = json.loads(pasted(up, "Send a prompt:"))
    assert accepted["status"] == "queued"
    streamed = pasted(up, "Send a prompt and stream its answer:")
    assert "event: token\n" in streamed
    assert "event: completed\n" in streamed
    assert up.stop() == 0
    assert up.output.endswith("stopping\nstopped; all data are kept\n")

    up.start()
    up.ready()
    assert key not in up.output
    until(lambda: up.get(accepted["generation_url"]).json()["status"] == "completed", "the generation did not end")
    (conversation,) = [
        one for one in up.get("/v1/conversations").json()["conversations"] if one["id"] == accepted["conversation_id"]
    ]
    messages = up.get(f"/v1/conversations/{conversation['id']}").json()["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"]
    assert messages[1]["content"].startswith(ANSWER)


def test_operators_commands_beside_a_running_parley(up: Up) -> None:
    up.start()
    up.ready()
    assert up.parley("chat", "Why?").startswith(ANSWER)
    assert up.parley("chat", "-c", "And?").startswith(ANSWER)
    up.parley("doctor")
    tenant_id = up.parley("tenant", "create", "acme").strip()
    key = up.parley("key", "issue", "--tenant", "acme", "--role", "member", "--user", "ada").strip()
    assert up.get("/v1/conversations", key).json()["conversations"] == []
    up.parley("chat", "Hello", PARLEY_API_KEY=key)
    # What it said has ended; that it is a conversation, the read model hears a moment later.
    until(lambda: len(up.get("/v1/conversations", key).json()["conversations"]) == 1, "there is no conversation")
    up.parley("key", "revoke", key.rsplit("_", 1)[0])
    until(lambda: up.get("/v1/conversations", key).status_code == 401, "the revoked key still works")
    assert "no tenant 'nobody'" in up.parley("key", "issue", "--tenant", "nobody", code=1)
    assert "there is a tenant 'acme' already" in up.parley("tenant", "create", "acme", code=1)
    assert up.parley("key", "issue", "--tenant", tenant_id).startswith("parley_")
    assert up.parley("dlq", "list") == ""
    assert "equals the record" in up.parley("rebuild", "all", "--check")
    assert up.parley("rebuild", "messages").startswith("messages: rebuilt from ")
    assert f"another Parley (pid {up.process.pid if up.process else 0})" in up.parley("up", code=1)


def test_children_that_die_come_back(up: Up) -> None:
    up.start()
    up.ready()
    for wanted, name in (("bin/postgres", "postgres"), ("valkey", "valkey"), ("worker", "worker-local")):
        up.child(wanted).kill()
        until(lambda name=name: f"{name} works again" in up.output, f"{name} did not come back")  # type: ignore[misc]
        assert f"{name} was killed by SIGKILL; starting it again in 0.5 s (log: {up.data}/logs/" in up.output
    assert up.parley("chat", "Still there?").startswith(ANSWER)


def test_a_killed_supervisor_leaves_nothing_in_the_way(up: Up) -> None:
    up.start()
    up.ready()
    assert up.process is not None
    up.process.kill()
    up.process.wait()
    up.start()
    up.ready()
    assert up.parley("chat", "After").startswith(ANSWER)
    valkeys = [
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if "valkey" in (process.info["name"] or "") and str(up.data) in " ".join(process.info["cmdline"] or ())
    ]
    assert len(valkeys) <= 1


def test_a_taken_port_is_said_before_anything_starts(up: Up) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", up.port))
        taken.listen()
        said = up.parley("up", code=78)
    assert said.startswith(f"parley: port {up.port} on 127.0.0.1 is taken by ")
    assert "PARLEY_PORT" in said
    assert not (up.data / "postgres").exists()


def test_a_model_that_is_not_there_ends_up(up: Up) -> None:
    up.environment |= {"PARLEY_POOLS": '{"local": {"backend": "xllamacpp"}}', "LLM_MODEL_FILE": "gone.gguf"}
    said = up.parley("up", code=78)
    assert "gone.gguf: not there" in said


def test_where_urls_name_servers_only_services_start(
    up: Up, database: TestDatabase, valkey_server: ValkeyServer
) -> None:
    up.environment |= {"PARLEY_POSTGRES__URL": database.owner_url, "PARLEY_REDIS__URL": valkey_server.url}
    # With passwords of their own: these roles are shared with other tests.
    up.environment |= {f"PARLEY_POSTGRES__ROLE_URLS__{role.upper()}": database.role_url(role) for role in ROLES}
    up.start()
    up.ready()
    assert up.parley("chat", "Why?").startswith(ANSWER)
    assert "starting postgres" not in up.output
    assert "starting valkey" not in up.output
    assert not (up.data / "postgres").exists()
    up.parley("doctor")
    assert up.stop() == 0


def test_operators_commands_without_a_running_parley(up: Up) -> None:
    assert up.parley("migrate").startswith("migrated from nothing to ")
    assert up.parley("migrate").endswith(": nothing to do\n")
    up.parley("tenant", "create", "acme")
    assert up.parley("key", "issue", "--tenant", "acme").startswith("parley_")
    up.parley("doctor")
