"""Downloading a model with the hub's real client, from a local server that speaks the hub's protocol."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

REPO = "someone/models"
FILES = {"tiny-Q4_K_M.gguf": b"GGUF" + bytes(range(256)) * 4096, "tiny-Q8_0.gguf": b"GGUF eight", "README.md": b"hello"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"

DOWNLOAD = """
import json, sys
from pathlib import Path
from workers.inference.hub import download
told = []
path = download(sys.argv[1], sys.argv[2] or None, Path(sys.argv[3]), lambda what, share: told.append(share))
print(json.dumps({"path": str(path), "told": told}))
"""


class Hub(BaseHTTPRequestHandler):
    """https://huggingface.co/docs/hub/api, as far as listing and downloading need it."""

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        path = self.path.partition("?")[0]
        name = path.rsplit("/", 1)[-1]
        if path.startswith(f"/api/models/{REPO}"):
            listing = {"id": REPO, "sha": COMMIT, "siblings": [{"rfilename": file} for file in FILES]}
            tree = [{"type": "file", "oid": "0", "size": len(FILES[file]), "path": file} for file in FILES]
            self._send(json.dumps(tree if "/tree/" in path else listing).encode(), "application/json", body)
        elif path.startswith(f"/{REPO}/resolve/") and name in FILES:
            self._send(FILES[name], "application/octet-stream", body)
        else:
            self.send_error(404)

    def _send(self, content: bytes, kind: str, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def download(hub: str, pattern: str, folder: Path, repo: str = REPO) -> subprocess.CompletedProcess[str]:
    # The client reads its settings when it is imported, so each download has a process of its own.
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    return subprocess.run(
        [sys.executable, "-c", DOWNLOAD, repo, pattern, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_wildcard_finds_the_file_and_its_progress_is_told(hub: str, tmp_path: Path) -> None:
    result = download(hub, "*Q4_K_M*", tmp_path)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert Path(found["path"]).read_bytes() == FILES["tiny-Q4_K_M.gguf"]
    assert found["told"]
    assert found["told"] == sorted(found["told"])
    assert found["told"][-1] == 1


def test_what_was_downloaded_is_used_without_asking_again(hub: str, tmp_path: Path) -> None:
    first = download(hub, "tiny-Q8_0.gguf", tmp_path)
    assert first.returncode == 0, first.stderr
    again = download("http://127.0.0.1:9", "tiny-Q8_0.gguf", tmp_path)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["path"] == json.loads(first.stdout.splitlines()[-1])["path"]


@pytest.mark.parametrize(
    ("pattern", "repo", "says"),
    [
        ("*.gguf", REPO, "tiny-Q4_K_M.gguf"),
        ("*.none", REPO, "*.none"),
        ("*.gguf", "someone/else", "someone/else"),
    ],
    ids=["several match", "none matches", "no such repository"],
)
def test_what_cannot_be_chosen_or_found_is_named(hub: str, tmp_path: Path, pattern: str, repo: str, says: str) -> None:
    result = download(hub, pattern, tmp_path, repo)
    assert result.returncode != 0
    assert says in result.stderr.splitlines()[-1]
