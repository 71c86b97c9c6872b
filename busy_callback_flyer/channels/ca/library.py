"""As much of libca as we need, of the very library that pyepics loaded, with argument types on an own handle.

Argument types set on pyepics' handle would break its puts.
"""

from __future__ import annotations

import ctypes
import functools
from typing import Any, NamedTuple

from epics import ca, dbr

from ..private_names import library_file

NORMAL = 1
"""ECA_NORMAL."""

REFUSED = 160
"""ECA_PUTFAIL."""

DISCONNECTED = 192
"""ECA_DISCONN."""


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


class ExceptionArgs(ctypes.Structure):
    _fields_ = (
        ("usr", ctypes.c_void_p),
        ("chid", ctypes.c_void_p),
        ("type", ctypes.c_long),
        ("count", ctypes.c_long),
        ("addr", ctypes.c_void_p),
        ("stat", ctypes.c_long),
        ("op", ctypes.c_long),
        ("ctx", ctypes.c_char_p),
        ("file", ctypes.c_char_p),
        ("line", ctypes.c_uint),
    )


class Time(ctypes.Structure):
    """What the DBR_TIME structures have in common."""

    _fields_ = (
        ("status", ctypes.c_int16),
        ("severity", ctypes.c_int16),
        ("seconds", ctypes.c_uint32),
        ("nanoseconds", ctypes.c_uint32),
    )


class TimeLong(Time):
    _fields_ = (("value", ctypes.c_int32),)  # type: ignore[assignment]


class TimeDouble(Time):
    _fields_ = (("padding", ctypes.c_int32), ("value", ctypes.c_double))  # type: ignore[assignment]


class CtrlEnum(ctypes.Structure):
    """The head of dbr_ctrl_enum."""

    _fields_ = (("status", ctypes.c_int16), ("severity", ctypes.c_int16), ("strings", ctypes.c_int16))


EventHandler = ctypes.CFUNCTYPE(None, EventArgs)
ConnectionHandler = ctypes.CFUNCTYPE(None, ConnectionArgs)
ExceptionHandler = ctypes.CFUNCTYPE(None, ExceptionArgs)

_void, _int, _long, _ulong, _text = ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_ulong, ctypes.c_char_p
_where = ctypes.POINTER(_void)

_THREAD_PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "ca_current_context": (_void,),
    "ca_attach_context": (_int, _void),
    "ca_detach_context": (None,),
}

_PROTOTYPES: dict[str, tuple[Any, ...]] = {
    "ca_context_create": (_int, _int),
    "ca_context_destroy": (None,),
    "ca_add_exception_event": (_int, ExceptionHandler, _void),
    "ca_create_channel": (_int, _text, ConnectionHandler, _void, ctypes.c_uint, _where),
    "ca_clear_channel": (_int, _void),
    "ca_puser": (_void, _void),
    "ca_field_type": (ctypes.c_short, _void),
    "ca_element_count": (_ulong, _void),
    "ca_get_host_name": (ctypes.c_uint, _void, _text, ctypes.c_uint),
    "ca_create_subscription": (_int, _long, _ulong, _void, _long, EventHandler, _void, _where),
    "ca_array_put": (_int, _long, _ulong, _void, _void),
    "ca_array_put_callback": (_int, _long, _ulong, _void, _void, EventHandler, _void),
    "ca_array_get_callback": (_int, _long, _ulong, _void, EventHandler, _void),
    "ca_flush_io": (_int,),
    "ca_message": (_text, _long),
}


class Library(NamedTuple):
    """libca by two handles."""

    calls: Any
    """Releases Python's lock during a call, as a call may have to wait for a lock of libca."""
    threads: Any
    """Keeps it, for what only looks at or sets a variable of the calling thread: who gives the lock away inside a
    handler may wait 5 ms until a busy thread gives it back."""


@functools.cache
def library() -> Library:
    """Own handles of the library that pyepics loaded, with argument types.

    Raises
    ------
    Unavailable
        pyepics has none, or does not tell which.
    """
    try:
        if ca.libca is None:
            ca.initialize_libca()
        name = library_file()
        lib = Library(ctypes.CDLL(name), ctypes.PyDLL(name))
    except (AttributeError, OSError, ca.ChannelAccessException) as error:
        raise Unavailable(f"the libca of pyepics cannot be had: {error!r}") from error
    for handle, prototypes in ((lib.calls, _PROTOTYPES), (lib.threads, _THREAD_PROTOTYPES)):
        for name, (result, *arguments) in prototypes.items():
            function = getattr(handle, name)
            function.restype, function.argtypes = result, arguments
    return lib


def status_text(status: int) -> str:
    """What libca says of one of its status codes."""
    text: bytes = library().calls.ca_message(status)
    return text.decode(errors="replace")


def must(status: int, what: str) -> None:
    """Raise RuntimeError where this status of libca is an error."""
    if status != dbr.ECA_NORMAL:
        raise RuntimeError(f"could not {what}: {status_text(status)}")
