"""The Channel Access client context of our own, and what a thread needs to use it.

It has its own circuits, receive threads and callback lock, so nothing that pyepics, ophyd or the user receives comes
before a flight's news. Its rules:

* libca is called only by a thread that is attached to the channel's context; the thread gets back what it had. Each
  request is flushed, as libca itself would not send before somebody does. No lock of ours is held meanwhile.
* What waits for a callback lock (to clear a channel, to destroy a context) is done by a thread that holds no lock and
  runs no code of the user: our context's by the `janitor`, that of channels in pyepics' context by the `sweeper`, which
  a callback of the user may hold up.
* Code of the user runs attached to pyepics' context, which is flushed behind it.
"""

from __future__ import annotations

import atexit
import functools
import logging
import threading
from collections.abc import Callable
from typing import Any

from epics import ca

from ...engine.worker import Worker
from .library import DISCONNECTED, ExceptionArgs, ExceptionHandler, library, must, status_text

logger = logging.getLogger(__name__)

EXIT_TIMEOUT = 1.0
"""Seconds that our threads and our context may need when the interpreter exits; then they are left as they are."""


_OP_PUT = 1  # CA_OP_PUT of cadef.h

refusals: dict[int, str] = {}
"""Why the latest plain put was refused, by the number of its handle: libca answers no plain put, it only complains."""


@ExceptionHandler
def _on_exception(args: ExceptionArgs) -> None:
    """Log what libca would print: losses, which the listener hears of too, and plain puts that were refused."""
    try:
        if args.op == _OP_PUT and args.chid:
            refusals[library().calls.ca_puser(args.chid)] = status_text(args.stat)
        level = logging.INFO if args.stat == DISCONNECTED else logging.WARNING
        logger.log(level, "%s (%s)", status_text(args.stat), (args.ctx or b"").decode(errors="replace"))
    except Exception:
        logger.exception("an exception of Channel Access could not be told")


class Context:
    """A client context of Channel Access, as threads see it.

    Attributes
    ----------
    address : int
        Of libca's own object.
    worker : Worker
        Where its channels are cleared.
    calls : Any
        libca.
    """

    def __init__(self, address: int, worker: Worker) -> None:
        self.address = address
        self.worker = worker
        self.open = True
        self.calls, self._threads = library()

    def request(self, function: Callable[..., int], *args: Any) -> int:
        """Call a function of libca attached to the context, and flush; its status."""
        status: int = self.run(self._request, function, *args)
        return status

    def run(self, call: Callable[..., Any], *args: Any) -> Any:
        """Call with the thread attached to the context."""
        threads, address = self._threads, self.address
        before = threads.ca_current_context()
        if before == address:
            return call(*args)
        if before is not None:
            threads.ca_detach_context()
        threads.ca_attach_context(address)
        try:
            return call(*args)
        finally:
            threads.ca_detach_context()
            if before is not None:
                threads.ca_attach_context(before)

    def run_and_flush(self, call: Callable[[], None]) -> None:
        """Call with the thread attached to the context, and send what it asked for."""
        self.run(self._run_and_flush, call)

    def _run_and_flush(self, call: Callable[[], None]) -> None:
        try:
            call()
        finally:
            self.calls.ca_flush_io()

    def _request(self, function: Callable[..., int], *args: Any) -> int:
        if not self.open:  # the interpreter exits
            return DISCONNECTED
        status = function(*args)
        self.calls.ca_flush_io()
        return status


class OwnContext(Context):
    """The one that our channels live in.

    Attributes
    ----------
    pyepics : Context
        The one that pyepics made first.
    """

    def __init__(self) -> None:
        calls, threads = library()
        before = threads.ca_current_context()
        if before is not None:
            threads.ca_detach_context()
        try:
            must(calls.ca_context_create(1), "make a Channel Access context")  # 1: with threads of its own
            super().__init__(threads.ca_current_context(), Worker("busy_callback_flyer janitor"))
            calls.ca_add_exception_event(_on_exception, None)
        finally:
            threads.ca_detach_context()
            if before is not None:
                threads.ca_attach_context(before)
        self.pyepics = Context(ca.initial_context, Worker("busy_callback_flyer sweeper"))
        self._lender = Worker("busy_callback_flyer user")
        self._lending: set[int] = set()  # threads
        self._janitor = 0
        self.worker.do(self._join)  # which starts its thread: at exit it may be too late for that
        atexit.register(self._exit)  # behind pyepics' own, which library() registered: so it runs before that one

    @property
    def here(self) -> bool:
        """Whether the calling thread is one of this context's, or lent by one."""
        return self._threads.ca_current_context() == self.address or threading.get_ident() in self._lending

    def lend(self, call: Callable[[], None]) -> None:
        """Run code of the user, in a thread where pyepics and ophyd work: this one, if it is not the janitor.

        It lies on the path from Done to a finished status, so it calls nothing that it can do without.
        """
        threads, thread = self._threads, threading.get_ident()
        if threads.ca_current_context() != self.address:
            call()
        elif thread == self._janitor:
            self._lender.do(functools.partial(self.pyepics.run_and_flush, call))
        else:
            self._lending.add(thread)
            threads.ca_detach_context()
            threads.ca_attach_context(self.pyepics.address)
            try:
                call()
            finally:
                self.calls.ca_flush_io()
                threads.ca_detach_context()
                threads.ca_attach_context(self.address)
                self._lending.discard(thread)

    def _join(self) -> None:
        self._janitor = threading.get_ident()
        self._threads.ca_attach_context(self.address)

    def _exit(self) -> None:
        self.worker.do(self._destroy)  # behind what it was asked for: a Done may wait behind a put that is taken back
        self.worker.stop(EXIT_TIMEOUT)
        for worker in (self.pyepics.worker, self._lender):  # no thread can be started from now on
            worker.stop(0)

    def _destroy(self) -> None:
        self.open = self.pyepics.open = False
        self.calls.ca_context_destroy()


_making = threading.Lock()


@functools.cache
def _made() -> OwnContext:
    return OwnContext()


def run_as_user(call: Callable[[], None]) -> None:
    """Run what uses pyepics or ophyd in whatever thread: one of our context is lent, see `OwnContext.lend`."""
    if _made.cache_info().currsize:
        _made().lend(call)
    else:
        call()


def context() -> OwnContext:
    """Our context; it is made with the first call."""
    with _making:  # nothing that is called meanwhile calls back
        return _made()
