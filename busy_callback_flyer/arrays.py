"""What a flyer collects: asked for together when a flight is Done, judged, described and made into pages."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import numpy as np
from event_model import DataKey, PartialEventPage
from ophyd import Signal

from .channel import ArrayChannel, ArrayLine, ArrayReading, ArraySignal, ScalarReading, ScalarSignal, Worker
from .deadlines import Alarm
from .flight import Flight, FlightRefused, Reading, Timeline, require_one_of, require_seconds
from .pages import (
    CollectError,
    Column,
    RaggedArrayError,
    Scalar,
    StaleArrayError,
    array_page,
    check_declared,
    check_fresh,
    check_lengths,
    check_not_overtaken,
    data_key,
    event_pages,
    first_points,
    nord_key,
    point_times,
    text_key,
    truncated,
)
from .records import Waveform

if TYPE_CHECKING:
    from .flyer import BusyFlyer

logger = logging.getLogger(__name__)

FRESH_INTERVAL, LONGEST_INTERVAL = 0.01, 0.5
"""Seconds before arrays that are too old are asked for again, at first and at most; twice as many each time."""

STOP_TIMEOUT = 2.0
"""Seconds that a value which is being read may need, where its line is closed."""

_BUSY_AFTER = "the busy record, after the arrays"  # no component has such a name

_Answer = ArrayReading | ScalarReading | Reading | str | None


@dataclass(frozen=True)
class CollectOptions:
    """How a flight is to be collected; see `BusyFlyer` for the meaning of each.

    Raises
    ------
    ValueError
        For an option that nothing can be collected with; it names the option.
    """

    time_array: str | None
    time_origin: Literal["absolute", "relative"]
    points: str | None
    fresh_timeout: float
    on_stale: Literal["error", "warn"]
    on_ragged: Literal["error", "warn", "truncate"]
    layout: Literal["rows", "array"]
    array_length: int | None
    page_size: int

    def __post_init__(self) -> None:
        require_one_of("time_origin", self.time_origin, "absolute", "relative")
        require_one_of("on_stale", self.on_stale, "error", "warn")
        require_one_of("on_ragged", self.on_ragged, "error", "warn", "truncate")
        require_one_of("layout", self.layout, "rows", "array")
        require_seconds("fresh_timeout", self.fresh_timeout)
        for option in ("page_size", "array_length"):
            value = getattr(self, option)
            if value is None and option == "array_length":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{option}={value!r}: must be a whole number of points, 1 or more")


class Harvest(NamedTuple):
    """What one flight brought."""

    columns: list[Column]
    scalars: list[Scalar]

    @property
    def points(self) -> int:
        """How many points there are; one, where there are values and no array."""
        return max((len(column.values) for column in self.columns), default=min(len(self.scalars), 1))


Land = Callable[[Harvest | Exception], None]
"""Takes what became of a flight's arrays, once."""


