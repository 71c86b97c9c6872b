"""Were the arrays written since our put? Whole flights in memory: a rule a test, see `engine/freshness.py`."""

from __future__ import annotations

import gc
import queue
import time
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from busy_callback_flyer import CollectError, FlightRefused, FlightTimeout, StaleArrayError
from busy_callback_flyer.channels.memory import MemoryArray, MemoryBusy, MemoryValue
from busy_callback_flyer.engine.collector import ArraySpec, Collector, FlightData, ValueSpec
from busy_callback_flyer.engine.driver import FlightDriver
from busy_callback_flyer.engine.flight import CALLBACK_GRACE, Flight, State
from busy_callback_flyer.engine.freshness import Ground, NotFresh, Written
from busy_callback_flyer.engine.options import Options
from busy_callback_flyer.engine.ports import BUSY, DONE, NEVER, Put, Reading
from busy_callback_flyer.engine.taxi import Taxi
from busy_callback_flyer.engine.timeline import dated
from busy_callback_flyer.engine.worker import Worker

TIMEOUT = 20.0
T0 = 1_000_000.0
"""Stamp of the record before the flight."""


class Site:
    """A record, two arrays and a count in memory; the test is the controller."""

    def __init__(self, teller: Worker, **options: Any) -> None:
        self.busy = MemoryBusy(pv="busy")
        self.x = MemoryArray([0.0], "x", stamp=T0 - 10)
        self.y = MemoryArray([0.0], "y", stamp=T0 - 10)
        self.n = MemoryValue(3, "n", stamp=T0 - 10)
        self.options = Options(**{"time_array": None, "fresh_timeout": 0.0, **options})
        self.specs = [ArraySpec("x", "f_x", self.x), ArraySpec("y", "f_y", self.y)]
        self.values = [ValueSpec("n", "f_n", self.n, emitted=False)] if self.options.points else []
        self.driver = FlightDriver("ifly", self.busy.heard_by, teller)
        self.busy.connect(DONE, T0)
        self.collector = Collector("ifly", self.specs, self.busy)
        self.flight: Any = None
        self.ground: Any = None

    def launch(self) -> Flight:
        self.flight = Flight("busy", self.options)
        self.ground = self.collector.ground(self.options.points, self.values)
        self.driver.launch(self.flight, Mock(), self.ground)
        flight: Flight = self.flight
        return flight

    def write(self, stamp: float | None = None) -> None:
        for array in (self.x, self.y):
            array.write([1.0, 2.0, 3.0], stamp)

    def land(self, stamp: float) -> None:
        self.busy.post(DONE, stamp)
        self.busy.answer_put()
        assert self.flight.finished

    def fly(self, *, written: float | None = None, busy: float = T0 + 1, done: float = T0 + 2) -> None:
        """A whole flight, in which the arrays are written between Busy and Done."""
        self.launch()
        self.busy.post(BUSY, busy)
        if written is not None:
            self.write(written)
        self.land(done)

    def bring(self) -> FlightData | Exception:
        """What the flight brought."""
        brought: queue.Queue[FlightData | Exception] = queue.Queue()
        self.collector.fetch(self.flight, self.ground, self.values, brought.put)
        began = time.monotonic()
        while brought.empty():
            assert time.monotonic() < began + TIMEOUT
            if any(request.what == "read" for request in self.busy.waiting):
                self.busy.answer_read()
        return brought.get()

    def good(self) -> None:
        data = self.bring()
        assert isinstance(data, FlightData), repr(data)
        assert [column.values.tolist() for column in data.columns] == [[1.0, 2.0, 3.0]] * 2

    def stale(self, *texts: str) -> str:
        error = self.bring()
        assert isinstance(error, StaleArrayError), repr(error)
        for text in texts:
            assert text in str(error)
        return str(error)


def state(flight: Flight) -> State:
    """Where it is now: news may come in other threads."""
    return flight.state


@pytest.fixture
def site(teller: Worker) -> Site:
    return Site(teller)


# 1: ground is taken with the put


