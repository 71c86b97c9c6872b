"""Timers of all flyers, on one thread for the process that starts with the first of them.

A deadline is there for what does *not* happen, so setting one must cost the success path
next to nothing: an `Alarm` has at most one entry in the schedule and is set later by
writing a number; only an earlier time wakes the thread.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)


def _nothing() -> None:
    """What an alarm does that was forgotten."""


class Alarm:
    """Calls `action` once the time it is set to has come, in the deadlines' thread.

    Parameters
    ----------
    action : callable
        Called without arguments. It may find that there is nothing to do any more, and it
        must not block: all alarms of the process share the thread.
    """

    def __init__(self, action: Callable[[], None]) -> None:
        self._action = action
        self._due: float | None = None
        self._scheduled: float | None = None  # of our earliest entry in the schedule

    def set(self, due: float | None) -> None:
        """Ring at `due`, in seconds of `time.monotonic`; None: not at all. Replaces what was set."""
        if due is None:
            self._due = None
            return
        with _schedule.changed:
            self._due = due
            if self._scheduled is None or due < self._scheduled:
                _schedule.add(due, self)

    def forget(self) -> None:
        """Never ring again, and let go of the action: the schedule keeps an entry until its time has come."""
        self._due, self._action = None, _nothing

    def _rings(self, entry: float) -> None:
        with _schedule.changed:
            if entry != self._scheduled:
                return  # an earlier entry took over
            self._scheduled = None
            due, self._due = self._due, None
            if due is None:
                return
            if due > time.monotonic():
                self._due = due
                _schedule.add(due, self)
                return
        try:
            self._action()
        except Exception:
            logger.exception("the action of a deadline failed")


class _Schedule:
    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Alarm]] = []
        self._tie_break = itertools.count()
        self.changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def add(self, due: float, alarm: Alarm) -> None:
        """An entry more; to be called with `changed` held."""
        alarm._scheduled = due
        heapq.heappush(self._entries, (due, next(self._tie_break), alarm))
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="busy_callback_flyer deadlines", daemon=True)
            self._thread.start()
        elif self._entries[0][2] is alarm:
            self.changed.notify()

    def _run(self) -> None:
        while True:
            with self.changed:
                while not self._entries or self._entries[0][0] > time.monotonic():
                    wait = self._entries[0][0] - time.monotonic() if self._entries else None
                    self.changed.wait(wait)
                due, _, alarm = heapq.heappop(self._entries)
            alarm._rings(due)
            del alarm  # it may be the last reference to a flyer


_schedule = _Schedule()
