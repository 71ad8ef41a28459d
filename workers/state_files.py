"""Where states of suspended conversations rest: sealed files in a folder of the pool, so many bytes of them at most.

A folder in it is this process's own, for what is plain, which stands there for a moment only. Who was killed has left
one behind; the next to start takes it away.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from backplane.security.content import DataKey
from backplane.security.sealed_file import open_file, seal_file, sealed_bytes

_OWN = "engine-"


class StateFiles:
    """Several processes may have the same ``folder``. Everything here blocks and raises OSError."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        folder.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for each in (folder.parent, folder):
            each.mkdir(mode=0o700, exist_ok=True)
            each.chmod(0o700)
        self._folder = folder
        self._most_bytes = most_bytes
        with _held(folder):
            for left in folder.glob(f"{_OWN}*"):
                _take_away(left)
            self.plain = Path(tempfile.mkdtemp(prefix=_OWN, dir=folder)).resolve()
            self._lock = os.open(self.plain, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def new_plain(self) -> Path:
        """A name that no other file has, in this process's own folder."""
        return self.plain / secrets.token_hex(16)

    def put(self, conversation_id: UUID, plain: Path, key: DataKey, about: bytes) -> int | None:
        """Seal ``plain`` and let it rest, in place of an older one; the oldest of others make room.

        Returns how many had to; None: it is too large, and is not kept.
        """
        wanted = sealed_bytes(plain.stat().st_size)
        if wanted > self._most_bytes:
            return None
        sealed = self.new_plain()
        try:
            seal_file(key, about, plain, sealed)
            self.drop(conversation_id)
            dropped = self._make_room(wanted)
            sealed.replace(self._folder / str(conversation_id))
        finally:
            sealed.unlink(missing_ok=True)
        return dropped

    def take(self, conversation_id: UUID) -> Path | None:
        """The sealed file of this conversation, from now on this process's own. None: there is none."""
        taken = self.new_plain()
        try:
            (self._folder / str(conversation_id)).replace(taken)
        except FileNotFoundError:
            return None
        return taken

    def open(self, taken: Path, key: DataKey, about: bytes) -> Path:
        """What a file that was taken holds, plain; the sealed one is gone. Raises CannotRead."""
        plain = taken.with_suffix(".plain")
        try:
            open_file(key, about, taken, plain)
        except BaseException:
            plain.unlink(missing_ok=True)
            raise
        finally:
            taken.unlink(missing_ok=True)
        return plain

    def drop(self, conversation_id: UUID) -> None:
        """Delete it, if it is there."""
        (self._folder / str(conversation_id)).unlink(missing_ok=True)

    def conversations(self) -> list[UUID]:
        """Those whose state rests here, the one that was put longest ago first."""
        resting = []
        for file in self._folder.iterdir():
            if not file.name.startswith(_OWN):
                try:
                    resting.append((file.stat().st_mtime_ns, UUID(file.name)))
                except (FileNotFoundError, ValueError):  # somebody else took it; no file of ours
                    continue
        return [conversation_id for _, conversation_id in sorted(resting)]

    def close(self) -> None:
        """Nothing plain is left."""
        shutil.rmtree(self.plain, ignore_errors=True)
        os.close(self._lock)

    def _make_room(self, wanted: int) -> int:
        sizes = {}
        for conversation_id in self.conversations():
            try:
                sizes[conversation_id] = (self._folder / str(conversation_id)).stat().st_size
            except FileNotFoundError:
                continue
        dropped, used = 0, sum(sizes.values())
        for conversation_id, size in sizes.items():
            if used + wanted <= self._most_bytes:
                break
            self.drop(conversation_id)
            dropped, used = dropped + 1, used - size
        return dropped


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # else one could take away what another has just made
        yield
    finally:
        os.close(descriptor)


def _take_away(left: Path) -> None:
    try:
        descriptor = os.open(left, os.O_RDONLY)
    except FileNotFoundError:  # its process did that
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(left, ignore_errors=True)
    except BlockingIOError:  # its process lives
        return
    finally:
        os.close(descriptor)
