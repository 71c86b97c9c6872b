"""Channels in memory, scripted: for tests of what flies, without EPICS, threads or clocks.

A scripted channel does nothing by itself. The test says what the record does, and answers what it was asked, step by
step and in any order:

>>> from busy_callback_flyer.channels.memory import MemoryBusy
>>> busy = MemoryBusy()
>>> busy.connect()
>>> busy.put_callback(1, lambda put, text: print(put.name))
>>> busy.read(print)
>>> busy.sent
['put 1 with callback', 'read']
>>> busy.post(1, stamp=10.0)
>>> busy.answer_read()
Reading(value=1, stamp=10.0, severity=0, alarm='')
>>> busy.lose()
LOST

A `MemoryRecord` answers at once, as a record with a good controller does. A whole flight, from kickoff to its page:

>>> from unittest.mock import Mock
>>> from busy_callback_flyer.channels.memory import MemoryArray, MemoryRecord
>>> from busy_callback_flyer.engine.collector import ArraySpec, Collector
>>> from busy_callback_flyer.engine.driver import FlightDriver
>>> from busy_callback_flyer.engine.flight import Flight
>>> from busy_callback_flyer.engine.options import Options
>>> from busy_callback_flyer.engine.worker import Worker
>>> record, x = MemoryRecord(), MemoryArray([0.0])
>>> driver = FlightDriver("ifly", record.heard_by, Worker("tells failures"))
>>> flight = Flight(record.pv, Options(time_array=None))
>>> collector, brought = Collector("ifly", [ArraySpec("x", "ifly_x", x)], record), []
>>> ground = collector.ground(None, [])
>>> driver.launch(flight, Mock(), ground)
>>> x.write([1.0, 2.0, 3.0])  # the controller's part
>>> record.done()
>>> flight.finished
True
>>> collector.fetch(flight, ground, [], brought.append)
>>> [page["data"] for page in collector.pages(brought[0], flight.timeline, flight.options)]
[{'ifly_x': [1.0, 2.0, 3.0]}]
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..engine.ports import DONE, ArrayReading, BusyListener, Confirmed, Put, PutAnswer, Reading, ValueReading

__all__ = ["MemoryArray", "MemoryBusy", "MemoryCount", "MemoryRecord", "MemoryValue"]

_stamps = itertools.count(1_700_000_000)


def _or_next(stamp: float | None) -> float:
    """The stamp that was given, else one that is a second later than the last."""
    return float(next(_stamps)) if stamp is None else stamp


class _Nobody:
    def __getattr__(self, news: str) -> Callable[..., None]:
        return lambda *what: None


_nobody: Any = _Nobody()
"""A listener that does not care."""


class Request(NamedTuple):
    """What a channel was asked, and has not answered yet."""

    what: str
    answer: Callable[..., None]
    lost: tuple[Any, ...]
    """The answer where the connection is lost, or the channel closed."""


class _Channel:
    """What all channels have in common.

    Attributes
    ----------
    ready : bool
        Whether it is connected.
    waiting : list of Request
        What it was asked and has not answered, the oldest first.
    """

    host: str | None = "memory"
    problem: str | None = None

    def __init__(self, pv: str) -> None:
        self.pv = pv
        self.ready = False
        self.waiting: list[Request] = []

    def wait_ready(self, timeout: float | None) -> bool:
        """Whether it is ready: there is no time in which it could become so."""
        return self.ready

    def close(self) -> None:
        """Answer what was asked, as nothing will come any more."""
        self.ready = False
        while self.waiting:
            request = self.waiting.pop(0)
            request.answer(*request.lost)

    def _answer(self, what: str, which: int, *answer: Any) -> None:
        requests = [request for request in self.waiting if request.what == what]
        if not requests:
            raise LookupError(f"{self.pv}: no {what} is waiting for its answer")
        self.waiting.remove(requests[which])
        requests[which].answer(*answer)


class MemoryBusy(_Channel):
    """A channel to a busy record, scripted.

    Parameters
    ----------
    listener : BusyListener, optional
        Who hears of it; see also `heard_by`.
    pv : str

    Attributes
    ----------
    needs_fence, needs_ground_read, keeps_order, may_wait : bool
        What a channel of its kind says of itself, see `BusyChannel`. A test sets them before the flight.
    record : Reading
        What the record says. A read is answered by that.
    reading : Reading or None
        The latest news; None while the record is not connected.
    sent : list of str
        All that was ever asked, in order.
    not_taken : str or None
        What a plain put is answered: None where the record takes it, else why it does not.
    """

    needs_fence = needs_ground_read = False
    keeps_order = may_wait = True

    def __init__(self, listener: BusyListener | None = None, pv: str = "busy") -> None:
        super().__init__(pv)
        self.listener = listener or _nobody
        self.record = Reading(DONE, _or_next(None))
        self.reading: Reading | None = None
        self.sent: list[str] = []
        self.not_taken: str | None = None
        self.flying: Callable[[], bool] = lambda: False

    def heard_by(self, listener: BusyListener) -> MemoryBusy:
        """The channel itself, which tells this listener from now on: what a `FlightDriver` opens."""
        self.listener = listener
        return self

    # What happens

    def connect(self, value: int = DONE, stamp: float | None = None) -> None:
        """The record connects, and says this."""
        self.change(value, stamp)
        self.ready, self.reading = True, self.record
        self.listener.connected(self.record)

    def lose(self) -> None:
        """The connection is lost, and what was asked on it."""
        self.ready, self.reading = False, None
        self.listener.connection_lost()
        super().close()

    def refuse(self, problem: str) -> None:
        """What connects cannot be a busy record."""
        self.ready, self.problem = True, problem
        self.listener.unusable(problem)

    def change(self, value: int, stamp: float | None = None, severity: int = 0, alarm: str = "") -> None:
        """The record changes, and its event is lost on the way."""
        self.record = Reading(value, _or_next(stamp), severity, alarm)

    def post(self, value: int, stamp: float | None = None, severity: int = 0, alarm: str = "") -> None:
        """The record changes, and its event comes."""
        self.change(value, stamp, severity, alarm)
        if self.ready:
            self.reading = self.record
            self.listener.record_says(self.record)

    def poll(self) -> None:
        """The channel reads the record by itself, as one without monitor does."""
        self.reading = self.record
        self.listener.record_read(self.record)

    def answer_put(self, put: Put = Put.SERVED, text: str = "", *, which: int = 0) -> None:
        """A put-callback comes back, the oldest or another."""
        self._answer("put", which, put, text)

    def answer_read(self, *, which: int = 0) -> None:
        """A read is answered by what the record says now."""
        self._answer("read", which, self.record)

    def fail_read(self, *, which: int = 0) -> None:
        """A read fails."""
        self._answer("read", which, None)

    def pass_fence(self, *, which: int = 0) -> None:
        """What this process put before was served."""
        self._answer("fence", which)

    # What it is asked

    def begin(self, flying: Callable[[], bool]) -> None:
        """A flight begins."""
        self.flying = flying

    def fence(self, passed: Callable[[], None]) -> None:
        """Wait for `pass_fence`."""
        self._ask("fence", "fence", passed)

    def put(self, value: int, confirmed: Confirmed) -> None:
        """Note it, and confirm it at once by `not_taken`: what the record makes of it is up to the test."""
        self.sent.append(f"put {value}")
        confirmed(self.not_taken)

    def put_callback(self, value: int, answer: PutAnswer) -> None:
        """Wait for `answer_put`."""
        self._ask(f"put {value} with callback", "put", answer, Put.LOST, "its connection went")

    def take_back(self, then: Callable[[], None]) -> None:
        """Answer a put-callback that is waiting, as it will not be served; then go on."""
        if any(request.what == "put" for request in self.waiting):
            self.sent.append("take back")
            self.answer_put(Put.LOST, "it was taken back")
        then()

    def read(self, answer: Callable[[Reading | None], None]) -> None:
        """Wait for `answer_read`."""
        self._ask("read", "read", answer, None)

    def wait_sent(self, timeout: float) -> None:
        """It was sent."""

    def lend(self, call: Callable[[], None]) -> None:
        """Run code of the user at once."""
        call()

    def close(self) -> None:
        """Tell no more news, and answer what was asked, as nothing will come any more."""
        self.listener, self.reading = _nobody, None
        super().close()

    def _ask(self, sent: str, what: str, answer: Callable[..., None], *lost: Any) -> None:
        self.sent.append(sent)
        self.waiting.append(Request(what, answer, lost))


class MemoryRecord(MemoryBusy):
    """A connected busy record that does at once what it is asked, and a controller that works until `done`.

    Parameters
    ----------
    controller : callable, optional
        Called when Busy was put; it may call `done`.
    **how
        As of `MemoryBusy`.
    """

    def __init__(self, controller: Callable[[], None] | None = None, **how: Any) -> None:
        super().__init__(**how)
        self._controller = controller
        self.connect()

    def done(self) -> None:
        """The controller is through: the record becomes Done, which completes the put-callback."""
        self._become(DONE)
        if self.waiting:
            self.answer_put()

    def fence(self, passed: Callable[[], None]) -> None:
        """Everything was served."""
        super().fence(passed)
        self.pass_fence()

    def put(self, value: int, confirmed: Confirmed) -> None:
        """Become Busy, or Done, which ends a flight; nothing, where it is `not_taken`."""
        if self.not_taken is None:
            self._take(value)
        super().put(value, confirmed)

    def put_callback(self, value: int, answer: PutAnswer) -> None:
        """Become Busy; the callback comes when the record is Done."""
        super().put_callback(value, answer)
        self._take(value)

    def read(self, answer: Callable[[Reading | None], None]) -> None:
        """Answer by what the record says."""
        super().read(answer)
        self.answer_read()

    def _take(self, value: int) -> None:
        if value == DONE:
            self.done()
        else:
            self._become(value)
            if self._controller is not None:
                self._controller()

    def _become(self, value: int) -> None:
        """A busy record posts an event where its value changes, and gets a new stamp in any case."""
        if value == self.record.value:
            self.change(value)
        else:
            self.post(value)


class _Stored(_Channel):
    """A channel whose requests are answered at once, or when the test says so.

    Parameters
    ----------
    pv : str
    stamp : float, optional
        Of what it holds at first.
    held : bool
        Whether requests wait for `answer` or `fail`.

    Attributes
    ----------
    connections : int
        How often the connection was lost.
    """

    patience = 0.0
    why_silent = "it is held"

    def __init__(self, pv: str, *, stamp: float | None = None, held: bool = False) -> None:
        super().__init__(pv)
        self.ready = True
        self.stamp = _or_next(stamp)
        self.held = held
        self.connections = 0

    def connect(self) -> None:
        """The record connects again."""
        self.ready = True

    def lose(self) -> None:
        """The connection is lost, and what was asked on it."""
        self.connections += 1
        super().close()

    def fetch(self, answer: Callable[[Any], None]) -> None:
        """Give what it holds, at once or when the test says so."""
        self._ask("fetch", answer, None if self.held else self.answer)

    def answer(self, *, which: int = 0) -> None:
        """Answer a request, the oldest or another, by what is held now."""
        self._answer("fetch", which, self._held())

    def fail(self, why: str = "no answer", *, which: int = 0) -> None:
        """A request fails."""
        self._answer("fetch", which, why)

    def _ask(self, what: str, answer: Callable[[Any], None], give: Callable[[], None] | None) -> None:
        """Keep a request, and have it answered at once by `give`; None: when the test says so."""
        self.waiting.append(Request(what, answer, ("it is not connected",)))
        if not self.ready:
            self.close()
        elif give is not None:
            give()

    def _held(self) -> Any:
        raise NotImplementedError


class MemoryArray(_Stored):
    """A channel to an array.

    Parameters
    ----------
    values : array_like
        What it holds at first; its type is that of the elements.
    pv : str
    size : int
        Most elements that the array can have.
    description : dict, optional
        Of units, precision and limits, see `ArrayChannel`.
    **how
        `stamp`, of what it holds at first, and `held`: whether requests wait for `answer` or `fail`.

    Attributes
    ----------
    holds_stamps : bool
        Whether requests for the stamp alone wait for `answer_stamp` or `fail_stamp`.
    """

    holds_stamps = False

    def __init__(
        self,
        values: Any,
        pv: str = "array",
        *,
        size: int = 1000,
        description: dict[str, Any] | None = None,
        **how: Any,
    ) -> None:
        super().__init__(pv, **how)
        self.values = np.atleast_1d(np.asarray(values))
        self.size = size
        self.description = {"source": f"MEM:{pv}", **(description or {})}

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """Type of the elements; None while it is not connected."""
        return self.values.dtype if self.ready else None

    def write(self, values: Any, stamp: float | None = None) -> None:
        """The controller writes it."""
        self.values, self.stamp = np.atleast_1d(np.asarray(values, self.values.dtype)), _or_next(stamp)

    def fetch_stamp(self, answer: Callable[[float | str], None]) -> None:
        """Give its stamp, at once or when the test says so."""
        self._ask("stamp", answer, None if self.holds_stamps else self.answer_stamp)

    def answer_stamp(self, *, which: int = 0) -> None:
        """Answer a request for the stamp, the oldest or another, by what it is now."""
        self._answer("stamp", which, self.stamp)

    def fail_stamp(self, why: str = "no answer", *, which: int = 0) -> None:
        """A request for the stamp fails."""
        self._answer("stamp", which, why)

    def _held(self) -> ArrayReading:
        return ArrayReading(self.values, self.stamp)


class MemoryValue(_Stored):
    """A channel to a value that is read once a flight.

    Parameters
    ----------
    value : number or str
    pv : str
    **how
        As of `MemoryArray`.
    """

    def __init__(self, value: Any, pv: str = "value", **how: Any) -> None:
        super().__init__(pv, **how)
        self.value = value
        dtype = "string" if isinstance(value, str) else "integer" if isinstance(value, int) else "number"
        self.description = {"source": f"MEM:{pv}", "dtype": dtype, "shape": []}

    def write(self, value: Any, stamp: float | None = None) -> None:
        """The controller writes it."""
        self.value, self.stamp = value, _or_next(stamp)

    def _held(self) -> ValueReading:
        return ValueReading(self.value, self.stamp)


class MemoryCount:
    """A channel to a number that is watched while it counts."""

    host: str | None = "memory"
    first: ValueReading | None = None
    latest: ValueReading | None = None
    closed = False

    def post(self, value: Any, stamp: float | None = None) -> None:
        """The number changes."""
        if not self.closed:
            self.latest = ValueReading(value, _or_next(stamp))
            self.first = self.first or self.latest

    def close(self) -> None:
        """Listen no more."""
        self.closed = True
