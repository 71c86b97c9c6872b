"""How far a flight is, for those who watch: points that are counted, or time that passes.

Nothing of it is on the completion path. The counter is listened to only while somebody watches, and
its handler does no more than keep the latest value; between its first call, which is made at once, and
its last a watcher is called at most 10 times a second, in a thread of the flyer's watchers.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from .deadlines import Alarm
from .flight import Flight
from .ports import CountChannel

logger = logging.getLogger(__name__)

INTERVAL = 0.1
"""Seconds between two calls of a watcher, at least."""

Watcher = Callable[..., Any]
"""Called with keywords, as bluesky's progress bars are; see `Progress.now`."""


class Status(Protocol):
    """What is watched: a status of ophyd, or its like."""

    @property
    def done(self) -> bool:
        """Whether it is."""

    def add_callback(self, callback: Callable[[Any], Any]) -> None:
        """Call it when it is done."""


class Progress:
    """Tells watchers how far a flight is, until their statuses are done.

    Parameters
    ----------
    name : str
        Of the flyer.
    flight : Flight
    later : callable
        Does what it is given in a thread where watchers may take their time.
    listen : callable or None
        Begins to listen to what counts points; None: time counts.
    expect : callable
        What there will be in the end, points or seconds; None where nobody knows. It may block.
    busy_host : callable
        Who serves the busy record, where that is known: the age of a count is not judged by the stamps of
        two IOCs. It may block.
    """

    def __init__(
        self,
        name: str,
        flight: Flight,
        later: Callable[[Callable[[], None]], object],
        listen: Callable[[], CountChannel] | None,
        expect: Callable[[], object],
        busy_host: Callable[[], str | None],
    ) -> None:
        self._name = name
        self._flight = flight
        self._later = later
        self._listen = listen
        self._expect = expect
        self._busy_host = busy_host
        self._target: float | None = None
        self._counter: CountChannel | None = None
        self._judged = True  # by its age
        self._count: float | None = None  # the latest that was told
        self._lock = threading.Lock()
        self._watchers: list[tuple[Status, Watcher]] = []
        self._alarm = Alarm(self._tell_later)

    def watch(self, status: Status, func: Watcher) -> None:
        """Call `func` now, then now and then, and once more when the status is done."""
        func(**self.now())
        with self._lock:
            first = not self._watchers
            self._watchers.append((status, func))
        if first and not self._flight.over:
            self._later(self._begin)
        status.add_callback(lambda status: self._later(partial(self._end, status, func)))

    def now(self) -> dict[str, Any]:
        """What watchers are told, as keywords.

        ``name``, and from the put of Busy on ``time_elapsed`` (s), ``current``, ``initial`` (0), ``target`` and
        ``unit`` ("points" or "s"), ``precision``, and where there is a target ``fraction``, of what is still to
        come, and ``time_remaining`` (s).
        """
        timeline = self._flight.timeline
        facts: dict[str, Any] = {"name": self._name}
        put = timeline.get("put")
        if put is None:
            return facts
        end = timeline.get("finished") or timeline.get("failed")
        elapsed = max(0.0, (time.time() if end is None else end.client) - put.client)
        current = elapsed if self._listen is None else self._counted()
        if current is None:
            return facts
        facts |= {"current": current, "initial": 0, "target": self._target, "time_elapsed": elapsed}
        facts |= {"unit": "s" if self._listen is None else "points", "precision": 1 if self._listen is None else 0}
        if self._target is not None:
            done = 1.0 if self._flight.finished else min(1.0, current / self._target)
            facts["fraction"] = 1.0 - done
            if done > 0:
                facts["time_remaining"] = elapsed * (1.0 - done) / done
        return facts

    def _counted(self) -> float | None:
        counter = self._counter
        latest = None if counter is None else counter.latest
        if counter is not None and latest is not None:
            busy = self._flight.timeline.get("busy") if self._judged else None
            since = None if busy is None else busy.stamp
            old = latest is counter.first and since is not None and latest.stamp < since
            if old or "busy" not in self._flight.timeline:  # it is of an earlier flight
                self._count = None if self._flight.over else 0
            else:
                self._count = _number(latest.value)
        return self._count

    def _tell_later(self) -> None:
        self._later(self._tell)

    # In the thread of the watchers

    def _begin(self) -> None:
        try:
            if self._counter is None and self._listen is not None:
                self._counter = self._listen()
            self._target = _number(self._expect()) or None
        except Exception as error:  # each control layer has its own
            logger.info("%s: how far it will fly is not known: %r", self._name, error)
        finally:
            self._alarm.set(time.monotonic() + INTERVAL)

    def _tell(self) -> None:
        counter = self._counter
        if counter is not None and counter.host is not None:
            self._judged = self._busy_host() in (None, counter.host)
        with self._lock:
            watchers = [(status, func) for status, func in self._watchers if not status.done]
        for status, func in watchers:
            self._call(status, func, self.now())
        if watchers:
            self._alarm.set(time.monotonic() + INTERVAL)

    def _end(self, status: Status, func: Watcher) -> None:
        with self._lock:
            known = (status, func) in self._watchers
        if known:  # else it failed before
            facts = self.now()
            self._call(status, func, facts if "fraction" in facts else facts | {"fraction": 0.0})
            self._forget(status, func)

    def _call(self, status: Status, func: Watcher, facts: dict[str, Any]) -> None:
        try:
            func(**facts)
        except Exception:
            logger.exception("%s: a watcher failed, and is told no more", self._name)
            self._forget(status, func)

    def _forget(self, status: Status, func: Watcher) -> None:
        with self._lock:
            if (status, func) in self._watchers:
                self._watchers.remove((status, func))
            counter = None if self._watchers else self._counter
            if counter is not None:
                self._counter = None
        if counter is not None:
            counter.close()


def _number(value: Any) -> float | None:
    """None for what no bar can be drawn of."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number >= 0 else None
