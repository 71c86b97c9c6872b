"""Very many flights: hangs, early and duplicate finishes and arrays of another flight are counted, and what grows.

The first point of x is the number of the flight, modulo `MARKS`. It is put right before `kickoff`, and not waited for.
"""

from __future__ import annotations

import gc
import logging
import random
import threading
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

import psutil
from ophyd import EpicsSignal
from tqdm import tqdm

from busy_callback_flyer import BusyFlyer, FlightError, StaleArrayError

# isort: split
import epics

from .stage import BUSY, DURATION, PREFIX

HANG = 30.0
"""Seconds after which a flight counts as hung; the longest is to take 0.05."""

POINTS = 5
MARKS = 1000
"""The controller takes no first point above."""

MOST_GROWTH = 8.0
"""MB that the process may grow by after the first tenth of the flights."""


def run(flights: int, random_flights: int, events: Iterable[Literal["direct", "ophyd"]]) -> int:
    """Fly; print the counts. 1 where one of them is not 0, or something grew."""
    errors = _Errors()
    logging.getLogger().addHandler(errors)
    epics.caput(f"{PREFIX}npts", POINTS, wait=True)
    duration = EpicsSignal(DURATION, name="duration")
    duration.wait_for_connection(timeout=10)
    good = True
    for kind in events:
        soak = _Soak(BusyFlyer(PREFIX, name="ifly", events=kind), duration)
        for name, lengths in (
            (f"{kind}, zero length", [0.0] * flights),
            (f"{kind}, random length", random.Random(1).choices([n / 1000 for n in range(51)], k=random_flights)),
        ):
            if lengths:
                good &= soak.fly(name, lengths)
    if errors.count:
        print(f"MISS {errors.count} errors were logged, the first: {errors.first}")
    return int(not good or errors.count > 0)


class _Soak:
    def __init__(self, flyer: BusyFlyer, duration: EpicsSignal) -> None:
        flyer.wait_for_connection(timeout=10)
        self._flyer = flyer
        self._duration = duration
        self._first = EpicsSignal(f"{PREFIX}start", name="first")
        self._first.wait_for_connection(timeout=10)
        self._record = epics.get_pv(BUSY, connect=True, timeout=10)
        self._last_done = 0.0
        self._finishes: list[object] = []

    def fly(self, name: str, lengths: list[float]) -> bool:
        """Fly these lengths (s), and print a line of what went wrong."""
        wrong: Counter[str] = Counter()
        before = _Footprint()
        for number, length in enumerate(tqdm(lengths, desc=name, mininterval=1, disable=None)):
            if number == len(lengths) // 10:
                before = _Footprint()
            self._one(number, length, wrong)
        self._count_finishes(wrong)
        growth = _Footprint().since(before)
        counts = ", ".join(f"{wrong[what]} {what}" for what in WRONGS)
        good = not sum(wrong.values()) and growth.flat
        print(f"{'ok  ' if good else 'MISS'} {name}: {len(lengths)} flights: {counts}; {growth}", flush=True)
        return good

    def _count_finishes(self, wrong: Counter[str]) -> None:
        """Of the flight before: a second one may come late."""
        wrong["missing finishes"] += len(self._finishes) == 0
        wrong["duplicate finishes"] += len(self._finishes) > 1

    def _one(self, number: int, length: float, wrong: Counter[str]) -> None:
        flyer = self._flyer
        if length:
            self._duration.put(length, wait=True)
        elif number == 0:
            self._duration.put(0.0, wait=True)
        self._first.put(float(number % MARKS))
        status = flyer.kickoff()
        if number:
            self._count_finishes(wrong)
        finishes: list[object] = []
        self._finishes = finishes
        status.add_callback(finishes.append)
        try:
            status.wait(HANG)
        except FlightError as error:
            wrong["failures"] += 1
            print(error)
            return
        except TimeoutError:
            wrong["hangs"] += 1
            print(flyer.timeline)
            flyer.stop()
            return
        said = self._record.get_with_metadata(form="time", use_monitor=False, timeout=HANG)
        timeline = flyer.timeline
        done, busy = timeline["done"].stamp, timeline["busy"].stamp if "busy" in timeline else None
        assert done is not None
        # What the record says now is later than the finish: still Busy, or Done of another stamp, means early.
        early = said["value"] != 0 or abs(said["timestamp"] - done) > 2e-6 or done <= self._last_done
        early = early or (busy is not None and done - busy < length)
        if early:
            print(
                f"the record says {said['value']}, stamp {said['timestamp']:.6f}, and the flight of {length:g} s said:"
            )
            print(timeline, flush=True)
        wrong["early finishes"] += early
        self._last_done = done
        x: list[float] = []
        try:
            flyer.complete().wait(HANG)
            x = [value for page in flyer.collect_pages() for value in page["data"]["ifly_xArr"]]
        except StaleArrayError as error:
            wrong["stale"] += 1
            print(error)
            return
        except Exception as error:
            print(repr(error))
        wrong["wrong pages"] += len(x) != POINTS or x[0] != number % MARKS


WRONGS = ("hangs", "failures", "early finishes", "duplicate finishes", "missing finishes", "stale", "wrong pages")


class _Footprint:
    """Threads, file handles and memory of this process."""

    def __init__(self) -> None:
        gc.collect()
        process = psutil.Process()
        self.threads = threading.active_count()
        self.handles = process.num_fds()
        self.megabytes = process.memory_info().rss / 1e6
        self.grown: _Footprint | None = None

    def since(self, before: _Footprint) -> _Footprint:
        self.grown = before
        return self

    @property
    def flat(self) -> bool:
        before = self.grown
        assert before is not None
        grew = self.megabytes - before.megabytes
        return self.threads <= before.threads and self.handles <= before.handles and grew < MOST_GROWTH

    def __str__(self) -> str:
        before = self.grown
        assert before is not None
        return (
            f"after a tenth and at the end {before.threads}, {self.threads} threads, "
            f"{before.handles}, {self.handles} file handles, {before.megabytes:.0f}, {self.megabytes:.0f} MB"
        )


class _Errors(logging.Handler):
    """Counts what is logged as an error: an exception in a handler reaches nobody else."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.count = 0
        self.first = ""

    def emit(self, record: logging.LogRecord) -> Any:
        self.count += 1
        self.first = self.first or self.format(record)
