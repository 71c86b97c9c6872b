"""The floor for Python: as little ctypes on libca as learns of put-callback, Busy and Done, then an ophyd Status.

It waits for the same evidence as BusyFlyer, and judges nothing: no loss, no refusal, no other client, no deadline.
It has a context of its own, so no lock of pyepics comes between.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Sequence

import ophyd  # noqa: F401 - before epics: it chooses the libca that pyepics loads

# isort: split
from bluesky.protocols import Status
from epics import ca
from ophyd.status import Status as OphydStatus

from busy_callback_flyer.tools.ways import CONNECT_TIMEOUT, pyepics_in_words

from ..conditions import monitor_by_pyepics

NORMAL, CONNECTED, VALUE, ENUM, TIME_ENUM = 1, 6, 1, 3, 17
"""ECA_NORMAL, CA_OP_CONN_UP, DBE_VALUE, DBR_ENUM, DBR_TIME_ENUM."""

EPICS_EPOCH = 631152000


class EventArgs(ctypes.Structure):
    _fields_ = (
        ("usr", ctypes.c_void_p),
        ("chid", ctypes.c_void_p),
        ("type", ctypes.c_long),
        ("count", ctypes.c_long),
        ("dbr", ctypes.c_void_p),
        ("status", ctypes.c_int),
    )


class ConnectionArgs(ctypes.Structure):
    _fields_ = (("chid", ctypes.c_void_p), ("op", ctypes.c_long))


class TimeEnum(ctypes.Structure):
    _fields_ = (
        ("status", ctypes.c_int16),
        ("severity", ctypes.c_int16),
        ("seconds", ctypes.c_uint32),
        ("nanoseconds", ctypes.c_uint32),
        ("padding", ctypes.c_int16),
        ("value", ctypes.c_uint16),
    )


EventHandler = ctypes.CFUNCTYPE(None, EventArgs)
ConnectionHandler = ctypes.CFUNCTYPE(None, ConnectionArgs)


class Peer:
    """By the two handlers; the one that comes last finishes the status."""

    def __init__(self, pv: str) -> None:
        self.client = f"ctypes on the library of {pyepics_in_words()}"
        if ca.libca is None:
            ca.initialize_libca()
        self._lib = lib = ctypes.CDLL(ca.libca._name)  # a handle of its own: types set on that of pyepics break it
        lib.ca_current_context.restype = ctypes.c_void_p
        lib.ca_attach_context.argtypes = (ctypes.c_void_p,)
        lib.ca_create_channel.argtypes = (
            *(ctypes.c_char_p, ConnectionHandler, ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p),
        )
        lib.ca_create_subscription.argtypes = (
            *(ctypes.c_long, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_long),
            *(EventHandler, ctypes.c_void_p, ctypes.c_void_p),
        )
        lib.ca_array_put_callback.argtypes = (
            *(ctypes.c_long, ctypes.c_ulong, ctypes.c_void_p, ctypes.c_void_p, EventHandler, ctypes.c_void_p),
        )
        self._status = OphydStatus()
        self._busy = self._done = self._served = False
        self._busy_stamp = (0, 0)
        self._event_at = 0.0
        self._connections = threading.Semaphore(0)
        # They live as long as we do: libca keeps no reference.
        self._handlers = ConnectionHandler(self._connected), EventHandler(self._event), EventHandler(self._put_back)
        self._one = ctypes.c_uint16(1)
        self._monitored, self._put = ctypes.c_void_p(), ctypes.c_void_p()
        self._subscription = ctypes.c_void_p()

        theirs = lib.ca_current_context()
        lib.ca_detach_context()
        lib.ca_context_create(1)  # preemptive: handlers run in the circuit's thread
        self._context = lib.ca_current_context()
        for channel in (self._monitored, self._put):
            lib.ca_create_channel(pv.encode(), self._handlers[0], None, 0, ctypes.byref(channel))
        lib.ca_flush_io()
        for _ in range(2):
            if not self._connections.acquire(timeout=CONNECT_TIMEOUT):
                raise TimeoutError(f"{pv} did not connect within {CONNECT_TIMEOUT:g} s")
        lib.ca_create_subscription(
            TIME_ENUM, 1, self._monitored, VALUE, self._handlers[1], None, ctypes.byref(self._subscription)
        )
        lib.ca_flush_io()
        lib.ca_detach_context()
        if theirs is not None:
            lib.ca_attach_context(theirs)

    def kickoff(self) -> Status:
        """Put with callback, from the RunEngine's thread, which nothing else attaches."""
        lib = self._lib
        if lib.ca_current_context() != self._context:
            lib.ca_detach_context()
            lib.ca_attach_context(self._context)
        self._busy = self._done = self._served = False
        self._busy_stamp = (0, 0)
        status: Status = OphydStatus()
        self._status = status
        lib.ca_array_put_callback(ENUM, 1, self._put, ctypes.byref(self._one), self._handlers[2], None)
        lib.ca_flush_io()
        return status

    def _connected(self, args: ConnectionArgs) -> None:
        if args.op == CONNECTED:
            ctypes.pythonapi.PyGILState_Ensure()  # the interpreter's state of libca's thread is kept
            self._connections.release()

    def _event(self, args: EventArgs) -> None:
        now = time.time()
        news = TimeEnum.from_address(args.dbr)
        if news.value:
            self._busy = True
            self._busy_stamp = news.seconds, news.nanoseconds
        elif self._busy:
            self._busy, self._done, self._event_at = False, True, now
            if self._served:
                self._status.set_finished()

    def _put_back(self, args: EventArgs) -> None:
        if args.status == NORMAL:
            self._served = True
            if self._done:
                self._status.set_finished()

    def marks(self) -> dict[str, float]:
        seconds, nanoseconds = self._busy_stamp
        return {"event": self._event_at, "busy_stamp": EPICS_EPOCH + seconds + 1e-9 * nanoseconds}

    def monitor(self, pvs: Sequence[str], hears: Callable[[], None]) -> None:
        monitor_by_pyepics(pvs, hears)