def test_the_stamps_are_asked_for_ahead_of_the_put(site: Site) -> None:
    """Not earlier: what was written until then is not ours."""
    site.busy.needs_fence = True
    site.launch()
    site.write(T0 + 0.5)  # by another, before our put
    site.busy.pass_fence()
    assert site.busy.sent == ["fence", "put 1 with callback"]
    site.busy.post(BUSY, T0 + 1)
    site.land(T0 + 2)
    site.stale("not written since the put of Busy: x (stamp", "fresh=False")


def test_stamps_that_may_still_be_on_their_way_do_not_hold_up_the_put(site: Site) -> None:
    """They are asked ahead of it on one circuit, so they are answered ahead of it."""
    site.x.holds_stamps = True
    flight = site.launch()
    assert site.busy.sent == ["put 1 with callback"]
    site.x.answer_stamp()
    site.busy.post(BUSY, T0 + 1)
    site.write(T0 + 1.5)
    site.land(T0 + 2)
    assert flight.awaits_stamps() == ""
    site.good()


@pytest.mark.parametrize("why", ["another IOC", "a channel that keeps no order"])
def test_the_put_waits_for_the_stamp_of_an_array_that_it_could_overtake(site: Site, why: str) -> None:
    if why == "another IOC":
        site.x.host = "other"
    else:
        site.busy.keeps_order = False
    site.x.holds_stamps = site.y.holds_stamps = True
    flight = site.launch()
    assert state(flight) is State.FENCING
    site.x.answer_stamp()
    if why != "another IOC":
        assert site.busy.sent == []
        site.y.answer_stamp()
    assert site.busy.sent == ["put 1 with callback"]
    if why == "another IOC":
        site.y.answer_stamp()
    site.busy.post(BUSY, T0 + 1)
    site.write(5.0)  # by whatever clock
    site.land(T0 + 2)
    site.good()


@pytest.mark.parametrize("how", ["no answer", "not connected", "not connected any more"])
def test_without_a_stamp_nothing_is_put(teller: Worker, how: str) -> None:
    site = Site(teller, start_timeout=0.05)
    site.x.host = "other"
    if how == "no answer":
        site.x.holds_stamps = True
    elif how == "not connected":
        site.x.lose()
    else:
        site.busy.needs_fence = True
    flight = site.launch()
    if how == "not connected any more":
        site.x.lose()
        site.busy.pass_fence()
    site.driver.wait(TIMEOUT)
    while not flight.over:
        site.driver.wait(TIMEOUT)
    assert isinstance(flight.error, FlightRefused)
    text = "x does not answer" if how == "no answer" else "x is not connected"
    assert f"{text} within start_timeout=0.05 s" in str(flight.error)
    assert not [sent for sent in site.busy.sent if sent.startswith("put")]


def test_an_array_that_connects_late_is_waited_for(site: Site) -> None:
    """After a restart of the IOC the busy record may be there a moment before the others."""
    site.x.lose()
    flight = site.launch()
    assert state(flight) is State.FENCING
    site.x.connect()
    while state(flight) is not State.SENT:
        assert not flight.over
    site.busy.post(BUSY, T0 + 1)
    site.write(T0 + 1.5)
    site.land(T0 + 2)
    site.good()


def test_a_stamp_that_is_never_told_ends_the_flight(teller: Worker) -> None:
    site = Site(teller, start_timeout=0.05)
    site.x.holds_stamps = True
    flight = site.launch()
    site.busy.post(BUSY, T0 + 1)
    while not flight.over:
        site.driver.wait(TIMEOUT)
    assert isinstance(flight.error, FlightRefused)
    assert "x does not answer" in str(flight.error)
    site.driver.wait(TIMEOUT)
    assert site.busy.sent[-2:] == ["take back", "put 0"]


def test_a_stamp_that_could_not_be_had_is_told(site: Site) -> None:
    site.x.holds_stamps = True
    site.launch()
    site.x.fail_stamp("Read access denied")
    site.busy.post(BUSY, T0 + 1)
    site.write(T0 + 1.5)
    site.land(T0 + 2)
    site.stale("x could not be read (Read access denied)")


