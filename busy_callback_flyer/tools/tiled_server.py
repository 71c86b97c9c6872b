"""A Tiled server in a process of its own, for the demo and for tests: on loopback, with a key.

It serves nobody else's data and is not meant to be kept: a facility runs its own.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .. import launch

__all__ = ["TiledServer"]

STOP_TIMEOUT = 5.0


class TiledServer:
    """Tiled's own `SimpleTiledServer`, on 127.0.0.1, a free port, with a random key.

    Parameters
    ----------
    directory : path, optional
        Where its data are kept; a temporary one by default.

    Attributes
    ----------
    uri : str
        For clients, with the key.
    pid : int

    Raises
    ------
    ModuleNotFoundError
        Tiled is not installed.
    RuntimeError
        It did not start; with what it said.
    """

    def __init__(self, directory: Path | None = None) -> None:
        if importlib.util.find_spec("tiled") is None:
            raise ModuleNotFoundError("No module named 'tiled'", name="tiled")
        command = [*launch.command(__name__), *([] if directory is None else [str(directory.absolute())])]
        with tempfile.TemporaryFile("w+") as complaints:  # a pipe that nobody reads would stop it when it is full
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
                cwd=os.sep,  # Tiled starts a Python of its own, which looks for modules here
                start_new_session=True,  # a Ctrl-C is not meant for it
            )
            assert self._process.stdout is not None
            self.uri = self._process.stdout.readline().strip()
            self.pid = self._process.pid
            if not self.uri:
                self._process.communicate()
                complaints.seek(0)
                raise RuntimeError(f"the Tiled server did not start: {complaints.read()}")

    def page(self, *path: str) -> str:
        """Address of an entry for a browser, with the key."""
        server, key = self.uri.split("/api/v1?")
        return f"{server}/ui/browse/{'/'.join(path)}?{key}"

    def __enter__(self) -> TiledServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it in order, or by force where that takes too long."""
        try:
            self._process.communicate(timeout=STOP_TIMEOUT)  # closes its stdin, on which it waits
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.communicate()


def _serve(directory: str | None) -> None:
    from tiled.server import SimpleTiledServer

    with SimpleTiledServer(directory) as server:
        print(server.uri, flush=True)
        sys.stdin.read()  # until who started it ends it, or is gone


if __name__ == "__main__":
    _serve(sys.argv[1] if len(sys.argv) > 1 else None)
