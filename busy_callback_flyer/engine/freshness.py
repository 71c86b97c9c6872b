"""Was an array written since our put? What it bore then, and what tells since.

An array counts as the flight's if it was written since the put of Busy. No clock has to agree with another, or to go
forward:

1. *Ground* is the stamp that the array bore when Busy was put. It is asked for just ahead of the put, on the same
   circuit. An array that is reached in another way is asked first, and the put waits for its answer.
2. A *fresh* array has another stamp than on the ground, and was ever written.
3. Another client's flight between our put and our Busy makes the ground *void*. On the busy record's server only stamps
   later than that flight's Done count. On another server nothing tells.
4. Where the array's connection went since, a stamp tells nothing: a restarted server's differs, too. A flight that
   was rejoined by the very stamp of its Busy shows that the busy record's server was not restarted: its arrays count.
5. The busy record is read behind the arrays. It must still bear our Done's stamp, or another flight may have
   *overtaken* ours. Only an array of the same server whose stamp is not after our Done is ours all the same.

Only what is not fresh may still become so. A number that counts points is judged by the last two alone.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from .deadlines import Alarm
from .errors import CollectError, StaleArrayError
from .ports import BUSY, DONE, NEVER, ArrayChannel, BusyChannel, Reading, ValueChannel
from .timeline import dated

ASK_AGAIN = 0.02
"""Seconds before an array that has not connected yet is looked at again, ahead of the put."""


class Written(NamedTuple):
    """An array, or what counts points, as it was read after a flight."""

    attr: str
    pv: str
    stamp: float
    counts: bool = False
    """Whether it counts points, and may be older than the flight."""


class _Before(NamedTuple):
    stamp: float | None
    connections: int
    elsewhere: bool


class NotFresh(StaleArrayError):
    """An array was not written since the put, and may still be on its way."""


def _can_lag(channel: ArrayChannel, busy: BusyChannel) -> bool:
    """Whether a put could be served before what the channel was asked ahead of it."""
    return not busy.keeps_order or served_elsewhere(channel, busy)


def served_elsewhere(channel: ArrayChannel | ValueChannel, busy: BusyChannel) -> bool:
    """Whether another server has it than the busy record: another clock, and another circuit."""
    host, own = getattr(channel, "host", None), busy.host
    return host is not None and own is not None and host != own


def of_one_server(channel: ArrayChannel | ValueChannel, busy: BusyChannel) -> bool:
    """Whether the server of the busy record is known to have it, too: then both have one clock, and one fate."""
    host = getattr(channel, "host", None)
    return host is not None and host == busy.host


class Ground:
    """What the arrays of a flight bore when its put of Busy went out.

    Parameters
    ----------
    arrays : mapping of str to ArrayChannel
        By attribute; those whose age counts.
    counters : mapping of str to ValueChannel
        By attribute; what counts points.
    record : BusyChannel
        To the busy record of the flight.
    """

    def __init__(
        self, arrays: Mapping[str, ArrayChannel], counters: Mapping[str, ValueChannel], record: BusyChannel
    ) -> None:
        self._arrays = arrays
        self._counters = counters
        self._record = record
        self._seen: Reading | None = None  # of the record, at the put
        self._lock = threading.Lock()
        self._before: dict[str, _Before] = {}
        self._troubles: dict[str, str] = {}  # what was asked and has not answered, or why it could not
        self._ahead: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._arrays or self._counters)

    @property
    def awaited(self) -> str:
        """What has not answered and why, for messages; empty where all is known."""
        with self._lock:
            return ", ".join(self._troubles.values())

    def adopt(self, earlier: Ground) -> bool:
        """Take over what the put of a taxi found; False where it is not complete, or the record has changed since."""
        seen, now = earlier._seen, self._record.reading
        if seen is None or now is None or (seen.value, seen.stamp) != (now.value, now.stamp):
            return False
        channels, before = self._channels, dict(earlier._before)
        kept = before.keys() == channels.keys() and all(
            channels[attr].connections == one.connections for attr, one in before.items()
        )
        if kept:
            with self._lock:
                self._before, self._troubles = before, {}
        return kept

    def keep(self) -> None:
        """The connection to the busy record went and came back, and its server had not been restarted."""
        with self._lock:
            self._before = {
                attr: before if before.elsewhere else before._replace(connections=self._channels[attr].connections)
                for attr, before in self._before.items()
            }

    # Ahead of the put

    def ask_ahead(self, channel: BusyChannel, passed: Callable[[], None], over: Callable[[], bool]) -> None:
        """Wait for all to be connected, and ask those that a put on this channel could overtake; then call `passed`.

        Gives up silently where it is `over`; `awaited` says what is missing then.
        """
        if over():
            return
        if self._problems():
            passed()  # which refuses
            return
        again = partial(self.ask_ahead, channel, passed, over)
        absent = [one for one in self._channels.values() if not one.ready]
        ahead = {} if absent else {attr: one for attr, one in self._arrays.items() if _can_lag(one, channel)}
        with self._lock:
            self._troubles = {one.pv: f"{one.pv} is not connected" for one in absent}
            self._troubles |= {attr: f"{one.pv} does not answer" for attr, one in ahead.items()}
            self._ahead = set(ahead)
        if absent:
            Alarm(again).set(time.monotonic() + ASK_AGAIN)
        elif not ahead:
            passed()
        unanswered = set(ahead)

        def answered(attr: str, connections: int, answer: float | str) -> None:
            self._answered(attr, ahead[attr], connections, answer)
            with self._lock:
                unanswered.discard(attr)
                pending, troubled = bool(unanswered), bool(self._troubles)
            if pending:
                return
            if troubled:
                Alarm(again).set(time.monotonic() + ASK_AGAIN)
            elif not over():
                passed()

        for attr, one in ahead.items():
            one.fetch_stamp(partial(answered, attr, one.connections))

    def ask_along(self) -> str | None:
        """Ask the others, right ahead of the put; says why where that cannot be done."""
        why_not = self._problems() or [f"{one.pv} is not connected" for one in self._channels.values() if not one.ready]
        if why_not:
            return "; ".join(why_not)
        self._seen = self._record.reading
        along = {attr: channel for attr, channel in self._arrays.items() if attr not in self._ahead}
        counted = {attr: self._now(counter, None, counter.connections) for attr, counter in self._counters.items()}
        with self._lock:
            self._before |= counted
            self._troubles = {attr: f"{channel.pv} does not answer" for attr, channel in along.items()}
        for attr, channel in along.items():
            channel.fetch_stamp(partial(self._answered, attr, channel, channel.connections))
        return None

    def _answered(self, attr: str, channel: ArrayChannel, connections: int, answer: float | str) -> None:
        before = None if isinstance(answer, str) else self._now(channel, answer, connections)
        with self._lock:
            if before is None:
                self._troubles[attr] = f"{channel.pv} could not be read ({answer})"
            else:
                self._before[attr] = before
                self._troubles.pop(attr, None)

    def _now(self, channel: ArrayChannel | ValueChannel, stamp: float | None, connections: int) -> _Before:
        """What it bears; asked outside the lock, as hosts are asked of the control system."""
        return _Before(stamp, connections, not of_one_server(channel, self._record))

    def _problems(self) -> list[str]:
        """Why channels that have connected are of no use."""
        problems = [getattr(channel, "problem", None) for channel in self._channels.values()]
        return [problem for problem in problems if problem is not None]

    @property
    def _channels(self) -> dict[str, ArrayChannel | ValueChannel]:
        return {**self._arrays, **self._counters}

    # After the flight

    def check_kept(self, written: Sequence[Written]) -> None:
        """Refuse what lost its connection since the put.

        Raises
        ------
        StaleArrayError
        """
        channels = self._channels
        lost = [
            one
            for one in written
            if one.attr in self._before and channels[one.attr].connections != self._before[one.attr].connections
        ]
        if lost:
            raise StaleArrayError(
                f"the connection was lost since the put of Busy, so their stamps tell nothing: {_stamped(lost)}. "
                "Was the IOC restarted? Fly again"
            )

    def check_not_overtaken(self, written: Sequence[Written], done: float, after: Reading | None) -> None:
        """Refuse what another flight may have written.

        Parameters
        ----------
        written : sequence of Written
        done : float
            Stamp of the flight's Done.
        after : Reading or None
            What the busy record said behind the arrays; None: it could not be read.

        Raises
        ------
        StaleArrayError
            Names each array, its stamp, and those of Done and of what came after.
        CollectError
            The busy record could not be read.
        """
        if not written:
            return
        if after is None:
            raise CollectError(
                "the busy record could not be read after the arrays, so another flight may have written them: "
                f"{_stamped(written)}"
            )
        if after.value == DONE and after.stamp == done:
            return
        went_forward = after.stamp > done  # else its clock tells nothing
        overtaken = [one for one in written if one.stamp > done or not went_forward or self._is_elsewhere(one)]
        if overtaken:
            became = "Busy" if after.value == BUSY else "Busy and Done" if after.value == DONE else f"{after.value}"
            raise StaleArrayError(
                f"overtaken by another flight: this one was Done at {dated(done)}, and the record has since become "
                f"{became} ({dated(after.stamp)}): {_stamped(overtaken)}. Does another client use the busy record, or "
                "does the controller write its arrays long after Done?"
            )

    def _is_elsewhere(self, one: Written) -> bool:
        return not of_one_server(self._channels[one.attr], self._record)

    def check_fresh(self, written: Sequence[Written], foreign_done: float | None) -> None:
        """Refuse what was not written since the put.

        Parameters
        ----------
        written : sequence of Written
        foreign_done : float or None
            Stamp of the latest Done of another client's flight since our put; infinite where it is not known.

        Raises
        ------
        NotFresh
            It may still come.
        StaleArrayError
            Nothing will tell.
        """
        aged = [one for one in written if not one.counts]
        unknown = [one for one in aged if one.attr not in self._before]
        if unknown:
            raise StaleArrayError(f"their stamps at the put of Busy are not known: {self.awaited or _stamped(unknown)}")
        if foreign_done is not None:
            untold = [one for one in aged if self._is_elsewhere(one)]
            if untold or (aged and math.isinf(foreign_done)):
                raise StaleArrayError(
                    "another client flew the busy record between the put and the flight, so they may be of its "
                    f"flight: {_stamped(untold or aged)}. Does another client use the record?"
                )
            theirs = [one for one in aged if one.stamp <= foreign_done]
            if theirs:
                raise NotFresh(
                    "another client flew the busy record between the put and the flight, until "
                    f"{dated(foreign_done)}, and they were not written since: {_stamped(theirs)}"
                )
        same = [one for one in aged if one.stamp == NEVER or one.stamp == self._before[one.attr].stamp]
        if same:
            raise NotFresh(
                f"not written since the put of Busy: {_stamped(same)}. Does the controller write them before Done, or "
                "within fresh_timeout after it? Stamps that stand still (TSE=-2), are coarse, or are made at reading "
                "cannot tell: fresh=False in Component(Waveform) takes an array as it is"
            )


def _stamped(written: Sequence[Written]) -> str:
    return ", ".join(
        f"{one.pv} ({'never written' if one.stamp == NEVER else f'stamp {dated(one.stamp)}'})" for one in written
    )
