"""How long after the IOC's stamp of Done a client knows, by each way of waiting, at any busy PV.

Each way is a program of its own (``ways.py``), so that none is in another's way. They take
turns, a block of flights each, in random order: whatever else the machine and the network do
hits all alike. The first flights of a block are not counted. After every flight the record is
read: a client that knew while it was Busy was too early, and the stamp is that of Done.

Two hosts have two clocks. Busy is stamped between the put and the client's news of it, and Done
before anybody knows: from all flights together that bounds the difference of the clocks, without
any assumption on what takes how long (`Measurement.clock`).
"""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .. import launch
from ..engine.ports import BUSY, DONE
from .ways import name_in_words

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "LENGTHS",
    "BusyPV",
    "Delays",
    "Flown",
    "LatencyError",
    "LengthPV",
    "Measurement",
    "SelfClear",
    "Site",
    "draw",
    "measure",
    "programs",
    "remarks",
    "table",
]

CONNECT_TIMEOUT = 15.0
START_TIMEOUT = 60.0
"""Seconds that a program may need to start and connect."""

WARM_UP = 3
"""Flights of a block that are not counted."""

LENGTHS = (0.005, 0.105)
"""Seconds of the shortest and the longest flight. In the 100 ms between them a poll of any interval that
divides them, so every usual one, is as likely at any time before Done."""

MOST_DRIFT = 1e-3
"""Seconds by which two clocks may drift apart while it is measured."""

SAME = 2e-6
"""Seconds by which one stamp may differ from itself, as pyepics cuts it off at microseconds."""

LAND_TIMEOUT = 5.0
"""Seconds that the record may take to be Done, where we wrote it."""


class LatencyError(RuntimeError):
    """It cannot be measured; the message says why."""


# Who ends the flights


class Controller(Protocol):
    """Who writes Done."""

    def prepare(self, length: float) -> None:
        """The next flight is to take so many seconds."""

    def over(self) -> None:
        """There will be no more."""


class Site:
    """Whoever does so at this record; a flight takes what it takes."""

    def prepare(self, length: float) -> None:
        """Nothing can be asked for."""

    def over(self) -> None:
        """Nothing was changed."""


class LengthPV:
    """The record's controller, which takes the length of a flight, in seconds, from a PV."""

    def __init__(self, pv: str) -> None:
        self._pv = _connected(pv)
        self._before = self._pv.get(use_monitor=False, timeout=CONNECT_TIMEOUT)

    def prepare(self, length: float) -> None:
        """Put it there."""
        self._pv.put(length, wait=True, timeout=CONNECT_TIMEOUT)

    def over(self) -> None:
        """Put back what was there before."""
        self.prepare(self._before)


class SelfClear:
    """We, as a client apart from those that are measured."""

    def __init__(self, pv: str) -> None:
        self._length = 0.0
        self._pv = _connected(pv)
        from ophyd import EpicsSignalRO

        self._monitor = EpicsSignalRO(pv, name=pv, auto_monitor=True)
        self._monitor.wait_for_connection(timeout=CONNECT_TIMEOUT)
        self._monitor.subscribe(self._news, run=False)

    def prepare(self, length: float) -> None:
        """So long after Busy, Done is written."""
        self._length = length

    def over(self) -> None:
        """Leave the record alone."""
        self._monitor.clear_sub(self._news)

    def _news(self, *, value: int, **_: Any) -> None:
        if value == BUSY:
            timer = threading.Timer(self._length, self._clear)
            timer.daemon = True
            timer.start()

    def _clear(self) -> None:
        import epics

        epics.ca.use_initial_context()
        self._pv.put(DONE)


# What came of it


@dataclass(frozen=True)
class Flown:
    """A flight, as a client and the IOC's stamp tell it; seconds."""

    length: float
    """Asked for, or as the stamps of Busy and Done tell."""
    delay: float
    """From the stamp of Done to when the client knew."""
    next: float | None = None
    """From the same to the plan's next message, where it is flown in a RunEngine."""
    event: float | None = None
    """To when the client's handler of Done began, where that is told."""
    finished: float | None = None
    """To when the flight was found to be finished, where that is told."""
    start: float | None = None
    """From kickoff to the IOC's stamp of Busy, where that is told."""


@dataclass
class Delays:
    """All flights of one way."""

    client: str = ""
    """What it runs on."""
    flown: list[Flown] = field(default_factory=list)
    early: int = 0
    """Flights of which it knew before they were Done; they are not among `flown`."""
    failure: str = ""
    """Why it was given up, where it was."""

    def of(self, what: str = "delay") -> np.ndarray:
        """These seconds of every flight that has them, as an array of shape (flights,)."""
        return np.array([value for flown in self.flown if (value := getattr(flown, what)) is not None], float)