class Arrays:
    """A flyer's lines to what it collects, arrays and values.

    Parameters
    ----------
    flyer : BusyFlyer
        Whose components they are.
    worker : Worker or None
        Where its signals are asked; None: arrays come directly from libca.
    """

    def __init__(self, flyer: BusyFlyer, worker: Worker | None) -> None:
        self._flyer = flyer
        self.lines: dict[str, ArrayLine] = {}
        for attr in column_names(type(flyer)):
            waveform = getattr(flyer, attr)
            if worker is None:
                self.lines[attr] = ArrayChannel(waveform.wave.pvname, text=waveform.string)
            else:
                self.lines[attr] = ArraySignal(waveform.wave, worker, getattr(waveform, "number_read", None))
        self._worker = worker or Worker(f"{flyer.name} values")
        self._values: dict[str, ScalarSignal] = {}

    def stop(self) -> None:
        """Read no more values."""
        self._worker.stop(STOP_TIMEOUT)

    def do(self, task: Callable[[], None]) -> bool:
        """Do what may wait where the values are read; whether it will be done."""
        return self._worker.do(task)

    # What there is

    def key(self, attr: str) -> str:
        """Data key of a column."""
        return f"{self._flyer.name}_{attr}"

    def value_names(self) -> list[str]:
        """Names of the signals that are read once a flight: those of normal or hinted kind, as ophyd has it."""
        flyer, states = self._flyer, self._flyer.busy_states
        signals = {attr: getattr(flyer, attr) for attr in flyer.read_attrs if attr.split(".")[0] not in self.lines}
        return [
            attr
            for attr, signal in signals.items()
            if isinstance(signal, Signal) and not any(signal is state for state in states)
        ]

    def values(self, options: CollectOptions) -> dict[str, ScalarSignal]:
        """The lines to the values, and to what counts the points. A lazy component connects here, and may wait."""
        counter = [] if options.points is None else [options.points]
        return {attr: self.value(attr) for attr in (*self.value_names(), *counter)}

    def value(self, attr: str) -> ScalarSignal:
        """The line to a value."""
        if attr not in self._values:
            self._values[attr] = ScalarSignal(getattr(self._flyer, attr), self._worker)
        return self._values[attr]

    def describe(self, options: CollectOptions) -> dict[str, DataKey]:
        """Describe what the pages bring, by data key.

        Raises
        ------
        FlightRefused
            A PV is not connected, or holds no numbers.
        """
        keys: dict[str, DataKey] = {}
        for attr, line in self.lines.items():
            key, waveform, dtype = self.key(attr), getattr(self._flyer, attr), line.dtype
            if line.problem is not None or dtype is None:
                raise FlightRefused(line.problem or f"{line.pv} is not connected")
            description = line.description
            if waveform.string:
                keys[key] = text_key(description["source"])
                continue
            if attr == options.time_array:  # they become seconds since the start
                description, dtype = {**description, "units": "s"}, np.dtype(np.float64)
            length = (options.array_length or line.size) if options.layout == "array" else None
            keys[key] = data_key(description, dtype, units=waveform.units, length=length)
            if length is not None:
                keys[f"{key}_nord"] = nord_key(description["source"])
        for attr in self.value_names():
            keys[getattr(self._flyer, attr).name] = cast(DataKey, self.value(attr).description)
        return keys

    # What a flight brought

    def fetch(self, flight: Flight, options: CollectOptions, values: Mapping[str, ScalarSignal], land: Land) -> None:
        """Ask for all that a finished flight brought, without waiting for it; `land` is called once."""
        _Fetch(self, flight, options, values, land).ask()

    def read_busy(self, answer: Callable[[Reading | None], None]) -> None:
        """Ask the busy record."""
        self._flyer.read_after(answer)

    def harvest(
        self,
        answers: Mapping[str, _Answer],
        flight: Flight,
        options: CollectOptions,
        values: Mapping[str, ScalarSignal],
        *,
        patient: bool,
    ) -> Harvest:
        """Make of the answers what the flight brought.

        Raises
        ------
        NotYetFresh
            An array is too old, and `patient` is set.
        CollectError
            An array could not be had, or is not this flight's, or they do not fit each other.
        """
        columns: list[Column] = []
        texts: list[Scalar] = []
        for attr, line in self.lines.items():
            answer = _had(answers, attr, line.pv)
            waveform = getattr(self._flyer, attr)
            column = Column(self.key(attr), line.pv, answer.values, answer.stamp, self._judged(waveform, line))
            columns.append(column)
            if waveform.string:
                texts.append(Scalar(column.key, _text(column), column.stamp))
        self._check_age(
            [*columns, *_counter(answers, options, values)],
            cast("Reading | None", answers[_BUSY_AFTER]),
            flight,
            options,
            patient=patient,
        )
        text_keys = {text.key for text in texts}
        columns = [column for column in columns if column.key not in text_keys]
        columns = self._of_one_length(columns, _count(answers, options, values), options)
        if options.layout == "array":
            check_declared(columns, self._declared_lengths(options))
        scalars = []
        for attr, value in values.items():
            signal, answer = getattr(self._flyer, attr), _had(answers, attr, value.pv)
            if attr != options.points or attr in self.value_names():
                scalars.append(Scalar(signal.name, _plain(answer.value), answer.stamp))
        return Harvest(columns, [*texts, *scalars])

    def pages(self, harvest: Harvest, timeline: Timeline, options: CollectOptions) -> Iterator[PartialEventPage]:
        """Format it as event pages."""
        t0, done = timeline.t0, timeline["done"].stamp
        assert t0 is not None
        assert done is not None
        columns, scalars = harvest
        time_key = None if options.time_array is None else self.key(options.time_array)
        times = point_times(columns, time_key, options.time_origin, t0=t0, done=done)
        if options.layout == "array":
            lengths = self._declared_lengths(options)
            yield array_page(columns, time_key, times, lengths, t0=t0, done=done, scalars=scalars)
        else:
            yield from event_pages(columns, time_key, times, t0=t0, page_size=options.page_size, scalars=scalars)

    def elsewhere(self, line: ArrayLine) -> bool:
        """Whether another IOC serves it than the busy record: another clock, and another circuit."""
        host, own = line.host, self._flyer.busy_host
        return host is not None and own is not None and host != own

    def _judged(self, waveform: Waveform, line: ArrayLine) -> bool:
        """Whether its stamps are to be compared with the busy record's: not with another clock's, unless asked."""
        return not self.elsewhere(line) if waveform.fresh is None else bool(waveform.fresh)

    def judged_elsewhere(self) -> set[str]:
        """Names of the columns that are judged though another IOC serves them."""
        return {attr for attr, line in self.lines.items() if getattr(self._flyer, attr).fresh and self.elsewhere(line)}

    def _check_age(
        self, columns: list[Column], after: Reading | None, flight: Flight, options: CollectOptions, *, patient: bool
    ) -> None:
        done = flight.timeline["done"].stamp
        assert done is not None
        try:
            check_not_overtaken(columns, done, after)
            try:
                check_fresh(columns, flight.fresh_since)
            except StaleArrayError:
                if patient:
                    raise NotYetFresh from None
                raise
        except StaleArrayError as error:
            if options.on_stale == "error":
                raise
            logger.warning("%s: %s", self._flyer.name, error)

    def _of_one_length(self, columns: list[Column], count: int | None, options: CollectOptions) -> list[Column]:
        try:
            if count is not None:
                return first_points(columns, count)
            check_lengths(columns)
        except RaggedArrayError as error:
            if options.on_ragged == "error":
                raise
            if options.on_ragged == "warn":
                logger.warning("%s keeps as many points as all arrays have: %s", self._flyer.name, error)
            return truncated(columns)
        return columns

    def _declared_lengths(self, options: CollectOptions) -> dict[str, int]:
        if options.layout == "rows":
            return {}
        return {self.key(attr): options.array_length or line.size for attr, line in self.lines.items()}


