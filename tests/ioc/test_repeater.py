"""The Channel Access repeater that the clients of an embedded IOC find."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from busy_callback_flyer.ioc.repeater import LOOPBACK, Repeater, is_free

from .client import PATIENCE

HEADER = struct.Struct("!HHHHI4s")
CONFIRM, REGISTER, IS_UP = 17, 24, 13
HERE = socket.inet_aton(LOOPBACK)


@pytest.fixture
def repeater() -> Iterator[Repeater]:
    repeater = Repeater()
    yield repeater
    repeater.close()


def udp() -> socket.socket:
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.bind((LOOPBACK, 0))
    sender.settimeout(PATIENCE)
    return sender


def test_it_takes_the_port_until_it_is_closed() -> None:
    repeater = Repeater()
    assert not is_free(repeater.port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as test_of_libca, pytest.raises(OSError, match="in use"):
        test_of_libca.bind(("", repeater.port))
    repeater.close()
    assert is_free(repeater.port)


@pytest.mark.parametrize("request_", [b"", HEADER.pack(REGISTER, 0, 0, 0, 0, HERE)], ids=["empty", "header"])
def test_it_confirms_a_registration(repeater: Repeater, request_: bytes) -> None:
    with udp() as client:
        client.sendto(request_, (LOOPBACK, repeater.port))
        assert client.recv(100) == HEADER.pack(CONFIRM, 0, 0, 0, 0, HERE)


def test_it_passes_beacons_on_to_the_clients_that_live(repeater: Repeater) -> None:
    with udp() as server, udp() as client:
        with udp() as dead:
            dead.sendto(b"", (LOOPBACK, repeater.port))
            dead.recv(100)
        client.sendto(b"", (LOOPBACK, repeater.port))
        client.recv(100)
        for number in range(3):
            server.sendto(HEADER.pack(IS_UP, 0, 13, 5064, number, bytes(4)), (LOOPBACK, repeater.port))
        for number in range(3):
            assert client.recv(100) == HEADER.pack(IS_UP, 0, 13, 5064, number, HERE)


def test_it_outlives_nonsense(repeater: Repeater) -> None:
    with udp() as client:
        for nonsense in (b"x", b"\xff" * 16, b"\0" * 1000):
            client.sendto(nonsense, (LOOPBACK, repeater.port))
        client.sendto(b"", (LOOPBACK, repeater.port))
        while client.recv(100) != HEADER.pack(CONFIRM, 0, 0, 0, 0, HERE):
            pass
