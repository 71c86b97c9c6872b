"""A flyer's own lines to its records, direct on the libca that pyepics loaded.

Each flyer has channels of its own, because a second put-callback on a channel where one is
pending blocks everything else of that IOC. Its handlers run in libca's own thread and
decode no more than is needed; what they call must not block and makes no blocking
Channel Access call.

What libca demands, and where it is met here:

* calls only from a thread that is attached to the channel's context (`_LibCA.attached`);
* a request made inside a callback is not sent before somebody flushes: each one does;
* a ctypes callback must outlive the last event: there are three, made once for the process,
  that find their channel by a number, so that a late event of a closed channel finds none;
* own argument types on an own handle: set on pyepics' handle they break its puts;
* everything is cleared before pyepics shuts libca down at exit.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import itertools
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import numpy as np
import ophyd  # noqa: F401 - before epics: it chooses the libca that pyepics loads

# isort: split
from epics import ca, dbr

from .flight import EPICS_EPOCH, Reading

logger = logging.getLogger(__name__)

_DTYPES: dict[int, np.dtype[Any]] = {
    dbr.SHORT: np.dtype(np.int16),
    dbr.FLOAT: np.dtype(np.float32),
    dbr.CHAR: np.dtype(np.uint8),
    dbr.LONG: np.dtype(np.int32),
    dbr.DOUBLE: np.dtype(np.float64),
}


class ArrayReading(NamedTuple):
    """An array as one answer of the IOC brought it."""

    values: np.ndarray
    """One-dimensional; its length is the record's NORD at the moment of the answer."""
    stamp: float
    """The IOC's time stamp, seconds of the POSIX epoch."""


class BusyListener(Protocol):
    """Who hears from a `BusyChannel`, in libca's thread."""

    def connected(self, reading: Reading) -> None:
        """The record is connected and found to be a binary; this is what it says."""

    def connection_lost(self) -> None:
        """The record is no longer connected."""

    def record_says(self, reading: Reading) -> None:
        """A monitor event came, other than the first of a subscription."""

    def unusable(self, problem: str) -> None:
        """The PV that connected can be no busy record."""


# libca, as little of it as is needed


class _EventArgs(ctypes.Structure):
    _fields_ = (
        ("usr", ctypes.c_void_p),
        ("chid", ctypes.c_void_p),
        ("type", ctypes.c_long),
        ("count", ctypes.c_long),
        ("dbr", ctypes.c_void_p),
        ("status", ctypes.c_int),
    )


class _ConnectionArgs(ctypes.Structure):
    _fields_ = (("chid", ctypes.c_void_p), ("op", ctypes.c_long))


class _Time(ctypes.Structure):
    """What the DBR_TIME structures have in common."""

    _fields_ = (
        ("status", ctypes.c_int16),
        ("severity", ctypes.c_int16),
        ("seconds", ctypes.c_uint32),
        ("nanoseconds", ctypes.c_uint32),
    )

    @property
    def stamp(self) -> float:
        return float(EPICS_EPOCH + self.seconds + 1e-9 * self.nanoseconds)


class _TimeEnum(_Time):
    _fields_ = (("padding", ctypes.c_int16), ("value", ctypes.c_uint16))  # type: ignore[assignment]


class _CtrlEnum(ctypes.Structure):
    """The head of dbr_ctrl_enum."""

    _fields_ = (("status", ctypes.c_int16), ("severity", ctypes.c_int16), ("strings", ctypes.c_int16))


_EventHandler = ctypes.CFUNCTYPE(None, _EventArgs)
_ConnectionHandler = ctypes.CFUNCTYPE(None, _ConnectionArgs)

_Answer = Callable[[_EventArgs], None]

_numbers = itertools.count(1)  # libca hands them back to us; 0 would come back as None
_channels: weakref.WeakValueDictionary[int, _Channel] = weakref.WeakValueDictionary()
_answers: dict[int, _Answer] = {}  # to requests under way


@_ConnectionHandler
def _on_connection(args: _ConnectionArgs) -> None:
    try:
        channel = _channels.get(_libca().ca_puser(args.chid))
        if channel is not None:
            channel._connection_changed(args.op == dbr.OP_CONN_UP)
    except Exception:
        logger.exception("a connection handler failed")


@_EventHandler
def _on_event(args: _EventArgs) -> None:
    try:
        channel = _channels.get(args.usr)
        if isinstance(channel, BusyChannel) and args.status == dbr.ECA_NORMAL and args.dbr:
            channel._event(_TimeEnum.from_address(args.dbr))
    except Exception:
        logger.exception("a monitor handler failed")


@_EventHandler
def _on_answer(args: _EventArgs) -> None:
    try:
        answer = _answers.pop(args.usr, None)
        if answer is not None:
            answer(args)
    except Exception:
        logger.exception("the handler of an answer failed")


