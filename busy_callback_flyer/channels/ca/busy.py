"""A channel to a busy record, or an integer that is 0 or 1, by libca.

It asks for an integer of 32 bits, whatever the PV has: an enum would come as well as its own type, and of other
integers nothing is cut off.

From an event of libca to the listener there is as little of Python as can be: most of a flight's latency that is ours
to save lies here.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import threading
from collections.abc import Callable
from typing import Any

from epics import dbr

from ...engine.ports import BUSY, DONE, EPICS_EPOCH, BusyListener, Confirmed, Put, PutAnswer, Reading
from ..choice import no_busy
from ..epics import alarm_text, why_not_taken
from .base import CAChannel, Handle, listeners, nobody, numbers
from .context import refusals
from .library import DISCONNECTED, NORMAL, REFUSED, CtrlEnum, EventArgs, EventHandler, TimeLong, status_text

logger = logging.getLogger(__name__)

_FLAGS = (dbr.SHORT, dbr.LONG, dbr.CHAR)
"""Types of integers that can be 0 and 1."""

_SERVED = Put.SERVED
_event_at = TimeLong.from_address
_puts: dict[int, PutAnswer] = {}  # pending


@EventHandler
def _on_event(args: EventArgs) -> None:
    try:
        channel = listeners.get(args.usr, nobody)()
        if channel is not None and args.dbr:
            channel.reading = reading = _reading(args.dbr)
            tell = channel.tell
            if tell is None:
                channel.announce()
            else:
                tell(reading)
    except Exception:
        logger.exception("a monitor handler failed")


@EventHandler
def _on_put_callback(args: EventArgs) -> None:
    try:
        answer = _puts.pop(args.usr, None)
        if answer is not None:
            if args.status == NORMAL:
                answer(_SERVED, "")
            else:
                _tell_failure(args.status, answer)
    except Exception:
        logger.exception("the handler of a put-callback failed")


def _reading(address: int) -> Reading:
    event = _event_at(address)
    severity, status = event.severity, event.status
    return Reading(
        event.value,
        EPICS_EPOCH + event.seconds + 1e-9 * event.nanoseconds,
        severity,
        alarm_text(severity, status) if severity or status else "",
    )


def _tell_failure(status: int, answer: PutAnswer) -> None:
    answer(Put.LOST if status == DISCONNECTED else Put.REFUSED, _with_hint(status))


def _with_hint(status: int) -> str:
    return status_text(status) + " (DISP, or access security?)" * (status == REFUSED)


class CABusy(CAChannel):
    """A channel to a busy record.

    It has three channels of libca. By the first it listens, reads and puts. The second is for put-callbacks alone: to
    clear it takes back one that is pending, be it queued in the IOC. The third lives in pyepics' context and is the
    fence: what is answered there was asked for after all that this process put before by pyepics.

    Parameters
    ----------
    pv : str
        Of the busy record.
    listener : BusyListener
        Hears of it in libca's thread.

    Attributes
    ----------
    reading : Reading or None
        The latest news; None while the record is not connected.
    tell : callable or None
        Takes the next event; None while the record is not announced.
    """

    needs_fence = True
    needs_ground_read = False
    keeps_order = True

    def __init__(self, pv: str, listener: BusyListener) -> None:
        self.reading: Reading | None = None
        self.tell: Callable[[Reading], None] | None = None
        self._listener = listener
        self._closed = False
        self._type = dbr.ENUM
        self._fits = self._putter_up = self._fence_seen = False
        self._is_flag = False  # an integer
        self._was_flag = False  # it said 0 or 1
        self._guard = threading.RLock()  # of what is taken back; the garbage collector may come in between
        self._put_number = 0  # of the latest put-callback
        self._taking_back = 0  # puts
        super().__init__(pv)
        self.lend = self._context.lend  # no frame more on the path to a finished status
        self._putter: Handle | None = Handle(pv, self._putter_changed, self._context)
        self._fence: Handle | None = Handle(pv, self._fence_changed, self._context.pyepics)

    @property
    def may_wait(self) -> bool:
        """Whether the calling thread may wait for one of libca's, or for the janitor."""
        return not self._context.here

    def begin(self, flying: Callable[[], bool]) -> None:
        """Nothing: the record is monitored all the time."""

    def close(self) -> None:
        """Release it, behind what was asked for; there is no news from now on."""
        self._closed = True
        self._ready.clear()
        if not self._later(self._release):
            self._release()

    def fence(self, passed: Callable[[], None]) -> None:
        """Call `passed` when all was served that this process put before by pyepics, or can be served no more."""
        fence = self._fence
        if fence is None:
            passed()
        else:
            fence.get(dbr.ENUM, 1, lambda args: passed(), lambda status: passed())

    def put(self, value: int, confirmed: Confirmed) -> None:
        """Put without callback, and read behind it: libca complains of a refusal before that is answered."""
        if self._later(functools.partial(self.put, value, confirmed)):
            return
        handle, status = self._handle, DISCONNECTED
        if handle is not None:
            refusals.pop(handle.number, None)
            status = handle.send(self._context.calls.ca_array_put, self._type, 1, self._native(value))
        if handle is None or status != NORMAL:
            confirmed(_with_hint(status))
            return
        number = handle.number

        def look(reading: Reading | None) -> None:
            refused = refusals.pop(number, None)
            confirmed(why_not_taken(value, reading, None if refused is None else _with_hint(refused)))

        self.read(look)

    def put_callback(self, value: int, answer: PutAnswer) -> None:
        """Put with callback; `answer` is called once. At most one may be pending."""
        number = self._put_number = next(numbers)
        _puts[number] = answer
        putter, status = self._putter, DISCONNECTED
        if putter is not None:
            function = self._context.calls.ca_array_put_callback
            status = putter.send(function, self._type, 1, self._native(value), _on_put_callback, number)
        if status != NORMAL and _puts.pop(number, None) is not None:
            _tell_failure(status, answer)

    def take_back(self, then: Callable[[], None]) -> None:
        """Take back a put-callback that is pending, and call `then` in the janitor; at once where none is."""
        with self._guard:
            answer = _puts.pop(self._put_number, None)
            putter, self._putter = self._putter, self._putter if answer is None else None
            if answer is not None and putter is not None:
                self._taking_back += 1
                self._ready.clear()
                self.tell, self._putter_up = None, False
                putter.close()
                del putter  # asks the janitor to clear it, if nobody else is using it
                renew = functools.partial(self._renew, answer, then)
                queued = self._context.worker.do(renew)
        if answer is None:
            if not self._later(then):
                then()
        elif not queued:
            renew()

    def wait_sent(self, timeout: float) -> None:
        """Wait until a put is taken back, and what was asked behind it is sent, where the calling thread may."""
        if self._taking_back and self.may_wait:
            self._context.worker.wait(timeout)

    def read(self, answer: Callable[[Reading | None], None]) -> None:
        """Ask the record itself; `answer` gets None where it cannot be had."""

        def decode(args: EventArgs) -> None:
            reading, known = _reading(args.dbr), self.reading
            if known is not None and reading.stamp > known.stamp:  # events can lag behind
                self.reading = reading
            answer(reading)

        if not self._later(functools.partial(self.read, answer)):
            self._get(dbr.TIME_LONG, 1, decode, lambda status: answer(None))

    def announce(self) -> None:
        """Tell the listener that all is there. Called by our circuit's threads alone, so that no event overtakes it."""
        reading = self.reading
        if reading is None or self.tell is not None or self._closed:
            return
        if self._is_flag and not self._fits:
            self._judge_flag(reading.value)
        if self._fits and self._putter_up and self._fence_seen:
            self.tell = self._listener.record_says
            self._ready.set()
            self._listener.connected(reading)

    def _later(self, task: Callable[[], None]) -> bool:
        """Have it done behind a put that is being taken back; False where none is, and it can be done now."""
        worker = self._context.worker
        with self._guard:  # or it could get in front of the clearing
            return self._taking_back > 0 and not worker.here and worker.do(task)

    def _renew(self, answer: PutAnswer, then: Callable[[], None]) -> None:
        try:
            answer(Put.LOST, "it was taken back")
            if not self._closed:
                self._putter = Handle(self.pv, self._putter_changed, self._context)
        finally:
            with self._guard:
                self._taking_back -= 1
            then()

    def _release(self) -> None:
        super().close()
        others, self._putter, self._fence = (self._putter, self._fence), None, None
        for other in others:
            if other is not None:
                other.close()
        answer = _puts.pop(self._put_number, None)
        if answer is not None:
            _tell_failure(DISCONNECTED, answer)

    def _opened(self, handle: Handle) -> None:
        handle.subscribe(self, dbr.TIME_LONG, dbr.DBE_VALUE | dbr.DBE_ALARM, _on_event)

    def _changed(self, handle: Handle, up: bool) -> None:
        if self._closed:
            return
        self._ready.clear()
        self.tell = self.reading = self.problem = None
        self._fits = self._is_flag = False
        if not up:
            self._listener.connection_lost()
            return
        self._type = handle.field_type
        if self._type == dbr.ENUM:
            # Where it fails it is disconnected again, and will be asked anew.
            handle.get(dbr.CTRL_ENUM, 1, self._judge_enum, lambda status: None)
        elif self._type not in _FLAGS:
            self._refuse(f"it is a {dbr.Name(self._type)}")
        elif handle.element_count != 1:
            self._refuse(f"it holds {handle.element_count} elements")
        else:
            self._is_flag = True  # judged by the event that the subscription brings

    def _native(self, value: int) -> Any:
        """Of the PV's own type, for libca."""
        return ctypes.byref(dbr.Map[self._type](value))

    def _judge_enum(self, args: EventArgs) -> None:
        strings = CtrlEnum.from_address(args.dbr).strings
        if strings > 2:
            self._refuse(f"it has {strings} states")
        else:
            self._fits = True
            self.announce()

    def _judge_flag(self, value: int) -> None:
        """By what it says first: what counts or is a setting says something else."""
        if self._was_flag or value in (DONE, BUSY):
            self._fits = self._was_flag = True
            self.problem = None
            self._ready.clear()
        else:
            self._refuse(f"it says {value}")

    def _refuse(self, what: str) -> None:
        self.problem = no_busy(self.pv, what)
        self._ready.set()
        self._listener.unusable(self.problem)

    def _putter_changed(self, handle: Handle, up: bool) -> None:
        self._putter_up = up
        if up:
            self.announce()

    def _fence_changed(self, handle: Handle, up: bool) -> None:
        """In pyepics' thread. Only the first connection is waited for: a flight must not depend on pyepics' circuit."""
        if up and not self._fence_seen:
            self._fence_seen = True
            self.read(lambda reading: None if reading is None else self.announce())
