"""Owns a flight, its channel and its deadlines: takes news in, carries orders out, tells an observer.

News comes in whatever thread brings it. It is told to the flight under a lock; what the flight orders is carried out
behind the lock, in the order given, by one thread at a time, so that no put overtakes another. A verdict is an order
like the others: it is told when the orders that were given with it are carried out.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from .deadlines import Alarm
from .flight import CALLBACK_GRACE, Flight, Order, Orders, State
from .freshness import Ground
from .ports import BUSY, DONE, BusyChannel, BusyListener, Put, Reading
from .taxi import Taxi
from .worker import Worker

logger = logging.getLogger(__name__)

CONFIRM_TIMEOUT = 0.1
"""Seconds that a look whether Done was written may delay a verdict."""


class LatestDone:
    """When a flight of a flyer was ended by a Done of ours, on whichever of its records.

    Attributes
    ----------
    at : float
        By the monotonic clock.
    """

    at = -math.inf


class FlightObserver(Protocol):
    """Hears how a flight goes, in the thread that brought the news. What it does delays what comes behind."""

    def began(self) -> None:
        """The record was seen Busy since the put. A flight may be too short for that."""

    def finished(self) -> None:
        """The flight ended well."""

    def failed(self) -> None:
        """The flight failed; its `error` says why."""


class FlightDriver:
    """Flies one flight after another on one channel.

    Parameters
    ----------
    name : str
        Of whoever flies, for messages.
    open_channel : callable
        Makes the channel to the busy record, given who is to hear of it.
    teller : Worker
        Where failures are told: neither the channel's threads nor that of the deadlines are the user's to hold up.
    taxi : Taxi, optional
        What has to be done before each flight.
    ended : LatestDone, optional
        Shared by all drivers of a flyer.

    Attributes
    ----------
    channel : BusyChannel
    flight : Flight or None
        The latest one.
    observer : FlightObserver or None
        Of the latest flight.
    """

    def __init__(
        self,
        name: str,
        open_channel: Callable[[BusyListener], BusyChannel],
        teller: Worker,
        taxi: Taxi | None = None,
        ended: LatestDone | None = None,
    ) -> None:
        self.flight: Flight | None = None
        self._name = name
        self._teller = teller
        self.taxi = taxi
        self.observer: FlightObserver | None = None
        self._lock = threading.Lock()  # guards the flight; never held while a channel or an observer is entered
        self._carried = threading.Condition(self._lock)
        self._orders: deque[tuple[Order, Flight, FlightObserver]] = deque()
        self._ground: Ground | None = None  # of the latest flight
        self._fencing: object = None  # the latest wait for it
        self._carrying = False
        self._untold = 0  # failures
        self._told_began = False
        self._alarm = Alarm(lambda: self._tell(self.flight, Flight.deadline))
        self._rings_at = math.inf
        self._armed = 0.0  # with the put
        self._was_connected = False
        self._ended = ended or LatestDone()
        self.channel = open_channel(self)

    # What its owner asks

    @property
    def flying(self) -> bool:
        """Whether a flight is in progress, from its launch on."""
        return self.flight is not None and not self.flight.over

    def launch(self, flight: Flight, observer: FlightObserver, ground: Ground | None = None) -> None:
        """Begin a flight; returns at once.

        Parameters
        ----------
        flight : Flight
        observer : FlightObserver
        ground : Ground, optional
            Asked what the arrays bear when Busy is put.

        Raises
        ------
        RuntimeError
            Another one is in progress.
        """
        channel = self.channel
        if self.taxi is not None:
            self.taxi.ready(flight)
        flight.needs_fence = channel.needs_fence or bool(ground)
        flight.awaits_ground_read = channel.needs_ground_read
        if ground is not None:
            flight.awaits_stamps = lambda: ground.awaited
        with self._lock:
            if self.flying:
                raise RuntimeError(f"{self._name} was kicked off by another thread at the same time")
            self.flight, self.observer, self._told_began = flight, observer, False
            self._ground = ground
        channel.begin(lambda: not flight.over)
        channel.take_back(lambda: self._begin(flight))  # the put of a flight that was left to itself

    def abort(self, why: str) -> None:
        """End the flight in progress, if there is one, and what was done for the next one."""
        self._tell(self.flight, lambda flight, now: flight.abort(now, why))
        if self.taxi is not None:
            self.taxi.end(why)

    def wait(self, timeout: float) -> None:
        """Wait until the orders went out and the verdict is told, where the calling thread may; seconds, at most."""
        if self.channel.may_wait and not self._teller.here:
            with self._carried:
                self._carried.wait_for(lambda: not (self._orders or self._carrying or self._untold), timeout)
            self.channel.wait_sent(timeout)

    def close(self) -> None:
        """Release the channel. A flight in progress hears no more."""
        self._alarm.set(None)
        self.channel.close()

    def taxi_over(self, flight: Flight) -> None:
        """The taxi of this flight has come to its end, well."""
        self._tell(flight, Flight.taxi_over)

    def taxi_failed(self, flight: Flight, error: Exception) -> None:
        """The taxi of this flight has failed."""
        self._tell(flight, Flight.taxi_failed, error)

    # News of the channel

    def connected(self, reading: Reading) -> None:
        """See `BusyListener`."""
        flight, ground = self.flight, self._ground
        self._was_connected, was_lost = True, flight is not None and flight.state is State.LOST
        self._tell(flight, Flight.connected, reading)
        if was_lost and flight is not None and flight.state is State.FLYING and ground is not None:
            ground.keep()

    def connection_lost(self) -> None:
        """See `BusyListener`."""
        self._tell(self.flight, Flight.connection_lost)

    def record_read(self, reading: Reading) -> None:
        """See `BusyListener`."""
        self._tell(self.flight, Flight.record_read, reading)

    def unusable(self, problem: str) -> None:
        """See `BusyListener`."""
        self._tell(self.flight, lambda flight, now: flight.refuse(now, problem))

    def record_says(self, reading: Reading) -> None:
        """See `BusyListener`. Here most flights end, so the quick way comes first."""
        orders = None
        if reading.value == DONE:
            now = time.monotonic()
            with self._lock:
                flight, observer = self.flight, self.observer
                if flight is not None:
                    orders = flight.quick_done(reading, now, rings_in_time=self._rings_at <= now + CALLBACK_GRACE)
        if orders is None:
            self._tell(self.flight, Flight.record_says, reading)
        elif orders:
            self._finish(flight, observer)

    def _put_returned(self, flight: Flight, put: Put, message: str) -> None:
        orders = None
        if put is Put.SERVED:
            now = time.monotonic()
            with self._lock:
                observer = self.observer
                if flight is self.flight:
                    orders = flight.quick_callback(now)
        if orders is None:
            self._tell(flight, Flight.put_returned, put, message)
        elif orders:
            self._finish(flight, observer)

    def _finish(self, flight: Flight | None, observer: FlightObserver | None) -> None:
        """Tell that it is finished, and only then tidy up."""
        assert flight is not None
        assert observer is not None
        flight.timeline.mark("finished", time.monotonic())
        observer.finished()
        with self._lock:
            if flight is self.flight:
                self._alarm.set(None)

    # Between the flight and the world

    def _tell(self, flight: Flight | None, witness: Callable[..., Orders], *what: Any) -> None:
        """Tell this flight what was seen, and carry out what it orders; nothing, where another one came since."""
        now = time.monotonic()
        with self._lock:
            observer = self.observer
            if flight is None or flight is not self.flight or observer is None:
                return
            orders = witness(flight, *what, now)
            begins = flight.began and not self._told_began
            self._told_began = flight.began
            self._orders.extend((order, flight, observer) for order in orders)
            self._set_alarm(flight, now, orders)
        if begins:
            observer.began()
        if orders:
            self._carry_out()

    def _set_alarm(self, flight: Flight, now: float, orders: Orders) -> None:
        due = None if flight.over else flight.next_deadline
        if Order.PUT_BUSY in orders:  # rings in time for the read of a short flight, so that Done need not set it
            self._armed = now + CALLBACK_GRACE
        if now < self._armed and not flight.over:
            due = self._armed if due is None else min(due, self._armed)
        self._rings_at = math.inf if due is None else due
        self._alarm.set(due)

    def _carry_out(self) -> None:
        """Carry the orders out one after another, unless another thread does so already."""
        while True:
            with self._lock:
                if self._carrying or not self._orders:
                    return
                self._carrying = True
                order, flight, observer = self._orders.popleft()
            try:
                if order is Order.FORGET:
                    self.channel.take_back(self._go_on)  # which may go on in another thread
                    return
                if order is Order.PUT_DONE:
                    self._put_done(flight)  # which goes on when it is confirmed
                    return
                self._do(order, flight, observer)
            except Exception:  # a deadline will tell
                logger.exception("%s could not %s", self._name, order.value)
            self._one_is_done()

    def _go_on(self) -> None:
        self._one_is_done()
        self._carry_out()

    def _one_is_done(self) -> None:
        with self._carried:
            self._carrying = False
            self._carried.notify_all()

    def _do(self, order: Order, flight: Flight, observer: FlightObserver) -> None:
        channel = self.channel
        if order is Order.PUT_BUSY:
            self._put_busy(flight)
        elif order is Order.READ:
            channel.read(lambda reading: self._tell(flight, Flight.read_answers, reading))
        elif order is Order.FENCE:
            self._fence(flight)
        elif order is Order.TAXI:
            assert self.taxi is not None
            self.taxi.begin(flight, self)
        elif flight.error is None:
            self._finish(flight, observer)
            if flight.callback_missing:
                logger.warning(
                    "%s: %s is Done, and its put-callback has not come: did the scan refuse to start, "
                    "or does what it started go on (FLNK, a move back)?",
                    self._name,
                    flight.pv,
                )
        else:
            if self.taxi is not None:
                self.taxi.end("its flight was given up", flight)
            with self._lock:
                self._untold += 1
            if not self._teller.do(lambda: self._tell_failure(observer)):
                self._tell_failure(observer)

    def _fence(self, flight: Flight) -> None:
        """Wait for earlier puts first, and only then ask the arrays: their answers must not be older than needed."""
        ground = self._ground
        self._fencing = fencing = object()

        def over() -> bool:
            return flight.over or fencing is not self._fencing

        def passed() -> None:
            if not over():
                self._tell(flight, Flight.fence_passed)

        def fenced() -> None:
            if ground is None or (self.taxi is not None and self.taxi.hand_over(ground)):
                passed()
            else:
                ground.ask_ahead(self.channel, passed, over)

        if self.channel.needs_fence:
            self.channel.fence(fenced)
        else:
            fenced()

    def _put_busy(self, flight: Flight) -> None:
        channel, ground = self.channel, self._ground
        handed_over = self.taxi is not None and self.taxi.flown()
        why_not = None if ground is None or handed_over else ground.ask_along()
        if why_not is not None:
            self._tell(flight, lambda flight, now: flight.refuse(now, f"Busy was not put: {why_not}"))
            return
        if channel.needs_ground_read:
            channel.read(lambda reading: self._tell(flight, Flight.ground_read, reading))
        channel.put_callback(BUSY, partial(self._put_returned, flight))

    def _put_done(self, flight: Flight) -> None:
        """Put Done, and go on when it is confirmed, or after a moment. What is known later is told all the same."""
        ends = flight.over
        if ends:
            self._ended.at = time.monotonic()
        lock, waiting = threading.Lock(), [flight]  # until the next order is carried out

        def go_on() -> None:
            with lock:
                if not waiting:
                    return
                waiting.clear()
            alarm.set(None)
            self._go_on()

        def confirmed(problem: str | None) -> None:
            if problem is not None and (waiting or not ends):
                logger.warning("%s: Done could not be written to %s: %s", self._name, flight.pv, problem)
                self._tell(flight, Flight.done_not_written, problem)
            go_on()

        def late() -> None:
            if ends:
                confirmed(f"no read told within {CONFIRM_TIMEOUT:g} s whether the record took it")
            go_on()

        def put_if_ours(reading: Reading | None) -> None:
            if flight.still_flies(reading):
                self.channel.put(DONE, confirmed)
            elif reading is not None and reading.value == DONE:
                confirmed(None)
            else:
                confirmed("it was not put, as the record may fly for another client")

        alarm = Alarm(late)
        alarm.set(time.monotonic() + CONFIRM_TIMEOUT)
        try:
            if ends and flight.may_be_over:
                self.channel.read(put_if_ours)
            else:
                self.channel.put(DONE, confirmed)
        except Exception as error:  # whatever it is, the verdict must come
            confirmed(repr(error))

    def _tell_failure(self, observer: FlightObserver) -> None:
        try:
            observer.failed()
        finally:
            with self._carried:
                self._untold -= 1
                self._carried.notify_all()

    def _begin(self, flight: Flight) -> None:
        channel = self.channel
        last = channel.reading if channel.ready else None
        flight.settled_from = self._ended.at + flight.options.reset_settle
        flight.reconnects = self._was_connected and last is None
        self._tell(flight, lambda flight, now: flight.kickoff(now, last))
