"""Asks for what a flight brought when it is Done, judges it, asks again, describes it and makes pages of it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
from event_model import DataKey, PartialEventPage

from .deadlines import Alarm
from .errors import CollectError, FlightRefused, RaggedArrayError, StaleArrayError
from .flight import Flight
from .form import Form
from .freshness import Ground, NotFresh, Written, served_elsewhere
from .options import Options
from .pages import (
    Column,
    Scalar,
    array_page,
    check_declared,
    check_lengths,
    data_key,
    event_pages,
    first_points,
    nord_key,
    point_times,
    text_key,
    truncated,
)
from .ports import ArrayChannel, ArrayReading, BusyChannel, Reading, ValueChannel, ValueReading
from .text import decoded
from .timeline import Timeline
from .times import doubt

logger = logging.getLogger(__name__)

FRESH_INTERVAL, LONGEST_INTERVAL = 0.01, 0.5
"""Seconds before arrays that are too old are asked for again, at first and at most; twice as many each time."""

PATIENCE = 5.0
"""Seconds that all may need to answer together, beside what each of them may need."""

_BUSY_AFTER = "the busy record, after the arrays"  # no component has such a name

_Answer = ArrayReading | ValueReading | Reading | str | None


@dataclass(frozen=True)
class ArraySpec:
    """A column: where it comes from, and how it is judged.

    Attributes
    ----------
    attr : str
        Name of its component.
    key : str
        Data key.
    channel : ArrayChannel
    fresh : bool
        Whether it must have been written since the put of Busy.
    units : str or None
        Where the record has none.
    text : bool
        Its characters are one text, the same for all points.
    """

    attr: str
    key: str
    channel: ArrayChannel
    fresh: bool = True
    units: str | None = None
    text: bool = False


@dataclass(frozen=True)
class ValueSpec:
    """A value that is read once a flight.

    Attributes
    ----------
    attr : str
        Name of its component.
    key : str
        Data key.
    channel : ValueChannel
    emitted : bool
        Whether it stands beside each point; else it only counts the points.
    """

    attr: str
    key: str
    channel: ValueChannel
    emitted: bool = True


class FlightData(NamedTuple):
    """What one flight brought, judged."""

    columns: list[Column]
    scalars: list[Scalar]

    @property
    def points(self) -> int:
        """How many points there are; one, where there are values and no array."""
        return max((len(column.values) for column in self.columns), default=min(len(self.scalars), 1))


Land = Callable[[FlightData | Exception], None]
"""Takes what became of a flight's arrays; what comes after the first is of no interest."""


class Collector:
    """Collects the arrays and values of one flyer.

    Parameters
    ----------
    name : str
        Of the flyer, for messages.
    arrays : sequence of ArraySpec
        Its columns, in order.
    busy : BusyChannel
        Asked behind the arrays: was the record left alone while they were read?
    """

    def __init__(self, name: str, arrays: Sequence[ArraySpec], busy: BusyChannel) -> None:
        self.name = name
        self.arrays = arrays
        self.busy = busy

    @property
    def attrs(self) -> list[str]:
        """Names of its columns' components, in order."""
        return [spec.attr for spec in self.arrays]

    @property
    def numbers(self) -> dict[str, str]:
        """Data keys of the columns that are no text, by attribute."""
        return {spec.attr: spec.key for spec in self.arrays if not spec.text}

    def describe(self, options: Options, values: Sequence[ValueSpec]) -> dict[str, DataKey]:
        """Describe what the pages bring, by data key.

        Raises
        ------
        FlightRefused
            A PV is not connected, or holds no numbers.
        """
        keys: dict[str, DataKey] = {}
        for spec in self.arrays:
            channel, dtype = spec.channel, spec.channel.dtype
            if channel.problem is not None or dtype is None:
                raise FlightRefused(channel.problem or f"{channel.pv} is not connected")
            description = channel.description
            if spec.text:
                keys[spec.key] = text_key(description["source"])
                continue
            if spec.attr == options.time_array:  # they become seconds since the start
                description, dtype = {**description, "units": "s"}, np.dtype(np.float64)
            length = (options.array_length or channel.size) if options.layout == "array" else None
            keys[spec.key] = data_key(description, dtype, units=spec.units, length=length)
            if length is not None:
                keys[f"{spec.key}_nord"] = nord_key(description["source"])
        return keys | {value.key: cast(DataKey, value.channel.description) for value in values if value.emitted}

    def form(self, options: Options, values: Sequence[ValueSpec]) -> Form:
        """What a description of such a flight fixes for all flights of a run."""
        keys = [spec.key for spec in self.arrays] + [value.key for value in values if value.emitted]
        return Form(
            None if options.describe == "flat" else options.stream_name or self.name,
            options.layout,
            options.array_length if options.layout == "array" else None,
            options.time_array,
            tuple(sorted(keys)),
        )

    def ground(self, points: str | None, values: Sequence[ValueSpec]) -> Ground:
        """What will tell whether the columns were written since the put; `points` names the value that counts them."""
        arrays = {spec.attr: spec.channel for spec in self.arrays if spec.fresh}
        counters = {value.attr: value.channel for value in values if value.attr == points}
        return Ground(arrays, counters if arrays else {}, self.busy)

    def fetch(self, flight: Flight, ground: Ground, values: Sequence[ValueSpec], land: Land) -> None:
        """Ask for all that a finished flight brought, without waiting for it; a deadline ends it."""
        _Fetch(self, flight, ground, values, land).ask()

    def pages(self, data: FlightData, timeline: Timeline, options: Options) -> Iterator[PartialEventPage]:
        """Format it as event pages."""
        t0, done = timeline.t0, timeline["done"].stamp
        assert t0 is not None
        assert done is not None
        columns, scalars = data
        time_key = next((spec.key for spec in self.arrays if spec.attr == options.time_array), None)
        times = point_times(columns, time_key, options.time_origin, t0=t0, done=done)
        for column in columns:
            if column.key == time_key and (why := doubt(column.values, options.time_origin, timeline)) is not None:
                logger.warning("%s, %s: %s", self.name, column.pv, why)
        if options.layout == "array":
            lengths = self.declared_lengths(options)
            yield array_page(columns, time_key, times, lengths, t0=t0, done=done, scalars=scalars)
        else:
            yield from event_pages(columns, time_key, times, t0=t0, page_size=options.page_size, scalars=scalars)

    def declared_lengths(self, options: Options) -> dict[str, int]:
        """Elements of each cell of layout "array", by data key."""
        return {spec.key: options.array_length or spec.channel.size for spec in self.arrays}


