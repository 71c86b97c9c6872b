"""Check of a running IOC: does its record type busy behave like a busy record?

The check is a Channel Access client in a process of its own, because the IOC's
must not be one. That process runs this file as a script, with nothing but the
standard library, so that it is quick to start.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, byref, c_char_p, c_double, c_int, c_long, c_short, c_uint, c_ulong, c_void_p

__all__ = ["SELF_CHECK_PREFIX", "SelfCheck"]

SELF_CHECK_PREFIX = "busy_callback_flyer:self_check:"

PATIENCE = 5.0  # seconds for anything that has to come
CONNECT_PATIENCE = 15.0  # a busy machine answers searches late, and they are repeated ever more seldom

# cadef.h, caerr.h, db_access.h
ECA_NORMAL = 1
CA_OP_CONN_UP = 6
DBR_SHORT = 1
DBR_DOUBLE = 6
DBE_VALUE = 1


class SelfCheck:
    """A check, ready to begin. Made before the IOC starts, because a process takes a while to come up.

    Parameters
    ----------
    libca : str
        Path of the Channel Access library. It finds the IOC by the EPICS_CA_... settings of this process.
    """

    def __init__(self, libca: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, libca],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": ""},  # so that libca can start no repeater of its own
        )

    def begin(self) -> None:
        """The IOC is running: check it."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # faults() tells if it is gone
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()

    def faults(self) -> list[str]:
        """Wait for the end; what busy does wrong, in words. Nothing if all is well."""
        try:
            output, _ = self._process.communicate(timeout=10 * PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            return [f"the check itself did not end in {10 * PATIENCE:.0f} s"]
        try:
            return [str(fault) for fault in json.loads(output.splitlines()[-1])]
        except (IndexError, ValueError, TypeError):
            said = output.decode(errors="replace").strip()[-1000:]
            return [f"the check itself failed (exit status {self._process.returncode}): {said}"]


def die_with_parent() -> None:
    """Ask the system to end this process when the one that started it ends (Linux)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, c_ulong(signal.SIGKILL), c_ulong(0), c_ulong(0), c_ulong(0))


class _EventArguments(ctypes.Structure):
    """``struct event_handler_args`` (cadef.h)."""

    _fields_ = (
        ("usr", c_void_p),
        ("chid", c_void_p),
        ("type", c_long),
        ("count", c_long),
        ("dbr", c_void_p),
        ("status", c_int),
    )


class _ConnectionArguments(ctypes.Structure):
    """``struct connection_handler_args`` (cadef.h)."""

    _fields_ = (("chid", c_void_p), ("op", c_long))


_OnEvent = CFUNCTYPE(None, _EventArguments)
_OnConnection = CFUNCTYPE(None, _ConnectionArguments)


class Client:
    """The little of libca that the check needs. Callbacks come in libca's threads."""

    def __init__(self, libca: str) -> None:
        self._ca = ca = ctypes.CDLL(libca)
        ca.ca_create_channel.argtypes = (c_char_p, _OnConnection, c_void_p, c_uint, POINTER(c_void_p))
        ca.ca_create_subscription.argtypes = (
            *(c_long, c_ulong, c_void_p, c_long, _OnEvent),
            *(c_void_p, POINTER(c_void_p)),
        )
        ca.ca_array_put_callback.argtypes = (c_long, c_ulong, c_void_p, c_void_p, _OnEvent, c_void_p)
        ca.ca_array_put.argtypes = (c_long, c_ulong, c_void_p, c_void_p)
        ca.ca_array_get_callback.argtypes = (c_long, c_ulong, c_void_p, _OnEvent, c_void_p)
        self._keep: list[object] = []
        self._expect(ca.ca_context_create(1))  # preemptive callbacks

    def _expect(self, status: int) -> None:
        if status != ECA_NORMAL:
            raise OSError(f"libca answered with status {status}")

    def _kept(self, callback: object) -> object:
        self._keep.append(callback)
        return callback

    def channel(self, name: str) -> tuple[c_void_p, threading.Event]:
        channel, connected = c_void_p(), threading.Event()

        def on_connection(arguments: _ConnectionArguments) -> None:
            if arguments.op == CA_OP_CONN_UP:
                connected.set()

        callback = self._kept(_OnConnection(on_connection))
        self._expect(self._ca.ca_create_channel(name.encode(), callback, None, 0, byref(channel)))
        self._ca.ca_flush_io()
        return channel, connected

    def subscribe(self, channel: c_void_p, told: Callable[[int], None]) -> None:
        def on_event(arguments: _EventArguments) -> None:
            if arguments.status == ECA_NORMAL:
                told(c_short.from_address(arguments.dbr).value)

        callback, identity = self._kept(_OnEvent(on_event)), c_void_p()
        self._expect(self._ca.ca_create_subscription(DBR_SHORT, 1, channel, DBE_VALUE, callback, None, byref(identity)))
        self._ca.ca_flush_io()

    def put(self, channel: c_void_p, value: int) -> None:
        self._expect(self._ca.ca_array_put(DBR_SHORT, 1, channel, byref(c_short(value))))
        self._ca.ca_flush_io()

    def put_callback(self, channel: c_void_p, value: int) -> threading.Event:
        returned = threading.Event()
        callback = self._kept(_OnEvent(lambda arguments: returned.set()))
        self._expect(self._ca.ca_array_put_callback(DBR_SHORT, 1, channel, byref(c_short(value)), callback, None))
        self._ca.ca_flush_io()
        return returned

    def get(self, channel: c_void_p) -> float:
        answered, values = threading.Event(), []

        def on_event(arguments: _EventArguments) -> None:
            if arguments.status == ECA_NORMAL:
                values.append(c_double.from_address(arguments.dbr).value)
            answered.set()

        callback = self._kept(_OnEvent(on_event))
        self._expect(self._ca.ca_array_get_callback(DBR_DOUBLE, 1, channel, callback, None))
        self._ca.ca_flush_io()
        answered.wait(PATIENCE)
        return values[0] if values else float("nan")


def check(client: Client) -> list[str]:
    """Fly the IOC's own busy record once, and say what was wrong."""
    busy, connected = client.channel(SELF_CHECK_PREFIX + "busy")
    forward_count, count_connected = client.channel(SELF_CHECK_PREFIX + "forward_count")
    fence, fence_connected = client.channel(SELF_CHECK_PREFIX + "fence")
    if not all(event.wait(CONNECT_PATIENCE) for event in (connected, count_connected, fence_connected)):
        return ["it cannot be reached by Channel Access"]

    seen = {0: threading.Event(), 1: threading.Event()}
    subscribed = threading.Event()

    def told(value: int) -> None:
        if subscribed.is_set() and value in seen:
            seen[value].set()
        subscribed.set()  # the first event is the subscription's own

    client.subscribe(busy, told)
    if not subscribed.wait(PATIENCE):
        return ["a subscription brought no event"]

    faults = []

    def require(behaviour: bool, fault: str) -> None:
        if not behaviour:
            faults.append(fault)

    before = client.get(forward_count)
    returned = client.put_callback(busy, 1)
    require(seen[1].wait(PATIENCE), "no event came when it went Busy")
    # put-callbacks that complete come back in their order: one that was early is here before the fence
    require(client.put_callback(fence, 1).wait(PATIENCE), "a put-callback of another record did not return")
    require(not returned.is_set(), "a put-callback returned while it was Busy")
    while_busy = client.get(forward_count)
    require(while_busy == before, "FLNK ran while it was Busy")
    client.put(busy, 0)
    require(seen[0].wait(PATIENCE), "no event came when it was Done")
    require(returned.wait(PATIENCE), "a put-callback did not return when it was Done")
    require(client.get(forward_count) == while_busy + 1, "FLNK did not run once when it was Done")
    return faults


def main() -> None:
    """The process of the check."""
    die_with_parent()
    client = Client(sys.argv[1])
    if sys.stdin.readline():
        print(json.dumps(check(client)), flush=True)
    os._exit(0)  # nothing in libca needs an orderly end


if __name__ == "__main__":
    main()