def test_the_wait_behind_a_fence_that_was_in_vain_starts_no_flight(site: Site) -> None:
    """The record became Busy meanwhile: the fence comes anew, and what is asked behind it."""
    site.busy.needs_fence = True
    site.options = Options(time_array=None, fresh_timeout=0.0, reset_settle=0.0)
    flight = site.launch()
    site.busy.post(BUSY, T0 + 1)
    assert state(flight) is State.CLEARING
    site.busy.post(DONE, T0 + 2)
    assert site.busy.sent == ["fence", "put 0", "fence"]
    site.busy.pass_fence()
    assert state(flight) is State.FENCING, "that was the first one"
    site.write(T0 + 3)
    site.busy.pass_fence()
    site.busy.post(BUSY, T0 + 4)
    site.land(T0 + 5)
    site.stale("not written since the put")


# 2: fresh is what is different


@pytest.mark.parametrize("stamp", [T0 + 0.999, T0 - 100, 5.0, T0 + 1e9], ids=["before Busy", "back", "1970", "ahead"])
def test_another_stamp_is_fresh_whatever_the_clocks_say(site: Site, stamp: float) -> None:
    """An OUT chain is stamped ahead of Busy; clocks are set back, by 2 s or by 20 years."""
    site.fly(written=stamp)
    site.good()


def test_an_array_with_the_stamp_of_before_is_stale(site: Site) -> None:
    site.fly(written=T0 + 1.5)
    site.good()
    site.fly(busy=T0 + 3, done=T0 + 4)
    error = site.stale(f"x (stamp {dated(T0 + 1.5)})", "y (stamp")
    assert "Does the controller write them before Done" in error


def test_what_was_never_written_is_stale(site: Site) -> None:
    """A restarted IOC's arrays bear the EPICS epoch, which differs from any stamp before."""
    site.fly(written=NEVER)
    site.stale("x (never written)")


def test_an_array_that_was_filled_before_is_not_judged(site: Site) -> None:
    site.collector.arrays = [ArraySpec("x", "f_x", site.x, fresh=False), ArraySpec("y", "f_y", site.y, fresh=False)]
    site.write(T0 - 5)
    site.x.lose()
    site.x.connect()
    site.fly()
    site.good()


# The record's own stamps are no evidence


@pytest.mark.parametrize("fresh", [True, False])
def test_stamps_of_the_record_that_stand_still_let_nothing_old_pass(site: Site, fresh: bool) -> None:
    site.launch()
    site.busy.post(BUSY, T0)
    if fresh:
        site.write(T0 + 1)
    site.land(T0)
    if fresh:
        site.good()
    else:
        site.stale("not written since the put")


@pytest.mark.parametrize("back", [2.0, 20 * 365 * 86400.0])
@pytest.mark.parametrize("when", ["before Busy", "before Done"])
@pytest.mark.parametrize("order", ["callback first", "Done first"])
def test_a_clock_that_is_set_back_refuses_nothing_and_loses_nothing(
    site: Site, back: float, when: str, order: str
) -> None:
    """Busy then looks like late news of an earlier flight, until a read tells."""
    flight = site.launch()
    busy = T0 + 1 - back if when == "before Busy" else T0 + 1
    done = T0 + 2 - back
    site.busy.post(BUSY, busy)
    if when == "before Busy":
        assert not flight.began
        site.driver._tell(flight, lambda flight, now: flight.deadline(now + CALLBACK_GRACE))
        site.busy.answer_read()
        assert flight.timeline.t0 == busy
    assert flight.began
    site.write(T0 + 1.5 - back)
    news = [lambda: site.busy.post(DONE, done), site.busy.answer_put]
    for tell in news if order == "Done first" else reversed(news):
        tell()
    if not flight.over:
        site.driver._tell(flight, lambda flight, now: flight.deadline(now + CALLBACK_GRACE))
        site.busy.answer_read()
    assert flight.finished
    site.good()


