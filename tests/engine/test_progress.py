"""How far a flight is, as its watchers are told."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import bluesky.plans as bp
import pytest
from bluesky import RunEngine
from bluesky.utils import ProgressBarManager
from ophyd import Component, Device, EpicsSignalRO, Signal

from busy_callback_flyer import BusyFlyer, FlightTimeout
from busy_callback_flyer.channels.ca import CABusy
from busy_callback_flyer.channels.signals import SignalCount
from busy_callback_flyer.devices.status import FlightStatus
from busy_callback_flyer.engine import progress
from busy_callback_flyer.engine.flight import Flight
from busy_callback_flyer.engine.ports import Reading, ValueReading
from busy_callback_flyer.engine.progress import INTERVAL, Progress

# isort: split
import epics

from ..conftest import PREFIX
from ..faults.interruptions import until

TIMEOUT = 20.0
BEFORE, BUSY_SEEN = Reading(0, 100.0), Reading(1, 110.0)

Told = list[dict[str, Any]]


class Count:
    """A counter by hand."""

    def __init__(self, host: str | None = "ioc:5064") -> None:
        self.first: ValueReading | None = None
        self.latest: ValueReading | None = None
        self.host = host
        self.listens = True

    def close(self) -> None:
        self.listens = False


class Watched:
    """A flight, what counts its points, and its one watcher."""

    def __init__(self, expected: object = 10, counter: Count | None = None, *, by_time: bool = False) -> None:
        self.flight = Flight("prj:mybusy")
        self.counter = counter or Count()
        self.listened = 0
        self.tasks: queue.Queue[Callable[[], None]] = queue.Queue()
        self.told: Told = []
        self.progress = Progress(
            "ifly", self.flight, self.tasks.put, None if by_time else self._listen, lambda: expected, lambda: "ioc:5064"
        )
        self.status = FlightStatus(Device(name="ifly"), self.tasks.put, self.progress)

    def _listen(self) -> Count:
        self.listened += 1
        self.counter.listens = True
        return self.counter

    def watch(self) -> None:
        self.status.watch(lambda **facts: self.told.append(facts))
        self.next_task()

    def next_task(self) -> None:
        self.tasks.get(timeout=TIMEOUT)()

    def fly(self) -> None:
        self.flight.kickoff(0.0, BEFORE)
        self.flight.record_says(BUSY_SEEN, 0.1)

    def says(self, value: object, stamp: float = 111.0) -> dict[str, Any]:
        self.counter.latest = ValueReading(value, stamp)
        self.counter.first = self.counter.first or self.counter.latest
        return self.progress.now()


def test_points_are_told_until_the_status_is_done() -> None:
    watched = Watched()
    watched.watch()
    assert watched.told == [{"name": "ifly"}], "before the put there is nothing to tell"
    watched.fly()
    watched.counter.latest = ValueReading(4, 111.0)
    watched.next_task()
    (facts,) = watched.told[1:]
    assert facts.pop("time_elapsed") >= 0
    assert facts.pop("time_remaining") >= 0
    assert facts == {
        "name": "ifly",
        "current": 4,
        "initial": 0,
        "target": 10,
        "unit": "points",
        "precision": 0,
        "fraction": 0.6,
    }
    watched.counter.latest = ValueReading(10, 112.0)
    watched.status.set_finished()
    while not watched.tasks.empty():
        watched.next_task()
    assert watched.told[-1]["current"] == 10
    assert watched.told[-1]["fraction"] == 0.0
    assert not watched.counter.listens


def test_the_counter_is_listened_to_only_while_somebody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "INTERVAL", 3600.0)
    watched = Watched()
    watched.fly()
    assert watched.listened == 0
    watched.watch()
    watched.status.watch(lambda **_: None)
    assert watched.listened == 1
    watched.status.set_finished()
    watched.next_task()
    assert watched.counter.listens, "the other still watches"
    watched.next_task()
    assert not watched.counter.listens


def test_a_count_of_an_earlier_flight_is_none() -> None:
    watched = Watched()
    watched.watch()
    watched.flight.kickoff(0.0, BEFORE)
    assert watched.says(51, stamp=105.0)["current"] == 0, "Busy is yet to come"
    watched.flight.record_says(BUSY_SEEN, 0.1)
    assert watched.progress.now()["current"] == 0
    assert watched.says(1, stamp=105.0)["current"] == 1, "NORD is posted before the record has its new stamp"


@pytest.mark.parametrize(("host", "current"), [("other:5064", 3), ("ioc:5064", 0), (None, 0)])
def test_the_clock_of_another_host_judges_nothing(host: str | None, current: float) -> None:
    watched = Watched(counter=Count(host=host))
    watched.watch()
    watched.fly()
    watched.says(3, stamp=50.0)
    watched.next_task()
    assert watched.told[-1]["current"] == current


def test_of_a_flight_that_is_over_an_old_count_is_not_told() -> None:
    """As many points as in the flight before, all at the end, are no event."""
    watched = Watched()
    watched.watch()
    watched.fly()
    assert watched.says(10, stamp=105.0)["current"] == 0
    watched.flight.abort(1.0)
    assert "current" not in watched.progress.now()


def test_who_watches_after_the_flight_is_told_its_count() -> None:
    watched = Watched()
    watched.watch()
    watched.fly()
    watched.says(4)
    watched.flight.abort(1.0)
    watched.status.set_finished()
    while not watched.tasks.empty():
        watched.next_task()
    told: Told = []
    FlightStatus(Device(name="ifly"), watched.tasks.put, watched.progress).watch(lambda **facts: told.append(facts))
    assert told[0]["current"] == 4
    assert watched.listened == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, "text", None])
def test_what_is_no_count_is_not_told(value: object) -> None:
    watched = Watched()
    watched.watch()
    watched.fly()
    assert watched.says(value) == {"name": "ifly"}


@pytest.mark.parametrize("expected", [None, 0, float("nan"), "text"])
def test_without_a_target_the_count_is_told_alone(expected: object) -> None:
    watched = Watched(expected)
    watched.watch()
    watched.fly()
    facts = watched.says(3)
    assert facts["current"] == 3
    assert facts["target"] is None
    assert "fraction" not in facts


def test_more_points_than_expected() -> None:
    watched = Watched()
    watched.watch()
    watched.fly()
    facts = watched.says(12)
    assert (facts["current"], facts["fraction"], facts["time_remaining"]) == (12, 0.0, 0.0)


def test_time_where_nothing_counts() -> None:
    watched = Watched(60.0, by_time=True)
    watched.flight = watched.progress._flight = Flight("prj:mybusy", clock_offset=time.time() - time.monotonic())
    watched.watch()
    watched.flight.kickoff(time.monotonic() - 30.0, BEFORE)
    facts = watched.progress.now()
    assert facts["unit"] == "s"
    assert facts["current"] == facts["time_elapsed"] >= 30
    assert facts["time_elapsed"] + facts["time_remaining"] == pytest.approx(60)
    assert facts["fraction"] == pytest.approx(facts["time_remaining"] / 60)


def test_a_watcher_that_fails_is_told_no_more(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    calls = itertools.count()

    def fail(**facts: Any) -> None:
        if next(calls):
            raise ZeroDivisionError

    watched.status.watch(fail)
    watched.watch()  # which lets it begin
    watched.next_task()
    assert next(calls) == 2
    assert "a watcher failed" in caplog.text
    watched.status.set_finished()
    while not watched.tasks.empty():
        watched.next_task()
    assert next(calls) == 3, "not even at the end"
    assert len(watched.told) >= 2, "the other one is"


def test_by_an_ophyd_signal() -> None:
    signal = Signal(name="count")
    count = SignalCount(signal)
    signal.put(3)
    assert count.latest is not None
    assert count.latest.value == 3
    count.close()
    signal.put(4)
    assert count.latest.value == 3


# Against the embedded IOC


class CountingFlyer(BusyFlyer):
    points_done = Component(EpicsSignalRO, "t_array.NORD", kind="omitted")
    npts = Component(EpicsSignalRO, "npts", kind="omitted")


BY: dict[str, dict[str, Any]] = {
    "the time array": {"expected_points": 200},
    "a column": {"progress": "xArr", "expected_points": 200},
    "a counter and a signal": {"progress": "points_done", "expected_points": "npts"},
}


@pytest.mark.parametrize("events", ["direct", "ophyd"])
@pytest.mark.parametrize("by", BY)
def test_points_are_counted_in_flight(
    by: str, events: str, make_flyer: Callable[..., Any], controller: Callable[..., None]
) -> None:
    controller(npts=11, duration=0.0)
    flyer: CountingFlyer = make_flyer(CountingFlyer, events=events, **BY[by])
    flyer.kickoff().wait(TIMEOUT)  # what it leaves is not the next one's
    controller(npts=200, duration=20.0, fill=1)
    status = flyer.kickoff()
    told: Told = []
    times: list[float] = []
    moves, ended = threading.Event(), threading.Event()

    def watch(**facts: Any) -> None:
        times.append(time.monotonic())
        told.append(facts)
        if len({facts["current"] for facts in told if facts.get("current")}) > 1:
            moves.set()
        if facts.get("fraction") == 0.0:
            ended.set()

    status.watch(watch)
    assert moves.wait(TIMEOUT)
    epics.caput(f"{PREFIX}mybusy", 0)
    status.wait(TIMEOUT)
    assert ended.wait(TIMEOUT)
    counts = [facts["current"] for facts in told if "current" in facts]
    assert counts == sorted(counts)
    assert counts[-1] <= 200
    assert {facts["target"] for facts in told if "target" in facts} == {200}
    gaps = [later - earlier for earlier, later in itertools.pairwise(times[:-1])]
    assert min(gaps) >= INTERVAL
    flight = flyer._latest
    assert flight is not None
    told_by = flight.progress
    assert told_by is not None
    until(lambda: told_by._counter is None)


def test_the_run_engine_draws_a_bar(
    make_flyer: Callable[..., Any],
    controller: Callable[..., None],
    run_engine: RunEngine,
    capsys: pytest.CaptureFixture[str],
) -> None:
    controller(npts=200, duration=60.0, fill=1)
    drawn: list[str] = []

    def has_drawn() -> bool:
        drawn.append(capsys.readouterr().out)
        return "/200.0 [" in "".join(drawn)

    def end_when_drawn() -> None:
        epics.ca.use_initial_context()
        until(has_drawn)
        epics.caput(f"{PREFIX}mybusy", 0)

    thread = threading.Thread(target=end_when_drawn)
    run_engine.waiting_hook = ProgressBarManager()  # type: ignore[assignment]
    thread.start()
    run_engine(bp.fly([make_flyer(expected_points=200)]))
    thread.join(TIMEOUT)
    assert "ifly: " in "".join(drawn)
    assert "points/s" in "".join(drawn)


def test_a_watcher_that_hangs_delays_no_flight(make_flyer: Callable[..., Any], controller: Callable[..., None]) -> None:
    controller(npts=11, duration=3 * INTERVAL, fill=1)
    flyer: BusyFlyer = make_flyer(expected_points=11)
    calls, hangs, goes_on = itertools.count(), threading.Event(), threading.Event()

    def hang(**facts: Any) -> None:
        if next(calls):
            hangs.set()
            goes_on.wait(TIMEOUT)

    status = flyer.kickoff()
    status.watch(hang)
    assert hangs.wait(TIMEOUT)
    try:
        status.wait(TIMEOUT)
        completed = flyer.complete()
        completed.wait(TIMEOUT)
        assert len(list(flyer.collect_pages())) == 1
    finally:
        goes_on.set()


def test_kickoff_asks_nothing_of_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even who serves the record: pyepics would wait for it."""
    flyer = BusyFlyer("nowhere:", name="ifly", expected_points=11, start_timeout=0.1)
    asked: list[str] = []
    monkeypatch.setattr(CABusy, "host", property(lambda self: asked.append("who serves it")))
    with pytest.raises(FlightTimeout):
        flyer.kickoff().wait(TIMEOUT)
    assert asked == []


