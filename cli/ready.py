"""Whether the service in this container is ready: `python -m cli.ready`, a container's health check.

The port is the service's own, as its environment says. Needs the standard library only, since it runs every few
seconds.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping

_ANSWER_S = 5.0


def port(environment: Mapping[str, str] = os.environ) -> int:
    """Where the service answers probes: ``PARLEY_HEALTH_PORT`` of workers and projections, else ``PARLEY_PORT``."""
    return int(environment.get("PARLEY_HEALTH_PORT") or 0) or int(environment.get("PARLEY_PORT") or 8000)


def reasons() -> dict[str, str]:
    """Name → why the service is not ready; empty when it is."""
    url = f"http://127.0.0.1:{port()}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=_ANSWER_S) as answer:
            said = json.load(answer)
    except urllib.error.HTTPError as refused:
        said = json.load(refused)
    except (OSError, ValueError) as error:
        return {"service": f"{url} does not answer: {error}"}
    not_ready: dict[str, str] = said["not_ready"]
    return not_ready


if __name__ == "__main__":
    found = reasons()
    for name, why in found.items():
        print(f"{name}: {why}")
    raise SystemExit(1 if found else 0)