def test_a_clock_that_is_set_back_in_flight_leaves_a_foreign_flight_seen(site: Site) -> None:
    site.launch()
    site.busy.post(BUSY, T0 + 1)
    site.busy.post(DONE, T0 - 100)
    site.busy.post(BUSY, T0 - 99)
    assert site.flight.foreign_done is None, "by its stamp it is late news, until a read tells"
    site.driver._tell(site.flight, lambda flight, now: flight.deadline(now + CALLBACK_GRACE))
    site.busy.answer_read()
    assert site.flight.foreign_done == T0 - 100
    site.busy.post(DONE, T0 - 98)
    site.busy.answer_put()
    site.busy.answer_read()
    assert site.flight.finished
    site.stale()


# 3: another client's flight between our put and our Busy


def fly_behind_another(site: Site, *, theirs: float, ours: float | None) -> None:
    """Our put is queued in the IOC behind another client's flight, which writes its arrays."""
    site.launch()
    site.busy.post(BUSY, T0 + 1)
    site.write(theirs)
    site.busy.post(DONE, T0 + 2)
    site.busy.post(BUSY, T0 + 3)
    if ours is not None:
        site.write(ours)
    site.land(T0 + 4)


def test_of_two_flights_that_are_queued_the_second_must_write_its_own(site: Site) -> None:
    for round in range(20):
        site.busy.change(DONE, T0)
        site.busy.reading = site.busy.record
        fly_behind_another(site, theirs=T0 + 1 + round / 100, ours=None)
        site.stale("another client flew the busy record", dated(T0 + 2))


def test_of_two_flights_that_are_queued_each_has_its_own(site: Site) -> None:
    fly_behind_another(site, theirs=T0 + 1, ours=T0 + 2.9)
    site.good()


def test_on_another_ioc_a_foreign_flight_leaves_nothing_to_go_by(site: Site) -> None:
    site.x.host = "other"
    fly_behind_another(site, theirs=T0 + 1, ours=T0 + 2.9)
    error = site.stale("they may be of its flight: x (stamp")
    assert "y (stamp" not in error


@pytest.mark.parametrize("seen", [True, False], ids=["Done seen", "Done unseen"])
def test_a_record_that_was_busy_when_the_put_went_out(site: Site, seen: bool) -> None:
    """By signals a read ahead of the put tells; its Done is that of another client."""
    site.busy.needs_ground_read = True
    site.launch()
    site.busy.change(BUSY, T0 + 1)
    site.busy.answer_read()
    site.write(T0 + 1.5)
    if seen:
        site.busy.post(DONE, T0 + 2)
    site.busy.post(BUSY, T0 + 3)
    site.land(T0 + 4)
    site.stale("another client flew the busy record")


def test_behind_a_record_that_was_busy_at_the_put_what_is_written_later_is_ours(site: Site) -> None:
    site.busy.needs_ground_read = True
    site.launch()
    site.busy.change(BUSY, T0 + 1)
    site.busy.answer_read()
    site.busy.post(DONE, T0 + 2)
    site.busy.post(BUSY, T0 + 3)
    site.write(T0 + 3.5)
    site.land(T0 + 4)
    site.good()


def test_a_flight_queued_behind_ours_makes_nothing_void(site: Site) -> None:
    flight = site.launch()
    site.busy.post(BUSY, T0 + 1)
    site.write(T0 + 1.5)
    site.busy.post(DONE, T0 + 2)
    site.busy.post(BUSY, T0 + 3)
    site.busy.answer_put()
    site.busy.answer_read()
    assert flight.finished
    assert flight.foreign_done is None
    site.good()


# 4: the array's connection went


@pytest.mark.parametrize("when", ["before Busy", "before Done"])
def test_a_connection_that_went_takes_the_ground_away(site: Site, when: str) -> None:
    """A restarted IOC's array differs, too."""
    site.launch()
    if when == "before Busy":
        site.x.lose()
        site.x.connect()
    site.busy.post(BUSY, T0 + 1)
    if when == "before Done":
        site.x.lose()
        site.x.connect()
    site.write(T0 + 1.5)
    site.land(T0 + 2)
    error = site.stale("the connection was lost since the put of Busy")
    assert "y (stamp" not in error


