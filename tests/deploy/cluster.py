"""As much of Kubernetes' API as Helm asks of while it renders: versions, kinds, and the Secrets that are there."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.deploy.manifests import KUBERNETES

Secrets = Mapping[str, Mapping[str, str]]


@contextmanager
def cluster(secrets: Secrets) -> Iterator[str]:
    """The address of an API that has these Secrets, name → key → value, in the namespace ``parley``."""

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            name = path.removeprefix("/api/v1/namespaces/parley/secrets/")
            if path == "/version":
                major, minor, _ = KUBERNETES.split(".")
                self._answer({"major": major, "minor": minor, "gitVersion": f"v{KUBERNETES}"})
            elif path == "/api":
                self._answer({"kind": "APIVersions", "versions": ["v1"]})
            elif path == "/apis":
                self._answer({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})
            elif path == "/api/v1":
                secret = {"name": "secrets", "singularName": "secret", "namespaced": True, "kind": "Secret"}
                resources = [{**secret, "verbs": ["get", "list"]}]
                self._answer({"kind": "APIResourceList", "groupVersion": "v1", "resources": resources})
            elif name in secrets:
                data = {key: base64.b64encode(value.encode()).decode() for key, value in secrets[name].items()}
                metadata = {"name": name, "namespace": "parley"}
                self._answer({"kind": "Secret", "apiVersion": "v1", "metadata": metadata, "data": data})
            else:
                self._answer({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound"}, 404)

        def _answer(self, body: object, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        serving.join()
        server.server_close()