class NotYetFresh(Exception):
    """An array is older than the flight, and may still be on its way."""


class _Fetch:
    """The arrays of one flight, on their way: round by round, as long as they may still come."""

    def __init__(
        self,
        arrays: Arrays,
        flight: Flight,
        options: CollectOptions,
        values: Mapping[str, ScalarSignal],
        land: Land,
    ) -> None:
        self._arrays = arrays
        self._flight = flight
        self._options = options
        self._values = values
        self._land = land
        self._until = time.monotonic() + options.fresh_timeout
        self._interval = FRESH_INTERVAL

    def ask(self) -> None:
        """For all together, once more."""
        try:
            _Round(self._arrays, self._values, self._gather).ask()
        except Exception as error:  # whatever it is, who waits must hear of it
            self._fail(error)

    def _gather(self, answers: Mapping[str, _Answer]) -> None:
        now = time.monotonic()
        self._flight.timeline.mark("arrays", now)
        try:
            harvest = self._arrays.harvest(
                answers, self._flight, self._options, self._values, patient=now < self._until
            )
        except NotYetFresh:
            Alarm(self.ask).set(min(now + self._interval, self._until))
            self._interval = min(2 * self._interval, LONGEST_INTERVAL)
        except CollectError as error:
            self._land(error)
        except Exception as error:
            self._fail(error)
        else:
            self._land(harvest)

    def _fail(self, error: Exception) -> None:
        logger.error("%s: the arrays could not be gathered", self._flight.pv, exc_info=error)
        self._land(CollectError(f"{self._flight.pv}: the arrays could not be gathered: {error!r}"))


class _Round:
    """One request for each line, and the busy record behind them: was it left alone while they were read?"""

    def __init__(
        self,
        arrays: Arrays,
        values: Mapping[str, ScalarSignal],
        done: Callable[[Mapping[str, _Answer]], None],
    ) -> None:
        self._arrays = arrays
        self._lines = {**arrays.lines, **values}
        # Arrays on the busy record's circuit are served before it, in order. Others have to be in by then.
        self._ahead_of_busy = {*values, *arrays.judged_elsewhere()}
        self._done = done
        self._lock = threading.Lock()
        self._answers: dict[str, _Answer] = {}

    def ask(self) -> None:
        in_order = not self._ahead_of_busy
        for attr, line in self._lines.items():
            line.fetch(partial(self._answered, attr))
        if in_order:
            self._ask_busy()

    def _ask_busy(self) -> None:
        if self._arrays.lines:
            self._arrays.read_busy(partial(self._answered, _BUSY_AFTER))
        else:
            self._answered(_BUSY_AFTER, None)

    def _answered(self, attr: str, answer: _Answer) -> None:
        with self._lock:
            self._answers[attr] = answer
            last_ahead = self._ahead_of_busy == {attr}
            self._ahead_of_busy.discard(attr)
            complete = len(self._answers) == len(self._lines) + 1
        if last_ahead:
            self._ask_busy()
        if complete:
            self._done(self._answers)


def column_names(flyer: type[BusyFlyer]) -> list[str]:
    """Names of a flyer's columns, in order."""
    return [attr for attr in flyer.component_names if issubclass(getattr(flyer, attr).cls, Waveform)]


def _counter(
    answers: Mapping[str, _Answer], options: CollectOptions, values: Mapping[str, ScalarSignal]
) -> Iterator[Column]:
    """What counts the points, to be judged like an array; but it may be older than the flight."""
    if options.points is not None:
        pv = values[options.points].pv
        yield Column(options.points, pv, np.empty(0), _had(answers, options.points, pv).stamp, ageless=True)


def _count(answers: Mapping[str, _Answer], options: CollectOptions, values: Mapping[str, ScalarSignal]) -> int | None:
    if options.points is None:
        return None
    pv = values[options.points].pv
    value = _had(answers, options.points, pv).value
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
    return column.values.tobytes().split(b"\0")[0].decode("utf-8", "replace")


def _plain(value: Any) -> Any:
    """As Python has it, which every document writer can take."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