@pytest.mark.parametrize("host", ["memory", "other"])
def test_what_survives_a_loss_that_the_flight_survives(site: Site, host: str) -> None:
    """The very stamp of Busy tells that the record's server was not restarted; of another one nothing tells."""
    site.x.host = host
    flight = site.launch()
    site.busy.post(BUSY, T0 + 1)
    for array in (site.x, site.y):
        array.lose()
    site.busy.lose()
    site.busy.connect(BUSY, T0 + 1)
    for array in (site.x, site.y):
        array.connect()
    assert state(flight) is State.FLYING
    site.write(T0 + 1.5)
    site.busy.post(DONE, T0 + 2)
    site.busy.answer_read()
    assert flight.finished
    if host == "memory":
        site.good()
    else:
        assert "y (stamp" not in site.stale("the connection was lost since the put of Busy", "x (stamp")


def test_the_count_of_a_restarted_ioc_is_not_ours(teller: Worker) -> None:
    site = Site(teller, points="n")
    site.launch()
    site.n.lose()
    site.n.connect()
    site.busy.post(BUSY, T0 + 1)
    site.write(T0 + 1.5)
    site.land(T0 + 2)
    site.stale("the connection was lost since the put of Busy", "n (stamp")


# 5: overtaken


def ground(site: Site) -> Ground:
    return Ground({"x": site.x, "y": site.y}, {"n": site.n}, site.busy)


LEFT_ALONE = Reading(DONE, T0 + 10)


@pytest.mark.parametrize(
    ("stamp", "after", "ours"),
    [
        (9.0, LEFT_ALONE, True),
        (10.5, LEFT_ALONE, True),  # written after Done
        (9.0, Reading(BUSY, T0 + 11), True),
        (10.5, Reading(BUSY, T0 + 11), False),  # ours, or of a flight between the two?
        (11.0, Reading(BUSY, T0 + 11), False),
        (12.0, Reading(BUSY, T0 + 11), False),
        (9.0, Reading(DONE, T0 + 13), True),
        (10.5, Reading(DONE, T0 + 13), False),  # ours, or of the flight that came and went?
        (10.5, Reading(2, T0 + 13), False),
    ],
)
def test_overtaken(site: Site, stamp: float, after: Reading, ours: bool) -> None:
    written = [Written("y", "p:y", T0 + 9), Written("x", "p:x", T0 + stamp)]
    if ours:
        ground(site).check_not_overtaken(written, T0 + 10, after)
        return
    with pytest.raises(StaleArrayError, match=r"overtaken by another flight.*p:x \(stamp") as error:
        ground(site).check_not_overtaken(written, T0 + 10, after)
    for moment in (T0 + 10, after.stamp, T0 + stamp):
        assert dated(moment) in str(error.value)
    assert "p:y" not in str(error.value)


@pytest.mark.parametrize("after", [Reading(BUSY, T0 + 10), Reading(DONE, T0 + 5), Reading(BUSY, T0 + 5)])
def test_a_clock_that_did_not_go_forward_tells_nothing_of_an_overtaken_flight(site: Site, after: Reading) -> None:
    with pytest.raises(StaleArrayError, match="overtaken"):
        ground(site).check_not_overtaken([Written("y", "p:y", T0 + 1)], T0 + 10, after)


def test_another_iocs_stamps_tell_nothing_of_an_overtaken_flight(site: Site) -> None:
    site.y.host = "other"
    ground(site).check_not_overtaken([Written("y", "p:y", T0 + 1)], T0 + 10, LEFT_ALONE)
    with pytest.raises(StaleArrayError, match="overtaken"):
        ground(site).check_not_overtaken([Written("y", "p:y", T0 + 1)], T0 + 10, Reading(BUSY, T0 + 11))


def test_without_an_answer_of_the_busy_record_nothing_is_sure(site: Site) -> None:
    with pytest.raises(CollectError, match=r"could not be read after the arrays.*p:x \(stamp"):
        ground(site).check_not_overtaken([Written("x", "p:x", T0)], T0 + 10, None)
    ground(site).check_not_overtaken([], T0 + 10, None)