@functools.cache
def _libca() -> Any:
    """An own handle of the library that pyepics loaded, with argument types."""
    if ca.libca is None:
        ca.initialize_libca()
    lib = ctypes.CDLL(ca.libca._name)
    chid, handle, number = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p
    dbr_type, count = ctypes.c_long, ctypes.c_ulong
    prototypes: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "ca_current_context": (ctypes.c_void_p, ()),
        "ca_attach_context": (ctypes.c_int, (ctypes.c_void_p,)),
        "ca_detach_context": (None, ()),
        "ca_create_channel": (
            ctypes.c_int,
            (ctypes.c_char_p, _ConnectionHandler, number, ctypes.c_uint, ctypes.POINTER(chid)),
        ),
        "ca_clear_channel": (ctypes.c_int, (chid,)),
        "ca_puser": (ctypes.c_void_p, (chid,)),
        "ca_field_type": (ctypes.c_short, (chid,)),
        "ca_element_count": (ctypes.c_ulong, (chid,)),
        "ca_create_subscription": (
            ctypes.c_int,
            (dbr_type, count, chid, ctypes.c_long, _EventHandler, number, ctypes.POINTER(handle)),
        ),
        "ca_clear_subscription": (ctypes.c_int, (handle,)),
        "ca_array_put": (ctypes.c_int, (dbr_type, count, chid, ctypes.c_void_p)),
        "ca_array_put_callback": (
            ctypes.c_int,
            (dbr_type, count, chid, ctypes.c_void_p, _EventHandler, number),
        ),
        "ca_array_get_callback": (ctypes.c_int, (dbr_type, count, chid, _EventHandler, number)),
        "ca_flush_io": (ctypes.c_int, ()),
        "ca_message": (ctypes.c_char_p, (ctypes.c_long,)),
    }
    for name, (result, arguments) in prototypes.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    # Registered after pyepics registered its own, so it runs before.
    atexit.register(_close_all)
    return lib


@contextmanager
def _attached() -> Iterator[Any]:
    """libca, with the calling thread attached to the context that pyepics made first."""
    lib, ours = _libca(), ca.initial_context
    current = lib.ca_current_context()
    if current == ours:
        yield lib
        return
    if current is not None:
        lib.ca_detach_context()
    _must(lib.ca_attach_context(ours), "attach a thread to Channel Access")
    try:
        yield lib
    finally:
        lib.ca_detach_context()
        if current is not None:
            lib.ca_attach_context(current)


def status_text(status: int) -> str:
    """What libca says of one of its status codes."""
    text: bytes = _libca().ca_message(status)
    return text.decode(errors="replace")


def _must(status: int, what: str) -> None:
    if status != dbr.ECA_NORMAL:
        raise RuntimeError(f"could not {what}: {status_text(status)}")


def _close_all() -> None:
    for channel in list(_channels.values()):
        channel.close()


# Channels


class _Channel:
    """A Channel Access channel of our own."""

    def __init__(self, pv: str) -> None:
        self.pv = pv
        self.problem: str | None = None
        self._number = next(_numbers)
        self._chid = ctypes.c_void_p()
        self._ready = threading.Event()
        _channels[self._number] = self
        with _attached() as lib:
            _must(
                lib.ca_create_channel(pv.encode(), _on_connection, self._number, 0, ctypes.byref(self._chid)),
                f"create a channel to {pv}",
            )
            self._finalizer = weakref.finalize(self, _release, self._number, self._chid)
            self._finalizer.atexit = False  # _close_all does it, before pyepics' own
            lib.ca_flush_io()

    @property
    def ready(self) -> bool:
        """Whether it is connected and its type was looked at: `problem` says whether it is of use."""
        return self._ready.is_set()

    def wait_ready(self, timeout: float | None) -> bool:
        """Wait until it is ready."""
        return self._ready.wait(timeout)

    def close(self) -> None:
        """Release the channel; no handler is called afterwards."""
        self._finalizer()
        self._ready.clear()

    def _connection_changed(self, up: bool) -> None:
        raise NotImplementedError

    def _get(self, dbr_type: int, count: int, answer: _Answer) -> int:
        """Ask; `answer` is called in libca's thread. Returns the status of the asking."""
        number = next(_numbers)
        _answers[number] = answer
        with _attached() as lib:
            status = lib.ca_array_get_callback(dbr_type, count, self._chid, _on_answer, number)
            lib.ca_flush_io()
        if status != dbr.ECA_NORMAL:
            _answers.pop(number, None)
        return int(status)


def _release(number: int, chid: ctypes.c_void_p) -> None:
    _channels.pop(number, None)
    with _attached() as lib:
        lib.ca_clear_channel(chid)  # its subscriptions and requests go with it
        lib.ca_flush_io()


