"""A Tiled server and a 0MQ proxy, for whoever has the extra `test-all`."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from busy_callback_flyer.tools.tiled_server import TiledServer

# Tiled reads it as it is imported.
os.environ.setdefault("TILED_RETRY_TIMEOUT", "2")  # seconds that a client waits for a server that is gone; 45


def free_ports(count: int) -> list[int]:
    """TCP ports on loopback that nobody uses now, each another."""
    with contextlib.ExitStack() as stack:
        ones = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in ones:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in ones]


def proxy_command(to: str, of: str) -> list[str]:
    """That starts a proxy between two addresses."""
    command = str(Path(sys.executable).with_name("bluesky-0MQ-proxy"))
    usage = subprocess.run([command, "--help"], capture_output=True, text=True, timeout=60).stdout
    if "--in-address" not in usage:
        pytest.skip("the proxy of this bluesky takes ports alone, and would listen outside loopback")
    return [command, "--in-address", f"tcp://{to}", "--out-address", f"tcp://{of}"]


@pytest.fixture(scope="module")
def proxy() -> Iterator[tuple[str, str]]:
    """Where one publishes to, and where one listens."""
    to, of = (f"127.0.0.1:{port}" for port in free_ports(2))
    with subprocess.Popen(proxy_command(to, of), stdout=subprocess.DEVNULL) as process:
        yield to, of
        process.kill()


@pytest.fixture(scope="session")
def tiled_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TiledServer]:
    """Each test leaves it running."""
    with TiledServer(tmp_path_factory.mktemp("tiled")) as server:
        yield server