@dataclass
class Measurement:
    """What `measure` found: the raw samples of each way, by its name."""

    pv: str
    ways: dict[str, Delays] = field(default_factory=dict)
    clock: tuple[float, float] = (-np.inf, np.inf)
    """Bounds of the IOC's clock less ours, in seconds. Where 0 is between them the delays are as
    measured, otherwise their middle is taken off."""
    controlled: bool = True
    """Whether we chose the lengths of the flights."""
    told: int = 0
    """Flights of which the IOC's stamps of Busy and of Done are known."""
    same: int = 0
    """Those of them where both are the same."""

    @property
    def offset(self) -> float:
        """Seconds that the IOC's clock is taken to be ahead of ours; `delay` and its like are corrected by it."""
        low, high = self.clock
        return 0.0 if low <= 0 <= high or not np.isfinite([low, high]).all() else (low + high) / 2

    @property
    def doubt(self) -> str:
        """Why the stamps cannot be those of Busy and Done; empty where nothing speaks against them."""
        low, high = self.clock
        if self.told and self.same == self.told:
            return "Busy and Done of each flight bear the same stamp: it is not that of Done"
        if low > high + MOST_DRIFT:
            return (
                f"the IOC's stamps contradict each other by {1e3 * (low - high):.2f} ms, or a clock was set meanwhile"
            )
        return ""

    def to_dict(self) -> dict[str, Any]:
        """Everything, raw samples too, for a JSON file."""
        return {**asdict(self), "clock": [None if np.isinf(bound) else bound for bound in self.clock]}


# Measuring


def programs(ways: Iterable[str], pv: str, timeout: float) -> dict[str, list[str]]:
    """Commands of the package's own ways (`ways.WAYS`), by their names in words."""
    program = launch.command("busy_callback_flyer.tools.ways")
    return {name_in_words(way): [*program, way, pv, str(timeout)] for way in ways}


def measure(
    record: BusyPV,
    ways: Mapping[str, Sequence[str]],
    *,
    flights: int,
    blocks: int,
    controller: Controller,
    lengths: tuple[float, float] = LENGTHS,
    timeout: float = 60.0,
    seed: int = 1,
    flew: Callable[[], object] = lambda: None,
    around: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
) -> Measurement:
    """Fly by each way in turn; the record is never left Busy.

    Parameters
    ----------
    record : BusyPV
        Where to fly.
    ways : mapping
        The command of each program that waits, see ``ways.py``, by its name.
    flights : int
        Of each way that count.
    blocks : int
        That they come in.
    controller : Controller
        Who ends the flights.
    lengths : tuple of float
        Seconds of the shortest and the longest flight; each way flies the same.
    timeout : float
        Seconds that a flight may take.
    seed : int
        Of the order of the blocks, and of the lengths.
    flew : callable
        Called after each flight.
    around : callable
        Makes what each block is flown in, entered when its program is connected.

    Raises
    ------
    LatencyError
        The record cannot be flown; the message names the PV and what to do. A program that fails is given up,
        and the others go on: `Delays.failure`.
    """
    measurement = Measurement(record.pv, {name: Delays() for name in ways}, controlled=not isinstance(controller, Site))
    rng = random.Random(seed)
    asked = [rng.uniform(*lengths) for _ in range(flights)]
    raw: dict[str, list[_Raw]] = {name: [] for name in ways}
    try:
        for block in range(blocks):
            block_lengths = asked[block::blocks]
            for name in rng.sample(sorted(ways), len(ways)) if block_lengths else ():
                delays = measurement.ways[name]
                if delays.failure:
                    continue
                try:
                    with _Program(ways[name], timeout) as program, around():
                        delays.client = program.client
                        for number, length in enumerate([*block_lengths[:1] * WARM_UP, *block_lengths]):
                            controller.prepare(length)
                            with record.flight():
                                said = program.fly()
                                stamp = record.done_stamp(timeout)
                            flew()
                            if stamp is None:
                                delays.early += 1
                            elif number >= WARM_UP:
                                raw[name].append(_Raw(length, stamp, said))
                except _ProgramFailed as failure:
                    delays.failure = str(failure)
                    record.land(timeout)
    finally:
        try:
            record.land()
        finally:
            controller.over()
    _settle(measurement, raw)
    return measurement


class _ProgramFailed(Exception):
    """A way's program ended, or did not answer in time."""


@dataclass(frozen=True)
class _Raw:
    length: float
    stamp: float
    said: Mapping[str, float]