class BusyChannel(_Channel):
    """A flyer's line to its busy record.

    Parameters
    ----------
    pv : str
        The PV of the busy record.
    listener : BusyListener
        Who hears of it, in libca's thread.

    Attributes
    ----------
    reading : Reading or None
        The latest news; None while the record is not connected.
    problem : str or None
        Why the PV that connected can be no busy record.
    """

    def __init__(self, pv: str, listener: BusyListener) -> None:
        self.reading: Reading | None = None
        self._listener = listener
        self._is_binary = False
        super().__init__(pv)
        with _attached() as lib:
            subscription = ctypes.c_void_p()
            mask = dbr.DBE_VALUE | dbr.DBE_ALARM
            _must(
                lib.ca_create_subscription(
                    dbr.TIME_ENUM, 1, self._chid, mask, _on_event, self._number, ctypes.byref(subscription)
                ),
                f"subscribe to {pv}",
            )
            lib.ca_flush_io()

    def put(self, value: int) -> int:
        """Put without callback; returns libca's status of the sending."""
        with _attached() as lib:
            status = lib.ca_array_put(dbr.ENUM, 1, self._chid, ctypes.byref(ctypes.c_uint16(value)))
            lib.ca_flush_io()
        return int(status)

    def put_callback(self, value: int, answer: Callable[[int], None]) -> None:
        """Put with callback; `answer` is called with the Channel Access status, once."""
        number = next(_numbers)
        _answers[number] = lambda args: answer(args.status)
        with _attached() as lib:
            status = lib.ca_array_put_callback(
                dbr.ENUM, 1, self._chid, ctypes.byref(ctypes.c_uint16(value)), _on_answer, number
            )
            lib.ca_flush_io()
        if status != dbr.ECA_NORMAL and _answers.pop(number, None) is not None:
            answer(int(status))

    def read(self, answer: Callable[[Reading | None], None]) -> None:
        """Ask the record itself; `answer` is called with what it says, None where it could not be had."""

        def decode(args: _EventArgs) -> None:
            good = args.status == dbr.ECA_NORMAL and args.dbr
            answer(_reading(_TimeEnum.from_address(args.dbr)) if good else None)

        if self._get(dbr.TIME_ENUM, 1, decode) != dbr.ECA_NORMAL:
            answer(None)

    def _connection_changed(self, up: bool) -> None:
        self._ready.clear()
        self.reading, self.problem, self._is_binary = None, None, False
        if not up:
            self._listener.connection_lost()
            return
        field_type = _libca().ca_field_type(self._chid)
        if field_type == dbr.ENUM:
            self._get(dbr.CTRL_ENUM, 1, self._judge_enum)
        else:
            self._refuse(f"it is a {dbr.Name(field_type)}")

    def _judge_enum(self, args: _EventArgs) -> None:
        if args.status != dbr.ECA_NORMAL or not args.dbr:
            return  # disconnected again: it will be asked anew
        strings = _CtrlEnum.from_address(args.dbr).strings
        if strings > 2:
            self._refuse(f"it has {strings} states")
            return
        self._is_binary = True
        if self.reading is not None:
            self._announce(self.reading)

    def _refuse(self, what: str) -> None:
        self.problem = f"{self.pv} is no busy record: {what}, and a binary (busy or bo) is needed"
        self._ready.set()
        self._listener.unusable(self.problem)

    def _announce(self, reading: Reading) -> None:
        self._ready.set()
        self._listener.connected(reading)

    def _event(self, event: _TimeEnum) -> None:
        first = self.reading is None
        self.reading = reading = _reading(event)
        if not self._is_binary:
            return  # _judge_enum announces it
        if first:
            self._announce(reading)
        else:
            self._listener.record_says(reading)


def _reading(event: _TimeEnum) -> Reading:
    return Reading(event.value, event.stamp, event.severity, event.status)


class ArrayChannel(_Channel):
    """A flyer's line to an array; asked, not monitored.

    Attributes
    ----------
    dtype : numpy.dtype or None
        Type of its elements; None while it is not connected.
    size : int
        Most elements it can have (NELM).
    problem : str or None
        Why the PV that connected can be no column of numbers.
    """

    def __init__(self, pv: str) -> None:
        self.dtype: np.dtype[Any] | None = None
        self.size = 0
        self._type = -1
        super().__init__(pv)

    def fetch(self, answer: Callable[[ArrayReading | str], None]) -> None:
        """Ask for the array; `answer` gets it in libca's thread, or a sentence why it could not be had."""

        def decode(args: _EventArgs) -> None:
            if args.status != dbr.ECA_NORMAL or not args.dbr:
                answer(status_text(args.status))
                return
            dtype = _DTYPES[dbr.native_type(args.type)]
            raw = ctypes.string_at(args.dbr + dbr.value_offset[args.type], args.count * dtype.itemsize)
            answer(ArrayReading(np.frombuffer(raw, dtype), _Time.from_address(args.dbr).stamp))

        if not self.ready or self.problem is not None:
            answer(self.problem or "it is not connected")
            return
        # A count of 0 asks for as many elements as the record holds now (NORD).
        status = self._get(self._type + dbr.TIME_STRING, 0, decode)
        if status != dbr.ECA_NORMAL:
            answer(status_text(status))

    def _connection_changed(self, up: bool) -> None:
        self._ready.clear()
        self.problem = None
        if not up:
            return
        lib = _libca()
        self._type = lib.ca_field_type(self._chid)
        self.size = lib.ca_element_count(self._chid)
        self.dtype = _DTYPES.get(self._type)
        if self.dtype is None:
            self.problem = f"{self.pv} holds {dbr.Name(self._type)}, and numbers are needed"
        self._ready.set()
