"""Channels by any ophyd signal: other control layers, fake devices, soft signals.

One worker thread a flyer carries everything, in order: news, puts and reads, which may block there. Nobody tells here
what became of a put: its callback comes back in any case.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import ophyd
from ophyd import EpicsSignalRO
from ophyd.signal import Signal

# isort: split
from epics import dbr

from ..engine.ports import ArrayReading, BusyListener, Confirmed, Put, PutAnswer, Reading, ValueReading
from ..engine.worker import Worker
from .epics import why_not_taken
from .private_names import read_pv, reads_strings
from .signal_reader import (
    AskedBySignal,
    BusyBySignal,
    BySignal,
    put_anew,
    put_that_raised,
    reader_of,
    reads_in_its_own_way,
    units_of,
)

logger = logging.getLogger(__name__)

ANSWER_GRACE = 1.0
"""Seconds that the answer to an earlier put-callback may need; a second one would block the circuit."""

LENGTH_TRIES = 20
"""How often an array is asked for whose length and NORD differ."""


class _PutCallback:
    """A put-callback, and who waits for it."""

    def __init__(self, answer: PutAnswer) -> None:
        self.back = threading.Event()
        self._answers = [answer]

    def tell(self, put: Put, text: str = "") -> None:
        """Tell what became of it, once."""
        self.back.set()
        while self._answers:
            self._answers.pop()(put, text)


class SignalBusy(BusyBySignal):
    """A channel to a busy record by an ophyd signal.

    A signal's own subscribers hear the echo of its own puts, with the value asked for and the client's clock. So an
    EPICS signal is listened to and read by further signals for the same PV, made once it is connected: a monitored
    one for the events, and one without monitor for fresh reads. Of another signal what it says during our own put is
    not heard; a read tells.

    Parameters
    ----------
    signal : Signal
        Of the busy record: Busy and Done are put to it.
    worker : Worker
        The thread in which it is put to and asked, and in which the listener is told.
    listener : BusyListener
    """

    needs_ground_read = True
    keeps_order = False  # a read that fails must hold up the put

    def __init__(self, signal: Signal, worker: Worker, listener: BusyListener) -> None:
        super().__init__(signal, worker, listener)
        self._monitor: Signal | None = None
        self._ready = threading.Event()
        self._closed = False
        self._epoch = 0  # of the connection
        self._putting = False
        self._put_callback: _PutCallback | None = None  # the latest
        signal.subscribe(self._metadata_changed, event_type=Signal.SUB_META, run=False)
        self._worker.do(self._look)

    @property
    def problem(self) -> str | None:
        """Why the PV that connected is of no use; None where it is of use."""
        return self._reader.problem

    @property
    def ready(self) -> bool:
        """Whether it is connected and was looked at."""
        return self._ready.is_set()

    def wait_ready(self, timeout: float | None) -> bool:
        """Wait until it is ready; whether it is."""
        return self._ready.wait(timeout)

    def close(self) -> None:
        """Listen no more. Who waits for a put-callback hears that it is lost."""
        self._closed = True
        self._ready.clear()
        self._signal.clear_sub(self._metadata_changed)
        if self._monitor is not None:
            self._monitor.clear_sub(self._value_changed)
        if not self._worker.do(self._lose_put):
            self._lose_put()

    def begin(self, flying: Callable[[], bool]) -> None:
        """It listens all the time."""

    def wait_sent(self, timeout: float) -> None:
        """Wait until the worker did what was asked before; seconds, at most."""
        self._worker.wait(timeout)

    def put(self, value: int, confirmed: Confirmed) -> None:
        """Put without callback, and look: of an event that came while others were at it, nobody may have told."""
        if not self._worker.do(partial(self._put_and_look, value, confirmed)):
            confirmed("it was closed")

    def put_callback(self, value: int, answer: PutAnswer) -> None:
        """Put with callback; `answer` is called when it is back, and hears of a loss, but not of a refusal."""
        if not self._worker.do(partial(self._put_and_answer, value, answer)):
            answer(Put.LOST, "it was closed")

    def read(self, answer: Callable[[Reading | None], None]) -> None:
        """Ask the record itself; `answer` gets what it says, None where it cannot be had."""
        if not self._worker.do(lambda: answer(self._ask())):
            answer(None)

    # In the worker's thread

    def _put(self, value: int, **how: Any) -> None:
        self._putting = True
        try:
            self._setpoint = put_anew(self._setpoint, value, **how)
        finally:
            self._putting = False
        if not self._reader.is_epics:  # no echo, but what it says now
            self._look_again()

    def _put_and_look(self, value: int, confirmed: Confirmed) -> None:
        refusal = None
        try:
            self._put(value)
        except Exception as error:  # each control layer has its own
            refusal = str(error) or repr(error)
        reading = self._ask()
        self._event(reading)
        confirmed(why_not_taken(value, reading, refusal))

    def _put_and_answer(self, value: int, answer: PutAnswer) -> None:
        earlier = self._put_callback
        if earlier is not None and not earlier.back.wait(ANSWER_GRACE):
            answer(Put.REFUSED, "an earlier put-callback on this channel was never answered")
            return
        self._put_callback = put = _PutCallback(answer)

        def called_back(**_: Any) -> None:
            put.back.set()
            self._worker.do(partial(put.tell, Put.UNTOLD))

        try:
            if self._reader.is_epics:
                self._put(value, use_complete=True, callback=called_back)
            else:
                self._put(value)
                called_back()
        except Exception as error:  # each control layer has its own
            put.tell(put_that_raised(error), str(error))

    def _lose_put(self) -> None:
        if self._put_callback is not None:
            self._put_callback.tell(Put.LOST)

    def _ask(self) -> Reading | None:
        epoch = self._epoch
        reading = self._reader.get()
        return reading if epoch == self._epoch and self._signal.connected else None

    def _look(self) -> None:
        """Take up a connection: listen, and ask, as it may bring no event."""
        if self._closed or not self._signal.connected:
            return
        if self._monitor is None:
            self._monitor = self._signal
            if self._reader.is_epics:
                self._monitor = EpicsSignalRO(self.pv, name=f"{self._signal.name}_monitor", auto_monitor=True)
            self._monitor.subscribe(self._value_changed, run=False)
        if self.reading is None:
            self._look_again()

    def _look_again(self) -> None:
        self._event(self._ask())

    def _event(self, reading: Reading | None) -> None:
        if self._closed or (reading is not None and reading == self.reading):  # a new subscription may tell twice
            return
        if reading is None:
            if self.problem is not None:
                self._ready.set()
                self._listener.unusable(self.problem)
            return
        first, self.reading = self.reading is None, reading
        if first:
            self._ready.set()
            self._listener.connected(reading)
        else:
            self._listener.record_says(reading)

    def _lost(self) -> None:
        self._epoch += 1
        self._ready.clear()
        self.reading = self._reader.problem = None
        if not self._closed:
            self._listener.connection_lost()
        self._lose_put()

    # In whatever thread the control layer chooses

    def _value_changed(self, value: Any = None, timestamp: float | None = None, **metadata: Any) -> None:
        if not (self._putting and self._worker.here):  # else it is an echo
            self._worker.do(lambda: self._event(self._reader.decode(value, timestamp, metadata)))

    def _metadata_changed(self, connected: bool = True, **_: Any) -> None:
        if connected:
            self._worker.do(self._look)
        elif self._ready.is_set() or self.reading is not None:
            self._worker.do(self._lost)


class SignalArray(AskedBySignal):
    """A channel to an array by an ophyd signal.

    Parameters
    ----------
    signal : Signal
        Of the array.
    worker : Worker
        The thread in which it is asked, and the answer given.
    nord : Signal, optional
        How many elements it holds. A check, where it is connected: who reads the same array at the same time, by
        pyepics and limited to some elements, shares the answer.
    text : bool
        Whether a text is needed, characters or one string, and not numbers. Its elements are characters.
    """

    def __init__(self, signal: Signal, worker: Worker, nord: Signal | None = None, *, text: bool = False) -> None:
        super().__init__(signal)
        self.problem: str | None = None
        self._worker = worker
        self._read = reader_of(signal, whole=True)
        self._text = text
        self._nord = None if reads_in_its_own_way(signal) else nord
        self._known: tuple[int, np.dtype[Any]] | None = None  # connections, and the type as it was read then

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """Type of the elements; None while it is not connected. It is asked for once a connection."""
        known = self._known
        if known is not None and known[0] == self.connections and self.ready:
            return known[1]
        try:
            return self._ask().values.dtype
        except Exception as error:  # each control layer has its own
            logger.info("%s could not be read: %r", self.pv, error)
            return None

    @property
    def size(self) -> int:
        """Most elements that the array can have: those that it has now, where nobody tells."""
        return int(getattr(read_pv(self._signal), "nelm", None) or len(self._ask().values))

    @property
    def description(self) -> dict[str, Any]:
        """Source, and as its record has them units, precision and control limits."""
        description = dict(self._signal.describe()[self._signal.name])
        return description | {"units": units_of(self._signal, description.get("units"))}

    def wait_ready(self, timeout: float | None) -> bool:
        """Wait until it is connected and was looked at; whether it is."""
        return super().wait_ready(timeout) and (self.dtype is not None or self.problem is not None)

    def fetch_stamp(self, answer: Callable[[float | str], None]) -> None:
        """Ask for the stamp, which fetches the whole array; `answer` gets it in the worker's thread, or why not."""
        self._worker.ask(lambda: self._ask().stamp, answer)

    def fetch(self, answer: Callable[[ArrayReading | str], None]) -> None:
        """Ask for the array; `answer` gets it in the worker's thread, or a sentence why it could not be had."""
        self._worker.ask(self._ask, answer)

    def _ask(self) -> ArrayReading:
        connections = self.connections
        for _ in range(LENGTH_TRIES):
            value, stamp = self._read()
            nord = self._nord if getattr(read_pv(self._nord), "connected", False) else None
            if self._text and isinstance(value, str):
                value, nord = np.frombuffer(value.encode(), np.uint8), None
            values = np.atleast_1d(np.array(value, self._own_dtype()))
            if nord is None or len(values) == nord.get(use_monitor=False):
                break
        else:
            raise ValueError(f"{self.pv} came with {len(values)} elements, and NORD says otherwise")
        fits = values.dtype == np.uint8 if self._text else values.dtype.kind in "iuf"
        if values.ndim != 1 or not fits:
            needed = "characters (FTVL CHAR) are needed, or one string" if self._text else "numbers are needed"
            self.problem = f"{self.pv} holds {values.dtype}, and {needed}"
            raise ValueError(self.problem)
        self.problem = None
        self._known = connections, values.dtype
        return ArrayReading(values, float(stamp))

    def _own_dtype(self) -> np.dtype[Any] | None:
        """The PV's, where pyepics tells: of a single element it makes a number of Python's own."""
        field_type = getattr(read_pv(self._signal), "ftype", None)
        if field_type is None or ophyd.get_cl().name != "pyepics" or reads_in_its_own_way(self._signal):
            return None
        native = dbr.native_type(field_type)
        return None if native in (dbr.STRING, dbr.ENUM) else np.dtype(dbr.Map[native])


