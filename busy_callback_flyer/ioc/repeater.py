"""A Channel Access repeater for the clients of one embedded IOC, on loopback.

libca looks for a repeater when it starts; finding none it tries to start the
program caRepeater, prints warnings where there is none, and that program
listens on all interfaces. So the embedded IOC brings its own.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading

__all__ = ["LOOPBACK", "Repeater", "is_free", "random_ports"]

LOOPBACK = "127.0.0.1"
PORTS = range(20000, 32768)  # below the ports that systems hand out by themselves

# commands of the Channel Access protocol
IS_UP = 13
CONFIRM = 17
REGISTER = 24
HEADER = struct.Struct("!HHHHI4s")  # command, payload, type, count, parameter, available (an address here)

_ports = random.SystemRandom()  # a seed set by the user must not make two processes collide


def random_ports(count: int) -> list[int]:
    """Port numbers to try."""
    return _ports.sample(PORTS, count)


def is_free(port: int) -> bool:
    """Whether nobody on loopback uses the port, neither TCP nor UDP."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections don't count
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                return False
    return True


class Repeater:
    """Confirms the clients that register, and passes the IOC's beacons on to them.

    It runs from construction to `close`, in a daemon thread.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for port in random_ports(100):
            with contextlib.suppress(OSError):
                self._socket.bind((LOOPBACK, port))
                break
        self.port: int = self._socket.getsockname()[1]
        self._clients: set[int] = set()
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="ca-repeater", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop and give the port back."""
        self._closing = True
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", (LOOPBACK, self.port))
        self._thread.join(1)
        self._socket.close()

    def _serve(self) -> None:
        while not self._closing:
            try:
                message, (host, port) = self._socket.recvfrom(4096)
            except OSError:  # closed, or a client's port refused the last beacon
                continue
            if self._closing:
                return
            # libca on Linux registers with an empty message, ten seconds after it started
            command = HEADER.unpack_from(message)[0] if len(message) >= HEADER.size else REGISTER
            if command == REGISTER and host == LOOPBACK:
                self._clients = {client for client in self._clients if _in_use(client)} | {port}
                self._send(HEADER.pack(CONFIRM, 0, 0, 0, 0, socket.inet_aton(host)), port)
            elif command == IS_UP:
                self._pass_on(message, host, port)

    def _pass_on(self, beacon: bytes, host: str, sender: int) -> None:
        *head, address = HEADER.unpack_from(beacon)
        if not any(address):  # the IOC leaves it to us to say where it is
            beacon = HEADER.pack(*head, socket.inet_aton(host))
        for client in self._clients - {sender}:
            self._send(beacon, client)

    def _send(self, message: bytes, port: int) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendto(message, (LOOPBACK, port))


def _in_use(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return True
    return False
