"""Which tests `pytest -n` keeps together: those that share a running Parley, so that it starts once.

The marks of `--dist=loadgroup` do not arrive with pytest 9.2 (pytest-xdist 3.8.0 adds them to a field that is no longer
read), so the groups stand here. All other tests go wherever there is room.
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

GROUPS = {
    "tests/e2e/test_api_": "api",
    "tests/e2e/test_embeddings_door.py": "api",
    "tests/e2e/test_on_pulsar.py": "pulsar",
    "tests/integration/test_pulsar_bus.py": "pulsar",
    "tests/chaos/test_kill_everything.py": "kill everything",
    "tests/chaos/test_outages.py": "outages",
    "tests/chaos/test_unreadable_messages.py": "outages",
}
"""How the names of test modules begin → what they share."""


class SharedServers(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist comes without types
    """Groups go out first, the largest one first of all."""

    def _split_scope(self, nodeid: str) -> str:
        if "[pulsar" in nodeid:
            return "pulsar"  # its broker takes longest of all to start
        return next((group for beginning, group in GROUPS.items() if nodeid.startswith(beginning)), nodeid)
