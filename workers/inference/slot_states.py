"""What an engine has read, put into files and taken out of them, slot by slot."""

from __future__ import annotations

import logging
import secrets
from pathlib import Path

from prometheus_client import Counter

from workers.inference.engine_socket import EngineSocket
from workers.inference.port import BackendError

logger = logging.getLogger(__name__)

outcomes = Counter(
    "parley_worker_suspended_states_total",
    "States of suspended conversations: saved, failed (not saved), dropped (for room), restored, refused (read anew)",
    ["outcome"],
)


class SlotStates:
    """llama.cpp's own files, in ``folder``, by its socket. Everything here blocks."""

    def __init__(self, socket: EngineSocket, folder: Path) -> None:
        self._socket = socket
        self._folder = folder

    def save(self, slot: int) -> Path | None:
        """A new file with what the slot holds, which then holds nothing; None: it held nothing.

        Raises BackendError.
        """
        file = self._folder / secrets.token_hex(16)
        try:
            saved = self._ask(slot, "save", file)["n_saved"] > 0
            self._ask(slot, "erase", file)
        except BackendError:
            file.unlink(missing_ok=True)
            raise
        if not saved:
            file.unlink()
        return file if saved else None

    def restore(self, slot: int, file: Path) -> bool:
        """Put what stands in ``file`` into the slot, and delete it. False: the engine does not take it."""
        try:
            restored = bool(self._ask(slot, "restore", file)["n_restored"] > 0)
        except BackendError as error:
            restored = False
            logger.warning("state not restored", extra={"action": "state_not_restored", "cause": str(error)})
        finally:
            file.unlink(missing_ok=True)
        outcomes.labels("restored" if restored else "refused").inc()
        return restored

    def _ask(self, slot: int, action: str, file: Path) -> dict[str, int]:
        return self._socket.ask(f"/slots/{slot}?action={action}", {"filename": file.name})