def test_nobody_is_told_the_flight_s_where_kickoff_ends_on_busy(
    make_flyer: Callable[..., Any], controller: Callable[..., None]
) -> None:
    controller(npts=11, duration=3 * INTERVAL, fill=1)
    flyer: BusyFlyer = make_flyer(expected_points=11, kickoff_finishes_on="busy")
    told: Told = []
    ended = threading.Event()
    kickoff = flyer.kickoff()
    kickoff.watch(lambda **facts: told.append(facts))
    kickoff.wait(TIMEOUT)
    complete = flyer.complete()
    complete.watch(lambda **facts: ended.set() if facts.get("fraction") == 0.0 else None)
    complete.wait(TIMEOUT)
    assert ended.wait(TIMEOUT)
    assert not [facts for facts in told if "current" in facts]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"progress": "nothing"}, "progress='nothing'"),
        ({"progress": "busy"}, "progress='busy'"),
        ({"expected_points": 0}, "expected_points=0"),
        ({"expected_points": 1.5}, "expected_points=1.5"),
        ({"expected_points": True}, "expected_points=True"),
        ({"expected_points": "tArr"}, "expected_points='tArr'"),
        ({"expected_points": 11, "time_array": None}, "without progress"),
        ({"expected_time": -1}, "expected_time=-1"),
        ({"expected_time": float("nan")}, "expected_time=nan"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        BusyFlyer(PREFIX, name="ifly", **options)
