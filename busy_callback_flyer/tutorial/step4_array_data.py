"""Step 4: an array, a point at a time.

The activity measures while it goes on: here, five times, the seconds since kickoff. Nobody sends points one by
one to the plan, they are kept until the flight is over, and go out as *one* page of five rows.

Two things make such data trustworthy. Each point has the time when *it* was measured in ``timestamps``, not that of its
collection, which comes later by as much as the flight took. And the points belong to *their* flight: a kickoff
forgets those of before, a collect takes them away, so that they are filed once, and never as those of another.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from threading import Timer
from typing import Any

import bluesky.plans as bp
from bluesky import RunEngine
from event_model import PartialEventPage

from .documents import print_document
from .step2_template import TemplateFlyer

POINTS = 5
INTERVAL = 0.05
"""Seconds."""


class ArrayDataFlyer(TemplateFlyer):
    """Brings the points of a flight, the elapsed time since kickoff, as one page."""

    def __init__(self, prefix: str = "", *, name: str, **kwargs: Any) -> None:
        super().__init__(prefix, name=name, **kwargs)
        self.t0 = 0.0
        self._times: list[float] = []

    def my_activity(self) -> None:
        """Begin; each point begins the next one, and the last ends the flight."""
        self.t0, self._times = time.time(), []
        self.activity.put(1)
        Timer(INTERVAL, self._measure).start()

    def _measure(self) -> None:
        self._times.append(time.time())
        if len(self._times) < POINTS:
            Timer(INTERVAL, self._measure).start()
        else:
            self.activity.put(0)

    def describe_collect(self) -> dict[str, dict[str, Any]]:
        """A row is a point: to describe the key is to describe one of them."""
        key = {"source": "elapsed time since kickoff", "dtype": "number", "shape": [], "units": "s"}
        return {self.name: {f"{self.name}_x": key}}

    def collect_pages(self) -> Iterator[PartialEventPage]:
        """All points of the flight, once it is over, and once."""
        if self._flight is None or not self._flight.done:
            return
        times, self._times = self._times, []
        if times:  # a page without rows is none
            key = f"{self.name}_x"
            yield {"data": {key: [t - self.t0 for t in times]}, "timestamps": {key: times}, "time": times}


def demonstrate(run_engine: RunEngine) -> None:
    """Nothing before the flight; five points after it; and nothing when asked again."""
    flyer = ArrayDataFlyer(name="ifly")
    print("before:", list(flyer.collect_pages()))
    run_engine(bp.fly([flyer]), print_document)
    print("again: ", list(flyer.collect_pages()))