def _settle(measurement: Measurement, raw: Mapping[str, Iterable[_Raw]]) -> None:
    """Bound the difference of the clocks, then take the delays."""
    low, high = measurement.clock
    for one in (one for flights in raw.values() for one in flights):
        low = max(low, one.stamp - one.said["known"])
        if "busy" in one.said:
            measurement.told += 1
            measurement.same += abs(one.said["busy_stamp"] - one.stamp) < SAME
            low = max(low, one.said["busy_stamp"] - one.said["busy"])
            high = min(high, one.said["busy_stamp"] - one.said["put"])
    measurement.clock = low, high
    offset = measurement.offset
    for name, flights in raw.items():
        for one in flights:
            since = {
                what: one.said[mark] - one.stamp + offset
                for what, mark in (("delay", "known"), ("next", "next"), ("event", "event"), ("finished", "finished"))
                if mark in one.said
            }
            if "kickoff" in one.said and "busy_stamp" in one.said:
                since["start"] = one.said["busy_stamp"] - offset - one.said["kickoff"]
            length = one.length
            if not measurement.controlled:
                length = one.stamp - one.said["busy_stamp"] if "busy" in one.said else np.nan
            measurement.ways[name].flown.append(Flown(length, **since))


def _connected(pv: str) -> Any:
    import ophyd  # noqa: F401 - before epics: it chooses the libca that pyepics loads

    # isort: split
    import epics

    channel = epics.get_pv(pv, connect=True, timeout=CONNECT_TIMEOUT)
    if not channel.connected:
        raise LatencyError(
            f"{pv} did not connect within {CONNECT_TIMEOUT:g} s: is its IOC up, and EPICS_CA_ADDR_LIST as it should be?"
        )
    return channel


