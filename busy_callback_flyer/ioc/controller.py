"""The pseudo-controller: scans a simulated positioner while a busy record is Busy.

It knows no EPICS: whoever hosts it, the embedded IOC or a Channel Access client,
gives it a `Database` and tells it of every value of the busy record.
"""

from __future__ import annotations

import logging
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
from numpy.random import default_rng  # loads here what takes 20 ms, not in the first flight

log = logging.getLogger(__name__)

BUSY = "mybusy"
ARRAYS = ("t_array", "x_array", "y_array")
MESSAGE_LENGTH = 39  # of an EPICS string
PEAK_CENTRE, PEAK_WIDTH = 2.0, 1.5  # mm; the width is the standard deviation
PEAK_COUNTS, BACKGROUND_COUNTS = 10_000, 100
EARLY_BY = 0.1  # seconds that the arrays come after an early Done
STOP_TIMEOUT = 2.0  # seconds that stop() waits for each thread


class Database(Protocol):
    """The records that a controller works on, by their names without the prefix."""

    def get(self, name: str) -> float:
        """Value of the record, or of a field of it: ``record.FIELD``."""

    def put(self, name: str, value: float | int | str | np.ndarray) -> None:
        """Put as a client does: an array sets NORD too, and the record processes."""

    def finish(self, name: str, still_mine: Callable[[], bool]) -> bool:
        """Write 0 (Done) if `still_mine`, with nobody between question and put where that can be had."""

    def locked(self, name: str) -> AbstractContextManager[None]:
        """Keep other puts off that record meanwhile; over Channel Access just send the puts inside together.

        Nests.
        """