def test_what_counts_the_points_may_be_old_but_not_another_flights(site: Site) -> None:
    counter = Written("n", "p:n", 1.0, counts=True)
    ground(site).check_fresh([counter], None)
    ground(site).check_not_overtaken([counter], T0 + 10, Reading(BUSY, T0 + 11))
    with pytest.raises(StaleArrayError, match="p:n"):
        ground(site).check_not_overtaken([counter._replace(stamp=T0 + 12)], T0 + 10, Reading(BUSY, T0 + 11))


# 6: only what is not fresh is waited for


def test_what_is_not_fresh_yet_is_asked_for_again(teller: Worker) -> None:
    site = Site(teller, fresh_timeout=TIMEOUT)
    site.fly()
    asked = 0
    fetch = site.x.fetch

    def late(answer: Callable[[Any], None]) -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            site.write(T0 + 3)
        fetch(answer)

    site.x.fetch = late  # type: ignore[method-assign]
    site.good()
    assert asked == 3


@pytest.mark.parametrize("why", ["lost", "overtaken", "foreign"])
def test_what_will_never_be_ours_is_told_at_once(teller: Worker, why: str) -> None:
    site = Site(teller, fresh_timeout=1000.0)
    site.x.host = "other"
    if why == "foreign":
        fly_behind_another(site, theirs=T0 + 1, ours=T0 + 3.5)
    else:
        site.fly(written=T0 + 1.5)
    if why == "lost":
        site.x.lose()
        site.x.connect()
    elif why == "overtaken":
        site.busy.change(BUSY, T0 + 3)
    site.stale()


# 8: an aborted controller may still write


def test_a_kickoff_behind_a_done_of_ours_lets_the_controller_settle(teller: Worker) -> None:
    site = Site(teller, reset_settle=0.2)
    site.launch()
    site.busy.post(BUSY, T0 + 1)
    site.driver.abort("enough")
    site.driver.wait(TIMEOUT)
    site.busy.post(DONE, T0 + 2)
    flight = site.launch()
    assert state(flight) is State.SETTLING
    assert site.busy.sent[-1] == "put 0"
    site.write(T0 + 3)  # by the one that was aborted
    while state(flight) is not State.SENT:
        assert not flight.over
    assert site.busy.sent[-1] == "put 1 with callback"
    site.busy.post(BUSY, T0 + 4)
    site.land(T0 + 5)
    site.stale("not written since the put")


def test_a_kickoff_behind_a_flight_that_ended_well_waits_for_nothing(teller: Worker) -> None:
    site = Site(teller, reset_settle=1000.0)
    site.fly(written=T0 + 1.5)
    assert site.launch().state is State.SENT


# Nothing waits without end