class SignalValue(AskedBySignal):
    """A channel to a value that is read once a flight, by an ophyd signal.

    Parameters
    ----------
    signal : Signal
        Of the value: what its own ``read()`` and ``describe()`` say counts.
    worker : Worker
        The thread in which it is asked, and the answer given.
    """

    def __init__(self, signal: Signal, worker: Worker) -> None:
        super().__init__(signal)
        self._worker = worker
        self._read = reader_of(signal, string=reads_strings(signal))

    @property
    def description(self) -> dict[str, Any]:
        """The signal's own."""
        return dict(self._signal.describe()[self._signal.name])

    def fetch(self, answer: Callable[[ValueReading | str], None]) -> None:
        """Ask for it; `answer` gets it in the worker's thread, or a sentence why it could not be had."""
        self._worker.ask(self._ask, answer)

    def _ask(self) -> ValueReading:
        return ValueReading(*self._read())


class SignalCount(BySignal):
    """A channel to a number that is watched while it counts, by an ophyd signal.

    ophyd goes on monitoring the PV when the channel is closed.
    """

    first: ValueReading | None = None
    latest: ValueReading | None = None

    def __init__(self, signal: Signal) -> None:
        super().__init__(signal)
        signal.subscribe(self._value_changed)

    def close(self) -> None:
        """Listen no more."""
        self._signal.clear_sub(self._value_changed)

    def _value_changed(self, value: Any = None, timestamp: float | None = None, **_: Any) -> None:
        if timestamp is not None:
            self.latest = ValueReading(value, timestamp)
            self.first = self.first or self.latest