class Clock:
    """The time that a controller lives by; a test may bring another."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)
    wait = staticmethod(threading.Event.wait)


class Fault(IntEnum):
    """What goes wrong in a flight, on request."""

    NONE = 0
    NEVER_FINISH = 1
    EARLY_DONE = 2
    UNEQUAL = 3
    STALE = 4
    DIE = 5
    FREEZE = 6
    LATE_DONE = 7


STRIKES = {Fault.DIE: signal.SIGKILL, Fault.FREEZE: signal.SIGSTOP}
LIMITS = {  # as in controller.db; those of npts come from the arrays
    "duration": (0, 86400),
    "start": (-1000, 1000),
    "stop": (-1000, 1000),
    "seed": (0, 2**31 - 1),
    "fill": (0, 1),
    "fault": (0, 7),
}
WHOLE = {"npts": int, "seed": int, "fill": bool, "fault": Fault}


class Refused(ValueError):
    """Settings that no flight can be made with."""


@dataclass(frozen=True)
class Settings:
    """What a flight does, read once when it begins; `fill` means point by point."""

    npts: int
    duration: float
    start: float
    stop: float
    seed: int
    fill: bool
    fault: Fault

    @classmethod
    def read(cls, database: Database) -> Settings:
        """Read the settings; refuse what the limits of their records let through."""
        values: dict[str, Any] = {name: database.get(name) for name in ("npts", *LIMITS)}
        longest = int(min(database.get(f"{array}.NELM") for array in ARRAYS))
        limits = {"npts": (2 if values["fault"] == Fault.UNEQUAL else 1, longest)} | LIMITS
        for name, (low, high) in limits.items():
            if not low <= values[name] <= high:  # so NaN is refused too
                raise Refused(f"{name} {values[name]:g}, not {low}..{high}")
        for name, kind in WHOLE.items():
            if values[name] % 1:
                raise Refused(f"{name} {values[name]:g}, not a whole number")
            values[name] = kind(values[name])
        return cls(**values)


def simulate(settings: Settings, began: float) -> np.ndarray:
    """A scan at constant speed across a noisy peak.

    Parameters
    ----------
    settings : Settings
        Equal settings give equal positions and counts, bit for bit.
    began : float
        Time of the first point, in seconds of the epoch.

    Returns
    -------
    numpy.ndarray
        Three rows: times (s), positions (mm), counts.
    """
    t = began + np.linspace(0.0, settings.duration, settings.npts)
    x = np.linspace(settings.start, settings.stop, settings.npts)
    expected = BACKGROUND_COUNTS + PEAK_COUNTS * np.exp(-0.5 * ((x - PEAK_CENTRE) / PEAK_WIDTH) ** 2)
    return np.array((t, x, default_rng(settings.seed).poisson(expected)))


class Controller:
    """Flies while the busy record is Busy, and writes Done as the last act of a flight.

    A flight is known by its event `over`, set by whoever ends it: a Done, or `stop`.
    """

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or Clock()
        self._lock = threading.Lock()  # not held while the database is called: its own locks come first
        self._over: threading.Event | None = None  # of the flight that the record is Busy with
        self._flights: queue.SimpleQueue[threading.Event | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._spawn(self._work)

    def busy_changed(self, value: int) -> None:
        """Take note of the busy record's value; returns at once.

        The host calls it in the order of the values. A Busy while Busy and a Done while Done are no news.
        """
        with self._lock:
            if not value and self._over:
                self._over.set()
                self._over = None
            elif value and not self._over and not self._stopping.is_set():
                self._over = threading.Event()
                self._flights.put(self._over)

    def stop(self) -> None:
        """End the threads. A flight in hand is dropped, its record stays Busy: a Done would vouch for its data."""
        with self._lock:
            self._stopping.set()
            if self._over:
                self._over.set()
        self._flights.put(None)
        for thread in self._threads:
            thread.join(STOP_TIMEOUT)

    def _spawn(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, name="controller", daemon=True)
        self._threads = [*filter(threading.Thread.is_alive, self._threads), thread]
        thread.start()

    def _work(self) -> None:
        while (over := self._flights.get()) is not None:
            self._guard(self._begin, over)

    def _guard(self, fly: Callable[..., None], over: threading.Event, *args: object) -> None:
        """Fly, and survive whatever goes wrong in it."""
        try:
            try:
                fly(over, *args)
            except Refused as reason:
                self._give_up(f"refused: {reason}", over)
            except ConnectionError:
                raise  # nobody there to tell
            except Exception as failure:
                log.exception("a flight failed")
                self._give_up(f"failed: {failure!r}", over)
        except Exception as failure:
            log.warning("a flight is dropped: %s", failure)

    def _give_up(self, message: str, over: threading.Event) -> None:
        log.warning(message)
        self._say(message)
        self._database.finish(BUSY, lambda: not over.is_set())

    def _begin(self, over: threading.Event) -> None:
        with self._database.locked(BUSY):
            if over.is_set():
                return
            settings = Settings.read(self._database)
            self._say(f"flying {settings.npts} points in {settings.duration:g} s")
        if settings.fault is Fault.LATE_DONE:
            # deaf to every Done, and in a thread of its own: it may meet the next flight
            self._spawn(self._guard, self._fly, self._stopping, settings)
        else:
            self._fly(over, settings)

    def _fly(self, over: threading.Event, settings: Settings) -> None:
        points = simulate(settings, self._clock.now())
        strike = STRIKES.get(settings.fault)
        fill = settings.fill and settings.fault is not Fault.EARLY_DONE
        passed = 0
        for passed in self._passing(points[0] - points[0, 0], settings.duration, over):
            if strike and 2 * passed > settings.npts:
                signal.raise_signal(strike)  # to this very thread: it goes no further
                strike = None
            if passed < settings.npts:
                with self._database.locked(BUSY):
                    if not over.is_set():
                        self._publish(points[:, :passed], settings.fault, arrays=fill)
        if passed < settings.npts or not self._land(points, over, settings.fault):
            self._say(f"stopped by a Done at point {passed} of {settings.npts}")

    def _passing(self, due: np.ndarray, duration: float, over: threading.Event) -> Iterator[int]:
        """How many points have passed, each time that it grows, for the duration or until the flight is over."""
        began = self._clock.monotonic()  # after the time of the first point was read: so the last comes before Done
        passed = 0
        while passed < len(due) and not self._wait(over, began + due[passed]):
            # a late wake-up finds several points passed
            passed = max(passed + 1, int(np.searchsorted(due, self._clock.monotonic() - began, side="right")))
            yield passed
        self._wait(over, began + duration)  # of use to a single point

    def _wait(self, over: threading.Event, until: float) -> bool:
        return self._clock.wait(over, max(0.0, until - self._clock.monotonic()))

    def _land(self, points: np.ndarray, over: threading.Event, fault: Fault) -> bool:
        """Write what there is to write, and Done; False if somebody else's Done came before."""
        late = fault is Fault.EARLY_DONE
        with self._database.locked(BUSY):
            if over.is_set():
                return False
            self._publish(points, fault, arrays=not late)
            note = f", fault {fault.name}" if fault else ""
            self._say(f"flew {points.shape[1]} points{note}")
        if fault is Fault.NEVER_FINISH:
            return True
        mine = self._database.finish(BUSY, lambda: not over.is_set())
        if mine and late and not self._clock.wait(self._stopping, EARLY_BY):
            with self._database.locked(BUSY):
                self._publish(points, fault, arrays=True)
        return mine

    def _publish(self, points: np.ndarray, fault: Fault, *, arrays: bool) -> None:
        """Show the last of these points and, if asked, fill the arrays; called with the record locked."""
        self._database.put("position", float(points[1, -1]))
        self._database.put("signal", float(points[2, -1]))
        if arrays and fault is not Fault.STALE:
            for name, column in zip(ARRAYS, points, strict=True):
                short = fault is Fault.UNEQUAL and name == ARRAYS[-1] and len(column) > 1
                self._database.put(name, column[:-1] if short else column)

    def _say(self, message: str) -> None:
        if not self._stopping.is_set():
            with self._database.locked(BUSY):
                self._database.put("message", message[:MESSAGE_LENGTH])