@pytest.mark.parametrize("silent", ["array", "count", "busy record"])
def test_arrays_that_are_never_answered_are_given_up(
    teller: Worker, monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    monkeypatch.setattr("busy_callback_flyer.engine.collector.PATIENCE", 0.05)
    site = Site(teller, points="n")
    site.fly(written=T0 + 1.5)
    if silent == "array":
        site.x.held = True
    elif silent == "count":
        site.n.held = True
    brought: queue.Queue[FlightData | Exception] = queue.Queue()
    site.collector.fetch(site.flight, site.ground, site.values, brought.put)
    error = brought.get(timeout=TIMEOUT)
    assert isinstance(error, CollectError)
    named = {"array": "x (it is held)", "count": "n (it is held)", "busy record": "busy, behind the arrays"}
    assert f"no answer within 0.05 s: {named[silent]}" in str(error)


def test_a_done_that_was_not_taken_is_told(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    flight = site.launch()
    site.busy.post(BUSY, T0 + 1)
    site.busy.not_taken = "the record still says Busy: it refused the put (DISP)"
    site.driver.abort("enough")
    site.driver.wait(TIMEOUT)
    assert "enough; " in str(flight.error)
    assert "Done could not be written: the record still says Busy: it refused the put (DISP)" in str(flight.error)
    assert flight.timeline.error is flight.error
    assert "ifly: Done could not be written to busy: the record still says Busy" in caplog.text


def test_a_put_that_nobody_confirms_delays_a_verdict_by_a_moment(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    later: list[Callable[[str | None], None]] = []
    monkeypatch.setattr(site.busy, "put", lambda value, confirmed: later.append(confirmed))
    flight = site.launch()
    site.driver.abort("enough")
    site.driver.wait(TIMEOUT)
    assert "no read told within 0.1 s" in str(flight.error)
    said = str(flight.error)
    later[0]("much later")
    assert str(flight.error) == said


def test_not_fresh_is_stale() -> None:
    assert issubclass(NotFresh, StaleArrayError)
    assert issubclass(StaleArrayError, CollectError)


def test_a_put_that_was_refused_needs_no_stamps(site: Site) -> None:
    flight = site.launch()
    site.busy.answer_put(Put.REFUSED, "DISP")
    assert isinstance(flight.error, FlightRefused)
    assert "the put of Busy was refused: DISP" in str(flight.error)


# flight_timeout bounds everything from kickoff on


def test_two_clients_that_fight_over_a_record_do_not_fight_for_ever(teller: Worker) -> None:
    """Ours writes Done, the other Busy, again and again."""
    site = Site(teller, flight_timeout=0.3, reset_settle=1000.0)
    site.busy.post(BUSY, T0 + 1)
    flight = site.launch()
    stamp = T0 + 2
    while not flight.over:
        site.busy.post(DONE, stamp)
        site.busy.post(BUSY, stamp + 1)
        stamp += 2
    site.driver.wait(TIMEOUT)
    assert isinstance(flight.error, FlightTimeout)
    assert "not Done within flight_timeout=0.3 s of kickoff: Busy was not put" in str(flight.error)
    assert "put 1 with callback" not in site.busy.sent


@pytest.mark.parametrize("waits_for", ["the record", "another's flight", "the fence", "Done"])
def test_flight_timeout_counts_from_kickoff(teller: Worker, waits_for: str) -> None:
    site = Site(teller, flight_timeout=0.05, start_timeout=1000.0, when_busy="wait")
    if waits_for == "the record":
        site.busy.lose()
    elif waits_for == "another's flight":
        site.busy.post(BUSY, T0 + 1)
    site.busy.needs_fence = waits_for == "the fence"
    flight = site.launch()
    if waits_for == "Done":
        site.busy.post(BUSY, T0 + 1)
    while not flight.over:
        pass
    site.driver.wait(TIMEOUT)
    assert isinstance(flight.error, FlightTimeout)
    assert "within flight_timeout=0.05 s of kickoff" in str(flight.error)
    assert ("put 0" in site.busy.sent) == (waits_for == "Done"), "only what we began is ours to end"


# What a review found


def test_an_array_that_goes_between_the_fence_and_the_put_is_told_and_nothing_is_put(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.busy.needs_fence = True
    flight = site.launch()

    def pass_and_lose(*args: Any) -> None:
        site.x.lose()
        args[1]()

    monkeypatch.setattr(site.ground, "ask_ahead", pass_and_lose)
    site.busy.pass_fence()
    assert isinstance(flight.error, FlightRefused)
    assert "Busy was not put: x is not connected" in str(flight.error)
    assert site.busy.sent == ["fence"]


def test_an_array_of_no_use_is_told_at_once_and_nothing_is_put(site: Site) -> None:
    """It may have connected since kickoff looked."""
    site.busy.needs_fence = True
    flight = site.launch()
    site.x.problem = "x holds STRING, and numbers are needed"
    site.busy.pass_fence()
    assert isinstance(flight.error, FlightRefused)
    assert "Busy was not put: x holds STRING" in str(flight.error)
    assert site.busy.sent == ["fence"]


def test_of_an_unknown_server_nothing_is_known_after_a_foreign_flight(site: Site) -> None:
    site.x.host = None
    fly_behind_another(site, theirs=T0 + 1, ours=T0 + 2.9)
    site.stale("they may be of its flight: x (stamp")


def test_arrays_are_not_kept_by_the_schedule_of_deadlines(site: Site) -> None:
    site.fly(written=T0 + 1.5)
    brought: list[Any] = []
    site.collector.fetch(site.flight, site.ground, site.values, brought.append)
    site.busy.answer_read()
    brought.clear()
    values = weakref.ref(site.x.values)
    site.x.values = site.y.values = np.zeros(0)
    gc.collect()
    assert values() is None


@pytest.mark.parametrize(
    ("says", "written"), [((BUSY, T0 + 1), True), ((BUSY, T0 + 5), False), ((DONE, T0 + 2), False), (None, False)]
)
def test_where_a_flight_may_be_over_a_read_comes_before_done(
    site: Site, says: tuple[int, float] | None, written: bool
) -> None:
    """Its callback is back and Done unseen: by now the record may fly for another client."""
    flight = site.launch()
    site.busy.post(BUSY, T0 + 1)
    site.busy.answer_put()
    site.driver.abort("enough")
    assert site.busy.sent[-1] == "read"
    if says is None:
        site.busy.fail_read()
    else:
        site.busy.change(*says)
        site.busy.answer_read()
    site.driver.wait(TIMEOUT)
    assert ("put 0" in site.busy.sent) == written
    told = "it was not put, as the record may fly for another client" in str(flight.error)
    assert told == (says is None or says[1] == T0 + 5)


def test_a_record_that_is_neither_stays_so(teller: Worker) -> None:
    site = Site(teller, start_timeout=0.02)
    site.busy.post(2, T0 + 1)
    flight = site.launch()
    while not flight.over:
        site.driver.wait(TIMEOUT)
    assert "the record stayed 2, neither Busy nor Done for 0.02 s" in str(flight.error)


def test_a_confirmation_that_comes_late_on_the_ground_is_no_complaint(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the record is polled it comes with the next poll."""
    later: list[Callable[[str | None], None]] = []
    monkeypatch.setattr(site.busy, "put", lambda value, confirmed: later.append(confirmed))
    site.options = Options(time_array=None, reset_settle=0.0)
    site.busy.post(BUSY, T0 + 1)
    flight = site.launch()
    site.busy.post(DONE, T0 + 2)
    while state(flight) is not State.SENT or not site.busy.sent:
        assert not flight.over
    assert site.busy.sent == ["put 1 with callback"]
    later[0](None)
    assert "could not be written" not in caplog.text


def test_after_a_loss_on_the_ground_the_record_has_reconnect_timeout(teller: Worker) -> None:
    site = Site(teller, start_timeout=0.0, reconnect_timeout=1000.0)
    site.busy.lose()
    flight = site.launch()
    assert flight.state is State.CONNECTING
    due = flight.next_deadline
    assert due is not None
    assert due > time.monotonic() + 500
    site.driver.abort("enough")


def test_a_2_in_flight_and_then_a_1_is_a_new_busy(site: Site) -> None:
    flight = site.launch()
    site.busy.post(BUSY, T0 + 1)
    site.busy.post(2, T0 + 2)
    assert flight.timeline.t0 == T0 + 1
    site.busy.post(BUSY, T0 + 3)
    assert flight.timeline.t0 == T0 + 3


@pytest.mark.parametrize("foreign", [None, T0])
def test_a_taxi_between_which_another_client_used_its_record_is_no_ground(site: Site, foreign: float | None) -> None:
    """The arrays may be of that client: they are asked anew with the put of Busy."""
    ride = Flight("taxi")
    ride.foreign_done = foreign
    earlier, later = ground(site), ground(site)
    assert earlier.ask_along() is None
    driver: Any = SimpleNamespace(flight=ride)
    taxi = Taxi(driver, lambda: (Mock(), earlier))
    taxi.go()
    assert taxi.hand_over(later) == (foreign is None)
    assert taxi.flown() == (foreign is None)