class BusyPV:
    """The busy record as we read it, apart from the clients that are measured.

    Raises
    ------
    LatencyError
        It is none, it is Busy, or we may not write it.
    """

    def __init__(self, pv: str) -> None:
        self.pv = pv
        self._in_flight = False
        self._channel = _connected(pv)
        if "enum" not in self._channel.type or len(self._channel.enum_strs or ()) not in (1, 2):
            raise LatencyError(f"{pv} is no busy record: it is a {self._channel.type}, and a binary (busy) is needed")
        if not self._channel.write_access:
            raise LatencyError(f"{pv} cannot be written by us: its IOC's access security has to allow it")
        value, self._last = self._read()
        if value == BUSY:
            raise LatencyError(f"{pv} is Busy: somebody flies. Wait until it is Done, or write 0 to it")

    @property
    def host(self) -> str:
        """Who serves it."""
        return str(self._channel.host)

    def _read(self) -> tuple[int, float]:
        said = self._channel.get_with_metadata(form="time", use_monitor=False, timeout=CONNECT_TIMEOUT)
        if said is None:
            raise LatencyError(f"{self.pv} did not answer a read within {CONNECT_TIMEOUT:g} s: is its IOC alive?")
        return int(said["value"]), float(said["timestamp"])

    @contextlib.contextmanager
    def flight(self) -> Iterator[None]:
        """While one of ours may be in the air; where it is given up, it is until `land`."""
        self._in_flight = True
        yield
        self._in_flight = False

    def done_stamp(self, timeout: float) -> float | None:
        """The IOC's stamp of the Done that ended this flight; None where the client knew before.

        Raises
        ------
        LatencyError
            It does not become Done, or its stamp does not move.
        """
        value, stamp = self._read()
        if value == DONE and stamp != self._last:
            self._last = stamp
            return stamp
        # Too early: it is Busy, or our read has overtaken the put of Busy.
        if not self._wait(lambda value, stamp: stamp != self._last, LAND_TIMEOUT):
            raise LatencyError(
                f"{self.pv} bears the same time stamp as before the flight: without true stamps nothing can be "
                "measured. Is its TSE -2 (or -1) with nobody to set the time?"
            )
        if not self._wait_for_done(timeout):
            raise LatencyError(f"{self.pv} was not Done within {timeout:g} s: does anybody end its flights?")
        self._last = self._read()[1]
        return None

    def _wait_for_done(self, timeout: float) -> bool:
        return self._wait(lambda value, stamp: value == DONE, timeout)

    def _wait(self, until: Callable[[int, float], bool], timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while not until(*self._read()):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def land(self, patience: float = 0.0) -> None:
        """Where a flight of ours was given up: write Done, unless it is so by itself within so many seconds."""
        if not self._in_flight:
            return
        if not self._wait_for_done(patience):
            self._channel.put(DONE)
            if not self._wait_for_done(LAND_TIMEOUT):
                raise LatencyError(f"{self.pv} stays Busy although we wrote 0: look at its controller")
        self._last = self._read()[1]
        self._in_flight = False


class _Program:
    """A way's program while it runs."""

    def __init__(self, command: Sequence[str], timeout: float) -> None:
        self._timeout = timeout
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in `_end`
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        self.client = ""

    def __enter__(self) -> _Program:
        try:
            self.client = str(self._answer(START_TIMEOUT)["client"])
        except BaseException:
            self._process.kill()
            self._end()
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self._process.kill()  # it may be in flight
        self._end()

    def fly(self) -> dict[str, float]:
        """A flight, in its words."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, and its answer says so
            self._process.stdin.write("fly\n")
            self._process.stdin.flush()
        return self._answer(self._timeout + LAND_TIMEOUT)

    def _answer(self, timeout: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        guard = threading.Timer(timeout, self._process.kill)  # the read below ends with the process
        guard.daemon = True
        guard.start()
        line = self._process.stdout.readline()
        in_time = guard.is_alive()
        guard.cancel()
        if not line:
            raise _ProgramFailed(self._why() if in_time else f"it did not answer in time, {timeout:g} s")
        with contextlib.suppress(ValueError):
            answer = json.loads(line)
            if isinstance(answer, dict):
                return answer
        raise _ProgramFailed(f"that is no answer: {line.strip()}")

    def _why(self) -> str:
        self._process.wait(LAND_TIMEOUT)
        self._errors.seek(0)
        said = [line.strip() for line in self._errors if line.strip()]
        return said[-1] if said else f"it ended (exit status {self._process.returncode})"

    def _end(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        try:
            self._process.wait(LAND_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()


# To look at


def table(measurement: Measurement) -> Table:
    """Percentiles of each way, in milliseconds, for `rich` to print."""
    from rich import box
    from rich.table import Table

    found = Table(
        title=f"From the IOC's Done of {measurement.pv} to the client, in ms", title_justify="left", box=box.SIMPLE
    )
    found.add_column("way of waiting", no_wrap=True)
    for heading in ("n", "p50", "p90", "p99", "max", "next", "early"):
        found.add_column(heading, justify="right")
    for name, delays in measurement.ways.items():
        figures = [
            f"{1e3 * np.percentile(delays.of(), percent, method='inverted_cdf'):.2f}" if len(delays.flown) else "-"
            for percent in (50, 90, 99, 100)
        ]
        after = delays.of("next")
        goes_on = f"{1e3 * np.median(after):.2f}" if len(after) else "-"
        found.add_row(name, str(len(delays.flown)), *figures, goes_on, str(delays.early or "-"))
    return found


def remarks(measurement: Measurement) -> list[str]:
    """What has to be known of the figures, a sentence each."""
    low, high = (1e3 * bound for bound in measurement.clock)
    said = [f"{name} was given up: {delays.failure}" for name, delays in measurement.ways.items() if delays.failure]
    if measurement.doubt:
        said.append(
            f"The delays mean nothing: {measurement.doubt}. Are TSE and TSEL of {measurement.pv} as by default?"
        )
    elif measurement.same:
        same = f"{measurement.same} of {measurement.told} flights"
        said.append(f"The stamps are coarse, and so are the delays: of {same} Busy and Done bear the same one.")
    said.append("n: flights; p50: half of them were known of within; next: p50 of the plan's next message;")
    said.append("early: flights that it took to be Done while they were not.")
    if not np.isfinite([low, high]).all():
        said.append("Nothing is known of the two clocks: a BusyFlyer among the ways would tell.")
    elif not measurement.doubt:
        corrected = "nothing is taken off" if measurement.offset == 0 else "the delays are corrected by its middle"
        said.append(f"IOC's clock less ours: between {low:.2f} and {high:.2f} ms; {corrected}.")
    if not measurement.controlled:
        lengths = np.concatenate([delays.of("length") for delays in measurement.ways.values()])
        spread = 1e3 * np.ptp(lengths[np.isfinite(lengths)]) if np.isfinite(lengths).any() else 0.0
        said.append(
            f"The lengths of the flights differ by {spread:.1f} ms: a poll whose interval is longer meets Done always "
            "at the same moment of its interval, sooner or later than it would on average."
        )
    return said


def draw(measurement: Measurement, path: Path) -> None:
    """Save the share of flights that each way knew of, against time since Done."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9.6, 5.4), layout="constrained")
    for number, (name, delays) in enumerate(measurement.ways.items()):
        if len(delays.flown):
            # Where clocks differ a delay can come out as nothing or less, which a log axis cannot show.
            axes.ecdf(np.maximum(1e3 * delays.of(), 1e-3), label=name, linewidth=3 if number == 0 else 1.6)
    axes.set(xscale="log", xlabel="ms from the IOC's Done until the client knows", ylabel="share of flights")
    axes.set_title(f"Waiting for Done of {measurement.pv}")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.grid(which="both", alpha=0.25)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=120)
    plt.close(figure)
