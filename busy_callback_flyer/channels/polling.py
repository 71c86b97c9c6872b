"""A channel that reads again and again: the tutorial's way, and the baseline that monitors are compared with."""

from __future__ import annotations

import atexit
import functools
import logging
import threading
import weakref
from collections.abc import Callable

from ophyd.signal import Signal
from ophyd.utils import DisconnectedError

from ..engine.ports import BusyListener, Confirmed, Put, PutAnswer, Reading
from ..engine.worker import Worker
from .ca.context import run_as_user
from .choice import name_of
from .epics import why_not_taken
from .signal_reader import BusyBySignal, join_channel_access, put_anew, put_that_raised

logger = logging.getLogger(__name__)

EXIT_TIMEOUT = 2.0
"""Seconds that the poll under way may need when the interpreter exits."""

_ReadAnswer = Callable[[Reading | None], None]


class PollingBusy(BusyBySignal):
    """A channel to a busy record that polls a signal while a flight lasts.

    A poll is a fresh read on the connection that Busy was put on, so it is evidence. What a poll cannot tell is what
    became of the put, nor that of a flight between two polls.

    Parameters
    ----------
    signal : Signal
        Of the busy record, also for control layers without monitors.
    listener : BusyListener
        It hears what it has not asked for in the polling thread.
    interval : callable
        Gives the seconds from one poll to the next.

    Attributes
    ----------
    reading : Reading or None
        What the latest poll said; None where it failed, and between flights: each flight begins with a fresh poll.
    """

    needs_ground_read = False
    keeps_order = False

    def __init__(self, signal: Signal, listener: BusyListener, interval: Callable[[], float]) -> None:
        super().__init__(signal, Worker(f"{name_of(signal)} polls", join_channel_access), listener)
        self._interval = interval
        self._lock = threading.Lock()
        self._resting = threading.Event()  # each flight has its own
        self._flying: Callable[[], bool] = lambda: False
        self._requests = 0  # puts and reads: a poll that began before one is not later than it
        self._asked: list[_ReadAnswer] = []
        _channels.add(self)
        _stop_polling_at_exit()

    @property
    def problem(self) -> str | None:
        """Why the signal cannot be a busy record's; None where it can."""
        return (self._reader.type_problem if self.ready else None) or self._reader.problem

    def close(self, timeout: float = 0.0) -> None:
        """Poll no more; wait for the poll under way, `timeout` seconds at most. Who waits for a read gets None."""
        with self._lock:
            self._resting.set()
            self._flying = lambda: False
        self._worker.stop(timeout)
        self._give_up()

    def begin(self, flying: Callable[[], bool]) -> None:
        """Poll from now on, as long as `flying` says so."""
        with self._lock:
            self._resting.set()
            self._resting, self._flying, self.reading = threading.Event(), flying, None
            self._worker.do(functools.partial(self._poll, self._resting, flying))

    def wait_sent(self, timeout: float) -> None:
        """It puts in the calling thread."""

    def put(self, value: int, confirmed: Confirmed) -> None:
        """Put without callback, in the calling thread; a read behind it tells whether it was taken."""
        run_as_user(functools.partial(self._put_and_look, value, confirmed))

    def put_callback(self, value: int, answer: PutAnswer) -> None:
        """Put without callback, in the calling thread: it is served before any later read."""
        run_as_user(functools.partial(self._put_and_answer, value, answer))

    def _put_and_look(self, value: int, confirmed: Confirmed) -> None:
        try:
            self._put(value)
        except Exception as error:  # each control layer has its own
            confirmed(str(error))
        else:
            self.read(functools.partial(self._confirm, value, confirmed))

    def _put_and_answer(self, value: int, answer: PutAnswer) -> None:
        try:
            self._put(value)
        except Exception as error:  # each control layer has its own
            answer(put_that_raised(error), str(error))
        else:
            answer(Put.SENT, "")

    def read(self, answer: _ReadAnswer) -> None:
        """Have the next poll answer, or a read of its own between flights; `answer` gets None where it fails."""
        with self._lock:
            self._requests += 1
            self._asked.append(answer)
        if not self._flying():
            self._resting.set()  # the thread may be waiting for the time of a poll that is not needed any more
        if not self._worker.do(self._read):
            self._give_up()

    def _confirm(self, value: int, confirmed: Confirmed, reading: Reading | None) -> None:
        confirmed(why_not_taken(value, reading))
        if reading is not None:
            self._listener.record_read(reading)  # else the next poll would be the first to tell

    def _put(self, value: int) -> None:
        if not self._signal.connected:  # ophyd would wait for it
            raise DisconnectedError(f"{self.pv} is not connected")
        self._requested()
        try:
            self._setpoint = put_anew(self._setpoint, value)
        finally:
            self._requested()  # it may have gone out behind a poll that began after the first

    def _requested(self) -> None:
        with self._lock:
            self._requests += 1

    def _give_up(self) -> None:
        for answer in self._take_asked():
            answer(None)

    def _take_asked(self) -> list[_ReadAnswer]:
        with self._lock:
            asked, self._asked = self._asked, []
        return asked

    # In the polling thread

    def _read(self) -> None:
        """Answer the reads that no poll has answered."""
        asked = self._take_asked()
        reading = self._reader.get() if asked else None
        for answer in asked:
            answer(reading)

    def _poll(self, resting: threading.Event, flying: Callable[[], bool]) -> None:
        def over() -> bool:
            return resting.is_set() or not flying()

        connected = False
        while not over():
            connected = self._look(over, connected)
            if not over():
                resting.wait(self._interval())
        with self._lock:
            if resting is self._resting:
                self.reading = None

    def _look(self, over: Callable[[], bool], connected: bool) -> bool:
        """Poll once and tell what is new; whether the record is connected."""
        requests, asked = self._requests, self._take_asked()
        reading = self._reader.get()
        with self._lock:
            unasked = not asked and requests == self._requests
            if not over():
                self.reading = reading
        if over():
            pass
        elif reading is None:
            if self.problem is not None:
                self._listener.unusable(self.problem)
            elif connected:
                self._listener.connection_lost()
        elif not connected:
            self._listener.connected(reading)
        elif unasked:
            self._listener.record_read(reading)
        for answer in asked:
            answer(reading)
        return reading is not None


_channels: weakref.WeakSet[PollingBusy] = weakref.WeakSet()


def _stop_polling() -> None:
    for channel in list(_channels):
        channel.close(EXIT_TIMEOUT)


@functools.cache
def _stop_polling_at_exit() -> None:
    """Have it done before ophyd releases its PVs, for which it registers itself with its first signal."""
    atexit.register(_stop_polling)