class _Fetch:
    """What one flight brought, on its way: asked for round by round, as long as it may still come."""

    def __init__(
        self, collector: Collector, flight: Flight, ground: Ground, values: Sequence[ValueSpec], land: Land
    ) -> None:
        self._collector = collector
        self._flight = flight
        self._ground = ground
        self._values = values
        self._options = flight.options
        self._land = land
        self._until = time.monotonic() + flight.options.fresh_timeout
        self._interval = FRESH_INTERVAL
        self._round: _Round | None = None
        self._overdue = Alarm(self._give_up)

    def ask(self) -> None:
        """For all together, once more."""
        try:
            self._round = asked = _Round(self._collector, self._values, self._gather)
            self._overdue = Alarm(self._give_up)
            self._overdue.set(time.monotonic() + asked.patience)
            asked.ask()
        except Exception as error:  # whatever it is, who waits must hear of it
            self._fail(error)

    def _give_up(self) -> None:
        asked = self._round
        if asked is not None and asked.silent:
            self._land(CollectError(f"no answer within {asked.patience:.3g} s: {'; '.join(asked.silent)}"))

    def _gather(self, answers: Mapping[str, _Answer]) -> None:
        self._overdue.forget()  # or the schedule would keep the arrays
        self._round = None
        now = time.monotonic()
        patient = now < self._until
        self._flight.timeline.mark("arrays", now)
        try:
            data = self._judge(answers, patient=patient)
        except CollectError as error:
            if not isinstance(error, NotFresh):
                self._land(error)
            elif patient:
                Alarm(self.ask).set(min(now + self._interval, self._until))
                self._interval = min(2 * self._interval, LONGEST_INTERVAL)
            else:
                self._land(StaleArrayError(str(error)))  # nothing is awaited any more
        except Exception as error:
            self._fail(error)
        else:
            self._land(data)

    def _fail(self, error: Exception) -> None:
        logger.error("%s: the arrays could not be gathered", self._flight.pv, exc_info=error)
        self._land(CollectError(f"{self._flight.pv}: the arrays could not be gathered: {error!r}"))

    def _judge(self, answers: Mapping[str, _Answer], *, patient: bool) -> FlightData:
        """Make of the answers what the flight brought.

        Raises
        ------
        NotFresh
            An array was not written since the put. It is passed on with a warning, where that is asked for, only if
            nobody is `patient` any more.
        CollectError
            An array could not be had, or is not this flight's, or they do not fit each other.
        """
        numbers: list[Column] = []
        scalars: list[Scalar] = []
        written: list[Written] = []
        for spec in self._collector.arrays:
            answer = _had(answers, spec.attr, spec.channel.pv)
            column = Column(spec.key, spec.channel.pv, answer.values, answer.stamp)
            if spec.fresh:
                written.append(Written(spec.attr, column.pv, column.stamp))
            if spec.text:
                scalars.append(Scalar(spec.key, _text(column), column.stamp))
            else:
                numbers.append(column)
        count = None
        for value in self._values:
            answer = _had(answers, value.attr, value.channel.pv)
            if value.attr == self._options.points:
                if written:
                    written.append(Written(value.attr, value.channel.pv, answer.stamp, counts=True))
                count = _count(value.channel.pv, answer.value)
            if value.emitted:
                scalars.append(Scalar(value.key, _plain(answer.value), answer.stamp))
        self._check_age(written, cast("Reading | None", answers[_BUSY_AFTER]), patient=patient)
        numbers = self._of_one_length(numbers, count)
        if self._options.layout == "array":
            check_declared(numbers, self._collector.declared_lengths(self._options))
        return FlightData(numbers, scalars)

    def _check_age(self, written: list[Written], after: Reading | None, *, patient: bool) -> None:
        done = self._flight.timeline["done"].stamp
        assert done is not None
        try:
            self._ground.check_kept(written)
            self._ground.check_not_overtaken(written, done, after)
            self._ground.check_fresh(written, self._flight.foreign_done)
        except StaleArrayError as error:
            if self._options.on_stale == "error" or (isinstance(error, NotFresh) and patient):
                raise
            logger.warning("%s: %s", self._collector.name, error)

    def _of_one_length(self, columns: list[Column], count: int | None) -> list[Column]:
        try:
            if count is not None:
                return first_points(columns, count)
            check_lengths(columns)
        except RaggedArrayError as error:
            if self._options.on_ragged == "error":
                raise
            if self._options.on_ragged == "warn":
                logger.warning("%s keeps as many points as all arrays have: %s", self._collector.name, error)
            return truncated(columns)
        return columns


