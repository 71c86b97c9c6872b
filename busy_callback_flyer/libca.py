"""As little of libca as a flyer needs, of the very library that pyepics loaded.

What libca demands, and is met here:

* calls only from a thread that is attached to the context of its channels (`attached`): from
  another a put says that it went well, and is not sent;
* own argument types on an own handle: set on pyepics' handle they break its puts.

The only private name of another package in use is that of the library's file
(``ca.libca._name``); where it cannot be had, `Unavailable` says so.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ophyd  # noqa: F401 - before epics: it chooses the libca that pyepics loads

# isort: split
from epics import ca, dbr

from .flight import EPICS_EPOCH


class Unavailable(RuntimeError):
    """There is no libca to talk to."""


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


class Time(ctypes.Structure):
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


class TimeEnum(Time):
    _fields_ = (("padding", ctypes.c_int16), ("value", ctypes.c_uint16))  # type: ignore[assignment]


class TimeDouble(Time):
    _fields_ = (("padding", ctypes.c_int32), ("value", ctypes.c_double))  # type: ignore[assignment]


class CtrlEnum(ctypes.Structure):
    """The head of dbr_ctrl_enum."""

    _fields_ = (("status", ctypes.c_int16), ("severity", ctypes.c_int16), ("strings", ctypes.c_int16))


EventHandler = ctypes.CFUNCTYPE(None, EventArgs)
ConnectionHandler = ctypes.CFUNCTYPE(None, ConnectionArgs)


@functools.cache
def library() -> Any:
    """An own handle of the library that pyepics loaded, with argument types."""
    try:
        if ca.libca is None:
            ca.initialize_libca()
        lib = ctypes.CDLL(ca.libca._name)
    except (AttributeError, OSError, ca.ChannelAccessException) as error:
        raise Unavailable(f"the libca of pyepics cannot be had: {error!r}") from error
    chid, handle, number = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p
    dbr_type, count = ctypes.c_long, ctypes.c_ulong
    prototypes: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "ca_current_context": (ctypes.c_void_p, ()),
        "ca_attach_context": (ctypes.c_int, (ctypes.c_void_p,)),
        "ca_detach_context": (None, ()),
        "ca_create_channel": (
            ctypes.c_int,
            (ctypes.c_char_p, ConnectionHandler, number, ctypes.c_uint, ctypes.POINTER(chid)),
        ),
        "ca_clear_channel": (ctypes.c_int, (chid,)),
        "ca_puser": (ctypes.c_void_p, (chid,)),
        "ca_field_type": (ctypes.c_short, (chid,)),
        "ca_element_count": (ctypes.c_ulong, (chid,)),
        "ca_host_name": (ctypes.c_char_p, (chid,)),
        "ca_create_subscription": (
            ctypes.c_int,
            (dbr_type, count, chid, ctypes.c_long, EventHandler, number, ctypes.POINTER(handle)),
        ),
        "ca_array_put": (ctypes.c_int, (dbr_type, count, chid, ctypes.c_void_p)),
        "ca_array_put_callback": (
            ctypes.c_int,
            (dbr_type, count, chid, ctypes.c_void_p, EventHandler, number),
        ),
        "ca_array_get_callback": (ctypes.c_int, (dbr_type, count, chid, EventHandler, number)),
        "ca_flush_io": (ctypes.c_int, ()),
        "ca_message": (ctypes.c_char_p, (ctypes.c_long,)),
    }
    for name, (result, arguments) in prototypes.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


@contextmanager
def attached() -> Iterator[Any]:
    """libca, with the calling thread attached to the context that pyepics made first."""
    lib, ours = library(), ca.initial_context
    current = lib.ca_current_context()
    if current == ours:
        yield lib
        return
    if current is not None:
        lib.ca_detach_context()
    must(lib.ca_attach_context(ours), "attach a thread to Channel Access")
    try:
        yield lib
    finally:
        lib.ca_detach_context()
        if current is not None:
            lib.ca_attach_context(current)


def keep_thread_state() -> None:
    """Keep the interpreter's state of the calling thread, one of libca's, for as long as it lives.

    Otherwise ctypes makes one for each callback and throws it away afterwards, which takes a
    fifth of all the time from an event to a finished status.
    """
    ctypes.pythonapi.PyGILState_Ensure()


def status_text(status: int) -> str:
    """What libca says of one of its status codes."""
    text: bytes = library().ca_message(status)
    return text.decode(errors="replace")


def must(status: int, what: str) -> None:
    if status != dbr.ECA_NORMAL:
        raise RuntimeError(f"could not {what}: {status_text(status)}")
