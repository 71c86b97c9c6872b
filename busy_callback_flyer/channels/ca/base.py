"""What the Channel Access channels have in common: a handle of libca, and requests that are answered once.

libca hands a number back to a handler, by which the handler finds who is meant: so a late event of a closed channel
finds nobody. The handlers are made once and stay, as a ctypes callback has to outlive the last event.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from epics import dbr

from .context import Context, OwnContext, context
from .library import (
    DISCONNECTED,
    NORMAL,
    ConnectionArgs,
    ConnectionHandler,
    EventArgs,
    EventHandler,
    library,
    must,
)
from .thread_states import keep

logger = logging.getLogger(__name__)

numbers = itertools.count(1)
"""For libca to hand back; 0 would come back as None."""

Answer = Callable[[EventArgs], None]
Failed = Callable[[int], None]
"""Takes a status of libca."""


class _Request(NamedTuple):
    handle: int
    answer: Answer
    failed: Failed


listeners: dict[int, weakref.ref[Any]] = {}
"""Channels by the number of the handle that is subscribed to: what events come for."""

_handles: dict[int, weakref.ref[Handle]] = {}
_requests: dict[int, _Request] = {}


@ConnectionHandler
def _on_connection(args: ConnectionArgs) -> None:
    try:
        handle = _handles.get(library().calls.ca_puser(args.chid), nobody)()
        if handle is not None:
            handle.connection_changed(args.op == dbr.OP_CONN_UP)
    except Exception:
        logger.exception("a connection handler failed")


@EventHandler
def _on_answer(args: EventArgs) -> None:
    try:
        request = _requests.pop(args.usr, None)
        if request is None:
            return
        if args.status == NORMAL and args.dbr:
            request.answer(args)
        else:
            request.failed(args.status)
    except Exception:
        logger.exception("the handler of an answer failed")


def nobody() -> None:
    """Stand for the reference to a channel that is gone."""


class Handle:
    """A channel of libca, cleared when nobody refers to it any more: so nobody can be using it.

    Parameters
    ----------
    pv : str
    changed : bound method
        Told whether it is connected, with the handle; referred to weakly.
    context : Context
        The one it lives in.
    """

    def __init__(self, pv: str, changed: Callable[[Handle, bool], None], context: Context) -> None:
        self.number = next(numbers)
        self.closed = False
        self._chid = ctypes.c_void_p()
        self._changed = weakref.WeakMethod(changed)
        self._context = context
        _handles[self.number] = weakref.ref(self)
        must(
            context.request(
                context.calls.ca_create_channel, pv.encode(), _on_connection, self.number, 0, ctypes.byref(self._chid)
            ),
            f"create a channel to {pv}",
        )

    def __del__(self) -> None:
        self._forget()
        if self._chid:  # what was subscribed to and asked for goes with it
            context = self._context
            context.worker.do(functools.partial(context.request, context.calls.ca_clear_channel, self._chid))

    def close(self) -> None:
        """Bring no more news. Who waits for an answer hears that it will not come."""
        self.closed = True
        self._forget()
        for number in tuple(_requests):
            request = _requests.get(number)
            if request is not None and request.handle == self.number and _requests.pop(number, None) is not None:
                request.failed(DISCONNECTED)

    def send(self, function: Callable[..., int], dbr_type: int, count: int, *more: Any) -> int:
        """Send a request of libca; its status."""
        if self.closed:
            return DISCONNECTED
        return self._context.request(function, dbr_type, count, self._chid, *more)

    def get(self, dbr_type: int, count: int, answer: Answer, failed: Failed) -> None:
        """Ask; `answer` gets what comes, or `failed` a status where nothing can be had."""
        number = next(numbers)
        _requests[number] = _Request(self.number, answer, failed)  # ahead of the look at `closed`: `close` may miss it
        status = self.send(self._context.calls.ca_array_get_callback, dbr_type, count, _on_answer, number)
        if status != NORMAL and _requests.pop(number, None) is not None:
            failed(status)

    def subscribe(self, listener: CAChannel, dbr_type: int, mask: int, handler: Any) -> None:
        """Have the events come to a handler, with the number by which it finds the listener."""
        listeners[self.number] = weakref.ref(listener)
        subscription = ctypes.c_void_p()
        function, where = self._context.calls.ca_create_subscription, ctypes.byref(subscription)
        must(self.send(function, dbr_type, 1, mask, handler, self.number, where), "subscribe")

    @property
    def field_type(self) -> int:
        """Of the PV; a DBR type."""
        return int(self._context.calls.ca_field_type(self._chid))

    @property
    def element_count(self) -> int:
        """Most elements that the PV can have."""
        return int(self._context.calls.ca_element_count(self._chid))

    @property
    def host(self) -> str:
        """Address and port of the IOC, while connected."""
        name = ctypes.create_string_buffer(256)
        self._context.calls.ca_get_host_name(self._chid, name, len(name))
        return name.value.decode(errors="replace")

    def connection_changed(self, up: bool) -> None:
        """Tell it, in a thread of libca."""
        changed = self._changed()
        if changed is not None:
            changed(self, up)
        if up and isinstance(self._context, OwnContext):
            keep()  # the circuit's events come in this thread, too

    def _forget(self) -> None:
        _handles.pop(self.number, None)
        listeners.pop(self.number, None)


class CAChannel:
    """A channel by libca.

    Attributes
    ----------
    pv : str
    problem : str or None
        Why the PV that connected is of no use; None where it is of use.
    """

    def __init__(self, pv: str) -> None:
        self.pv = pv
        self.problem: str | None = None
        self._ready = threading.Event()
        self._context = context()
        handle = Handle(pv, self._changed, self._context)
        self._handle: Handle | None = handle
        self._opened(handle)

    @property
    def ready(self) -> bool:
        """Whether it is connected and was looked at."""
        return self._ready.is_set()

    def wait_ready(self, timeout: float | None) -> bool:
        """Wait until it is ready; whether it is."""
        return self._ready.wait(timeout)

    @property
    def host(self) -> str | None:
        """Address and port of the IOC; None while it is not connected."""
        handle = self._handle
        return handle.host if handle is not None and self.ready else None

    def close(self) -> None:
        """Release it. There is no news afterwards; who waits for an answer hears that it will not come."""
        self._ready.clear()
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()

    def _opened(self, handle: Handle) -> None:
        """Ask for what it is to bring from the start."""

    def _changed(self, handle: Handle, up: bool) -> None:
        raise NotImplementedError

    def _get(self, dbr_type: int, count: int, answer: Answer, failed: Failed) -> None:
        handle = self._handle
        if handle is None:
            failed(DISCONNECTED)
        else:
            handle.get(dbr_type, count, answer, failed)