class _Round:
    """One request for each channel, and the busy record behind them: was it left alone while they were read?"""

    def __init__(
        self, collector: Collector, values: Sequence[ValueSpec], done: Callable[[Mapping[str, _Answer]], None]
    ) -> None:
        self._busy = collector.busy if collector.arrays else None
        self._channels: dict[str, ArrayChannel | ValueChannel] = {spec.attr: spec.channel for spec in collector.arrays}
        self._channels |= {value.attr: value.channel for value in values}
        # Arrays on the busy record's circuit are served before it, in order. Others have to be in by then.
        self._ahead_of_busy = {value.attr for value in values} | {
            spec.attr
            for spec in collector.arrays
            if not collector.busy.keeps_order or served_elsewhere(spec.channel, collector.busy)
        }
        self._done = done
        self._lock = threading.Lock()
        self._answers: dict[str, _Answer] = {}

    @property
    def patience(self) -> float:
        """Seconds after which all has to be here."""
        return PATIENCE + sum(channel.patience for channel in self._channels.values())

    @property
    def silent(self) -> list[str]:
        """Who has not answered, and what can be done about it."""
        with self._lock:
            asked = [channel for attr, channel in self._channels.items() if attr not in self._answers]
            busy = self._busy if _BUSY_AFTER not in self._answers else None
        if asked or busy is None:
            return [f"{channel.pv} ({channel.why_silent})" for channel in asked]
        return [f"{busy.pv}, behind the arrays (does the IOC answer?)"]

    def ask(self) -> None:
        in_order = not self._ahead_of_busy
        for attr, channel in self._channels.items():
            channel.fetch(partial(self._answered, attr))
        if in_order:
            self._ask_busy()

    def _ask_busy(self) -> None:
        if self._busy is None:
            self._answered(_BUSY_AFTER, None)
        else:
            self._busy.read(partial(self._answered, _BUSY_AFTER))

    def _answered(self, attr: str, answer: _Answer) -> None:
        with self._lock:
            self._answers[attr] = answer
            last_ahead = self._ahead_of_busy == {attr}
            self._ahead_of_busy.discard(attr)
            complete = len(self._answers) == len(self._channels) + 1
        if last_ahead:
            self._ask_busy()
        if complete:
            self._done(self._answers)


def _count(pv: str, value: Any) -> int:
    try:
        count = int(value)
    except (TypeError, ValueError, OverflowError):
        count = -1
    if count < 0 or count != value:
        raise CollectError(f"{pv} counts no points: it says {value!r}")
    return count


def _had(answers: Mapping[str, _Answer], attr: str, pv: str) -> Any:
    answer = answers[attr]
    if isinstance(answer, str):
        raise CollectError(f"{pv} could not be read after the flight: {answer}")
    return answer


def _text(column: Column) -> str:
    if column.values.dtype != np.uint8:
        raise CollectError(
            f"{column.pv} is no text: it holds {column.values.dtype}, and characters (FTVL CHAR) are needed"
        )
    return decoded(column.values.tobytes())


def _plain(value: Any) -> Any:
    """As Python has it, which every document writer can take."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
