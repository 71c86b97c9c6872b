"""When the steps of a flight happened, by the client's clock and by the server's stamps."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple, cast

STEPS = {
    "put": "Busy is put",
    "busy": "the record is Busy",
    "done": "the record is Done",
    "callback": "the put-callback is back",
    "finished": "the flight is finished",
    "arrays": "the arrays are in hand",
    "collected": "the arrays are collected",
    "failed": "the flight has failed",
}
"""The steps of a flight, as its timeline tells them."""


def dated(stamp: float) -> str:
    """Say in local time what a stamp is, to the microsecond; a number where it is no date."""
    try:
        return datetime.fromtimestamp(stamp).astimezone().isoformat(" ", "microseconds")
    except (ValueError, OverflowError, OSError):  # not a number, or of no calendar
        return f"{stamp:.6f}"


class Mark(NamedTuple):
    """A step of a flight: when the client knew, and the server's stamp if the news bore one."""

    step: str
    client: float
    stamp: float | None


Times = tuple[float, float | None]
"""When the client knew, by its monotonic clock, and the server's stamp."""


class Timeline:
    """When a flight's steps happened.

    Iterate over it for its marks, in the order in which they became known; ``timeline["done"]``
    is one of them, ``"done" in timeline`` asks for it. As a string it is a table.

    Parameters
    ----------
    clock_offset : float
        Wall-clock time minus the monotonic clock that the flight is told, in seconds.
    pv : str
        Of the busy record, for its readers.

    Attributes
    ----------
    error : Exception or None
        Why the flight failed.
    t0_note : str
        Where `t0` comes from.
    stamps_stand_still : bool
        The record's stamps do not tell when it changed.
    """

    def __init__(self, clock_offset: float = 0.0, pv: str = "") -> None:
        self._offset = clock_offset
        self._pv = pv
        self._times: dict[str, Times] = {}  # marks are made when somebody asks, off the completion path
        self.error: Exception | None = None
        self.t0_note = "client's time of the put: Busy was not seen"
        self.stamps_stand_still = False

    def mark(self, step: str, now: float, stamp: float | None = None) -> None:
        """Note that `step` became known `now`; a step that comes again keeps its latest news."""
        self._times[step] = (now, stamp)

    def noted(self, *steps: str) -> dict[str, Times]:
        """These steps, to be put back by `restore`."""
        return {step: self._times[step] for step in steps}

    def restore(self, times: dict[str, Times]) -> None:
        """Put back steps as they were noted before."""
        self._times |= times

    def forget(self, step: str) -> None:
        """Take back a step that turned out to be somebody else's."""
        self._times.pop(step, None)

    def __iter__(self) -> Iterator[Mark]:
        return iter(sorted((self[step] for step in list(self._times)), key=lambda mark: mark.client))

    def __contains__(self, step: object) -> bool:
        return step in self._times

    def __getitem__(self, step: str) -> Mark:
        now, stamp = self._times[step]
        return Mark(step, now + self._offset, stamp)

    def get(self, step: str) -> Mark | None:
        """A step, if it is there."""
        times = self._times.get(step)  # asked once: others may read it while the flight goes on
        return None if times is None else Mark(step, times[0] + self._offset, times[1])

    @property
    def t0(self) -> float | None:
        """Start of the flight, seconds of the POSIX epoch: the server's stamp of Busy, else the put."""
        busy, put = self.get("busy"), self.get("put")
        if busy is not None and busy.stamp is not None:
            return busy.stamp
        return None if put is None else put.client

    def when(self, step: str) -> float | None:
        """Time of a step, seconds of the POSIX epoch, by the server's stamp if there is one; None: it is not there."""
        mark = self.get(step)
        return None if mark is None else mark.client if mark.stamp is None else mark.stamp

    @property
    def why_no_delays(self) -> str | None:
        """Why stamps and client times cannot be compared; None where they can.

        A stamp of this flight lies between the put and the news of it. Where one does not, the two clocks differ.
        """
        if self.stamps_stand_still:
            return "the record's stamps stand still"
        put = self.get("put")
        marks = [mark for mark in (self.get("busy"), self.get("done")) if mark is not None and mark.stamp is not None]
        if put is None or all(put.client <= cast(float, mark.stamp) <= mark.client for mark in marks):
            return None
        return "the IOC's clock and this one differ"

    @property
    def latency(self) -> float | None:
        """Seconds from the stamp of Done to the finished status; None where they are not known, or do not compare."""
        done, finished = self.get("done"), self.get("finished")
        if done is None or done.stamp is None or finished is None or self.why_no_delays is not None:
            return None
        return finished.client - done.stamp

    def __str__(self) -> str:
        marks = list(self)
        if not marks:
            return "no flight yet"
        start = marks[0].client
        when = datetime.fromtimestamp(start).astimezone().isoformat(" ", "milliseconds")
        lines = [f"{self._pv}, seconds since {when}", "step         IOC stamp      client        delay"]
        why_not = self.why_no_delays
        for step, client, stamp in marks:
            stamped = "" if stamp is None else f"{stamp - start:.6f}"
            delay = "" if stamp is None or why_not is not None else f"{1e3 * (client - stamp):.3f} ms"
            lines.append(f"{step:<10}{stamped:>12}{client - start:12.6f}{delay:>13}   {STEPS[step]}")
        if why_not is not None:
            lines.append(f"no delays: {why_not}")
        if self.latency is not None:
            lines.append(f"finished {1e3 * self.latency:.3f} ms after the IOC's Done")
        if self.t0 is not None:
            lines.append(f"t0, from which the points' times count, is the {self.t0_note}")
        if self.error is not None:
            lines.append(f"{type(self.error).__name__}: {self.error}")
        return "\n".join(lines)

    __repr__ = __str__  # what a prompt shows
