"""BusyFlyer's verbs as a RunEngine calls them, above all where a plan is interrupted; and whom it tells of its flights.

The plans themselves, interrupted by a real RunEngine, are in `faults/test_interruptions.py`.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import epics
import pytest
from ophyd import Component
from ophyd.status import DeviceStatus, SubscriptionStatus

from busy_callback_flyer import (
    BusyFlyer,
    BusyRecord,
    FlightAborted,
    FlightRefused,
    FlightTimeout,
    PollingFlyer,
)
from busy_callback_flyer.devices.one_flight import OneFlight
from busy_callback_flyer.engine.ports import BUSY, DONE, Reading

from ..conftest import PREFIX, look
from ..faults.interruptions import until

Controller = Callable[..., None]
MakeFlyer = Callable[..., BusyFlyer]

BUSY_PV = f"{PREFIX}mybusy"
TIMEOUT = 20.0  # generous: reached only where something is broken


class Inward(BusyFlyer):
    """Its record comes back to itself within its own processing: Busy is never seen."""

    busy = Component(BusyRecord, "inward", kind="config")
    tArr = xArr = yArr = None  # noqa: N815


def aborted(status: DeviceStatus) -> str:
    with pytest.raises(FlightAborted, match=BUSY_PV) as caught:
        status.wait(TIMEOUT)
    return str(caught.value)


@pytest.fixture(params=["direct", "ophyd", "polling"])
def any_flyer(request: pytest.FixtureRequest, make_flyer: MakeFlyer) -> BusyFlyer:
    return make_flyer(PollingFlyer) if request.param == "polling" else make_flyer(events=request.param)


@pytest.fixture
def in_flight(flyer: BusyFlyer, controller: Controller) -> tuple[BusyFlyer, DeviceStatus]:
    """A flyer that flies until it is stopped, and the status of its kickoff."""
    controller(duration=60)
    begun = threading.Event()
    flyer.subscribe(lambda **_: begun.set(), flyer.SUB_FLIGHT_BUSY)
    status = flyer.kickoff()
    assert begun.wait(TIMEOUT)
    return flyer, status


# When kickoff finishes


def test_kickoff_that_finishes_on_busy(any_flyer: BusyFlyer, controller: Controller) -> None:
    controller(duration=60)
    any_flyer.kickoff_finishes_on = "busy"
    any_flyer.kickoff().wait(TIMEOUT)
    assert look(BUSY_PV)[0] == 1
    completed = any_flyer.complete()
    assert not completed.done
    any_flyer.stop()
    aborted(completed)
    controller(npts=3)
    any_flyer.kickoff().wait(TIMEOUT)
    any_flyer.complete().wait(TIMEOUT)
    assert look(BUSY_PV)[0] == 0
    (page,) = any_flyer.collect_pages()
    assert len(page["time"]) == 3


def test_kickoff_that_finishes_on_busy_where_busy_is_never_seen(make_flyer: MakeFlyer) -> None:
    """The verdict finishes it."""
    flyer = make_flyer(Inward, kickoff_finishes_on="busy", time_array=None)
    flyer.kickoff().wait(TIMEOUT)
    flyer.complete().wait(TIMEOUT)
    assert "busy" not in flyer.timeline


def test_kickoff_that_finishes_on_busy_fails_before_it(flyer: BusyFlyer, controller: Controller) -> None:
    controller(fault=1)  # never finishes
    epics.caput(BUSY_PV, 1)
    while flyer._wiring.driver.channel.reading is None or flyer._wiring.driver.channel.reading.value == 0:
        assert look(BUSY_PV)[0] == 1
    flyer.kickoff_finishes_on, flyer.when_busy = "busy", "fail"
    with pytest.raises(FlightRefused, match=BUSY_PV):
        flyer.kickoff().wait(TIMEOUT)
    epics.caput(BUSY_PV, 0)


def test_kickoff_does_not_finish_on_the_busy_of_another_client(
    make_flyer: MakeFlyer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By signals, what comes before the answer to the read ahead of the put is not of this flight."""
    flyer = make_flyer(events="ophyd", kickoff_finishes_on="busy")
    reads: list[Callable[[Reading], None]] = []
    driver = flyer._wiring.driver
    monkeypatch.setattr(driver.channel, "read", reads.append)
    monkeypatch.setattr(driver.channel, "put_callback", lambda *_: None)
    status = flyer.kickoff()
    until(lambda: reads)
    now = time.time()

    def record_says(value: int, stamp: float) -> None:
        driver.record_says(Reading(value, stamp))

    record_says(BUSY, now + 1)
    assert not status.done
    reads[0](Reading(DONE, now + 2))
    assert not status.done
    record_says(BUSY, now + 3)
    assert status.done
    flyer.stop()


def test_kickoff_finishes_once_where_busy_and_the_verdict_come_together(direct_flyer: BusyFlyer) -> None:
    """Flights of zero length: the events come in libca's thread, the answers of reads in others."""
    direct_flyer.kickoff_finishes_on = "busy"
    for _ in range(200):
        status = direct_flyer.kickoff()
        direct_flyer.complete().wait(TIMEOUT)
        assert status.success


def test_a_kickoff_that_is_refused_for_its_new_way_of_events_loses_nothing(direct_flyer: BusyFlyer) -> None:
    direct_flyer.kickoff().wait(TIMEOUT)
    direct_flyer.complete().wait(TIMEOUT)
    wiring = direct_flyer._wiring

    def refuse(*_: Any) -> None:
        raise FlightRefused("a PV is of the wrong kind")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(wiring), "refuse_unusable", refuse)
        direct_flyer.events = "ophyd"
        with pytest.raises(FlightRefused, match="wrong kind"):
            direct_flyer.kickoff()
    assert direct_flyer._wiring is wiring
    assert direct_flyer.kept
    assert len(list(direct_flyer.collect_pages())) == 1
    direct_flyer.kickoff().wait(TIMEOUT)
    assert direct_flyer._wiring.events == "ophyd"


@pytest.mark.parametrize(("option", "value"), [("kickoff_finishes_on", "begin"), ("on_pause", "stop")])
def test_bad_options_are_refused(direct_flyer: BusyFlyer, option: str, value: str) -> None:
    before = look(BUSY_PV)
    with pytest.raises(ValueError, match=f"{option}='{value}': must be one of"):
        BusyFlyer(PREFIX, name="other", **{option: value})  # type: ignore[arg-type]
    setattr(direct_flyer, option, value)
    with pytest.raises(ValueError, match=option):
        direct_flyer.kickoff()
    assert look(BUSY_PV) == before


# Pause, resume, replay


def test_resume_lets_kickoff_rejoin_a_flight(in_flight: tuple[BusyFlyer, DeviceStatus]) -> None:
    flyer, status = in_flight
    stamp = look(BUSY_PV)[1]
    flyer.pause()
    assert not status.done
    flyer.resume()
    assert flyer.kickoff() is status
    assert look(BUSY_PV) == (1, stamp), "Busy was put again"
    with pytest.raises(RuntimeError, match="flying already"):
        flyer.kickoff()  # one replay, one rejoining
    flyer.stop()
    aborted(status)


def test_kickoff_in_a_pause_is_no_replay(in_flight: tuple[BusyFlyer, DeviceStatus]) -> None:
    flyer, _ = in_flight
    flyer.pause()
    with pytest.raises(RuntimeError, match="flying already"):
        flyer.kickoff()


def test_resume_lets_kickoff_rejoin_what_is_not_collected(flyer: BusyFlyer, controller: Controller) -> None:
    controller(npts=3)
    status = flyer.kickoff()
    flyer.pause()
    status.wait(TIMEOUT)
    flyer.resume()
    before = look(BUSY_PV)
    assert flyer.kickoff() is status
    flyer.complete().wait(TIMEOUT)
    (page,) = flyer.collect_pages()
    assert len(page["time"]) == 3
    assert look(BUSY_PV) == before


def test_a_flight_without_arrays_is_over_when_it_was_completed(make_flyer: MakeFlyer) -> None:
    """There is nothing to be collected: a pause between two of them must not cost one."""
    flyer = make_flyer(Inward, time_array=None)
    first = flyer.kickoff()
    first.wait(TIMEOUT)
    flyer.pause()
    flyer.resume()
    assert flyer.kickoff() is first, "it was not completed"
    flyer.complete().wait(TIMEOUT)
    flyer.pause()
    flyer.resume()
    second = flyer.kickoff()
    assert second is not first
    second.wait(TIMEOUT)


def test_what_is_offered_again_is_not_rejoined(flyer: BusyFlyer) -> None:
    status = flyer.kickoff()
    status.wait(TIMEOUT)
    list(flyer.collect_pages())
    flyer.pause()
    flyer.resume()
    flyer.offer_again()
    again = flyer.kickoff()
    assert again is not status
    again.wait(TIMEOUT)


def test_a_collected_flight_is_not_rejoined(flyer: BusyFlyer) -> None:
    """The plan goes on to its next flight, in which it was resumed before."""
    status = flyer.kickoff()
    status.wait(TIMEOUT)
    assert len(list(flyer.collect_pages())) == 1
    flyer.pause()
    flyer.resume()
    again = flyer.kickoff()
    assert again is not status
    again.wait(TIMEOUT)
    assert len(list(flyer.collect_pages())) == 1


def do_complete(flyer: BusyFlyer) -> None:
    flyer.complete().wait(TIMEOUT)


def do_collect(flyer: BusyFlyer) -> None:
    list(flyer.collect_pages())


def do_stage(flyer: BusyFlyer) -> None:
    flyer.stage()


def do_unstage(flyer: BusyFlyer) -> None:
    flyer.unstage()


@pytest.mark.parametrize("verb", [do_complete, do_collect, do_stage, do_unstage])
def test_after_any_verb_a_kickoff_is_no_replay(flyer: BusyFlyer, verb: Callable[[BusyFlyer], None]) -> None:
    status = flyer.kickoff()
    status.wait(TIMEOUT)
    flyer.pause()
    flyer.resume()
    verb(flyer)
    again = flyer.kickoff()
    assert again is not status
    again.wait(TIMEOUT)
    if verb is do_stage:
        flyer.unstage()


FAILS = pytest.mark.parametrize("fails", ["in the pause", "after it"])


@FAILS
def test_a_failure_that_no_status_told_is_rejoined(flyer: BusyFlyer, controller: Controller, fails: str) -> None:
    """Kickoff had finished, complete was not called yet: the plan is to learn it."""
    controller(duration=60)
    flyer.kickoff_finishes_on = "busy"
    status = flyer.kickoff()
    status.wait(TIMEOUT)
    flyer.pause()
    if fails == "after it":
        flyer.resume()
    flyer.stop()
    if fails == "in the pause":
        flyer.resume()
    assert flyer.kickoff() is status
    aborted(flyer.complete())


@FAILS
@pytest.mark.parametrize("told_by", ["kickoff", "complete"])
def test_a_kickoff_that_tries_again_after_a_failure_is_no_replay(
    flyer: BusyFlyer, controller: Controller, fails: str, told_by: str
) -> None:
    """The plan has seen the failure by its status."""
    controller(duration=60)
    if told_by == "complete":
        flyer.kickoff_finishes_on = "busy"
        flyer.kickoff().wait(TIMEOUT)
    status = flyer.kickoff() if told_by == "kickoff" else flyer.complete()
    flyer.pause()
    if fails == "after it":
        flyer.resume()
    flyer.stop()
    aborted(status)
    if fails == "in the pause":
        flyer.resume()
    controller()
    again = flyer.kickoff()
    assert again is not status
    again.wait(TIMEOUT)


def test_pause_that_aborts(flyer: BusyFlyer, controller: Controller) -> None:
    controller(duration=60)
    flyer.on_pause = "abort"
    status = flyer.kickoff()
    until(lambda: "busy" in flyer.timeline)
    flyer.on_pause = "continue"  # of the flights that come
    completed = flyer.complete()
    flyer.pause()
    for waiting in (status, completed):
        assert "on_pause='abort'" in aborted(waiting)
    assert look(BUSY_PV)[0] == 0
    flyer.resume()
    controller()
    flyer.on_pause = "abort"
    flyer.kickoff().wait(TIMEOUT)
    before = look(BUSY_PV)
    flyer.pause()
    assert look(BUSY_PV) == before, "nothing is in the air: nothing is to be written"
    assert len(list(flyer.collect_pages())) == 1


def test_unstage_lands(in_flight: tuple[BusyFlyer, DeviceStatus], controller: Controller) -> None:
    flyer, status = in_flight
    flyer.unstage()
    assert "unstage() was called" in aborted(status)
    assert look(BUSY_PV)[0] == 0
    assert list(flyer.collect_pages()) == []
    controller(npts=3)
    flyer.stage()
    flyer.kickoff().wait(TIMEOUT)
    before = look(BUSY_PV)
    flyer.unstage()
    assert look(BUSY_PV) == before, "nothing is in the air: nothing is to be written"
    (page,) = flyer.collect_pages()
    assert len(page["time"]) == 3, "the RunEngine unstages before it collects what was left"


def test_unstage_lands_before_it_restores(
    direct_flyer: BusyFlyer, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stage_sigs set is the flight's."""
    controller(duration=60)
    order: list[str] = []
    signal = direct_flyer.busy.forward_link
    direct_flyer.stage_sigs[signal] = "prj:fence"
    direct_flyer.stage()
    status = direct_flyer.kickoff()
    status.add_callback(lambda _: order.append("landed"))
    restore = signal.set

    def noted(*args: Any, **kwargs: Any) -> Any:
        order.append("restored")
        return restore(*args, **kwargs)

    monkeypatch.setattr(signal, "set", noted)
    direct_flyer.unstage()
    assert order == ["landed", "restored"]


def test_complete_of_a_plan_that_is_given_up_in_a_pause(in_flight: tuple[BusyFlyer, DeviceStatus]) -> None:
    """As `fly_during_wrapper` does in an abort: it waits for nothing, and nothing is left flying."""
    flyer, status = in_flight
    flyer.pause()
    completed = flyer.complete()
    completed.wait(TIMEOUT)
    assert "given up" in aborted(status)
    assert list(flyer.collect_pages()) == []
    assert look(BUSY_PV)[0] == 0


def test_collect_of_a_plan_that_is_given_up_in_a_pause(in_flight: tuple[BusyFlyer, DeviceStatus]) -> None:
    """As the RunEngine does at the end of an abort."""
    flyer, status = in_flight
    flyer.pause()
    assert list(flyer.collect_pages()) == []
    assert "given up" in aborted(status)
    assert look(BUSY_PV)[0] == 0


def test_flight_that_ends_in_a_pause_is_collected(flyer: BusyFlyer, controller: Controller) -> None:
    controller(npts=3)
    status = flyer.kickoff()
    flyer.pause()
    status.wait(TIMEOUT)
    (page,) = flyer.collect_pages()
    assert len(page["time"]) == 3


def test_collect_in_flight_warns_once(
    in_flight: tuple[BusyFlyer, DeviceStatus], caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody knows whether its plan was given up, so the flight goes on."""
    flyer, status = in_flight
    for _ in range(3):
        assert list(flyer.collect_pages()) == []
    (record,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert record.name.startswith("busy_callback_flyer.")
    assert "ifly" in record.getMessage()
    assert BUSY_PV in record.getMessage()
    assert "plans.fly" in record.getMessage()
    assert not status.done
    assert look(BUSY_PV)[0] == 1


def test_collect_in_flight_of_a_staged_flyer_does_not_warn(
    flyer: BusyFlyer, controller: Controller, caplog: pytest.LogCaptureFixture
) -> None:
    """It is unstaged at last, which ends its flight."""
    controller(duration=60)
    flyer.stage()
    status = flyer.kickoff()
    assert list(flyer.collect_pages()) == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    flyer.unstage()
    aborted(status)


def test_kickoff_warns_of_arrays_that_it_forgets(flyer: BusyFlyer, caplog: pytest.LogCaptureFixture) -> None:
    def warnings() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]

    for _ in range(2):
        flyer.kickoff().wait(TIMEOUT)
        flyer.complete().wait(TIMEOUT)
        assert flyer.kept
    assert len(warnings()) == 1
    assert "ifly forgets the arrays of its latest flight" in warnings()[0]
    list(flyer.collect_pages())
    assert not flyer.kept
    flyer.kickoff().wait(TIMEOUT)
    assert len(warnings()) == 1


def test_arrays_offered_again(flyer: BusyFlyer, controller: Controller) -> None:
    with pytest.raises(RuntimeError, match="ifly has no arrays to offer: it has not flown"):
        flyer.offer_again()
    controller(npts=3)
    flyer.kickoff().wait(TIMEOUT)
    flyer.complete().wait(TIMEOUT)
    first, none = list(flyer.collect_pages()), list(flyer.collect_pages())
    flyer.offer_again()
    assert flyer.kept
    assert list(flyer.collect_pages()) == first
    assert none == []
    controller(duration=60)
    status = flyer.kickoff()
    with pytest.raises(RuntimeError, match="ifly has no arrays to offer yet: its flight is in progress"):
        flyer.offer_again()
    flyer.stop()
    aborted(status)
    with pytest.raises(RuntimeError, match="ifly has no arrays to offer: its flight failed") as caught:
        flyer.offer_again()
    assert isinstance(caught.value.__cause__, FlightAborted)


# Subscribers


@pytest.fixture
def told(flyer: BusyFlyer) -> queue.Queue[dict[str, Any]]:
    """What a subscriber of all three events is told."""
    told: queue.Queue[dict[str, Any]] = queue.Queue()
    for event in (flyer.SUB_FLIGHT_BUSY, flyer.SUB_FLIGHT_DONE, flyer.SUB_FLIGHT_FAILED):
        flyer.subscribe(lambda **details: told.put(details), event)
    return told


def fence(flyer: BusyFlyer) -> None:
    """Wait until the subscribers were told of a flight: it is published before its arrays come."""
    flyer.complete().wait(TIMEOUT)
    flyer._subscribers.wait(TIMEOUT)


def test_subscribers_are_told_of_each_flight_once(
    flyer: BusyFlyer, controller: Controller, told: queue.Queue[dict[str, Any]]
) -> None:
    controller(duration=0.01)
    for _ in range(20):
        flyer.kickoff().wait(TIMEOUT)
        for step in ("busy", "done"):
            details = told.get(timeout=TIMEOUT)
            when = flyer.timeline.t0 if step == "busy" else flyer.timeline["done"].stamp
            assert details["sub_type"] == f"flight_{step}"
            assert details["obj"] is flyer
            assert details["timeline"] is flyer.timeline
            assert details["timestamp"] == when
    fence(flyer)
    assert told.empty()


def test_subscribers_are_told_of_a_failure(
    flyer: BusyFlyer, controller: Controller, told: queue.Queue[dict[str, Any]]
) -> None:
    controller(fault=1)
    flyer.flight_timeout = 0.2
    with pytest.raises(FlightTimeout) as caught:
        flyer.kickoff().wait(TIMEOUT)
    busy, failed = told.get(timeout=TIMEOUT), told.get(timeout=TIMEOUT)
    assert (busy["sub_type"], failed["sub_type"]) == (flyer.SUB_FLIGHT_BUSY, flyer.SUB_FLIGHT_FAILED)
    assert failed["error"] is caught.value
    assert failed["timestamp"] == flyer.timeline["failed"].client
    assert told.empty()


def test_subscribers_are_told_of_busy_first(
    direct_flyer: BusyFlyer, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the thread that saw it has not come to tell, when another ends the flight."""
    controller(duration=60)
    monkeypatch.setattr(OneFlight, "began", lambda flight: None)
    told: queue.Queue[str] = queue.Queue()
    for event in (direct_flyer.SUB_FLIGHT_BUSY, direct_flyer.SUB_FLIGHT_FAILED):
        direct_flyer.subscribe(lambda *, sub_type, **_: told.put(sub_type), event)
    direct_flyer.kickoff()
    until(lambda: "busy" in direct_flyer.timeline)
    direct_flyer.stop()
    assert [told.get(timeout=TIMEOUT) for _ in range(2)] == ["flight_busy", "flight_failed"]


def test_a_flight_too_short_to_be_seen_is_told_of(make_flyer: MakeFlyer) -> None:
    flyer = make_flyer(Inward, time_array=None)
    events: list[tuple[str, float]] = []
    for event in (flyer.SUB_FLIGHT_DONE, flyer.SUB_FLIGHT_BUSY):
        flyer.subscribe(lambda *, sub_type, timestamp, **_: events.append((sub_type, timestamp)), event)
    flyer.kickoff().wait(TIMEOUT)
    flyer.complete().wait(TIMEOUT)
    until(lambda: len(events) == 2)
    put, done = flyer.timeline["put"].client, flyer.timeline["done"].stamp
    assert events == [(flyer.SUB_FLIGHT_BUSY, put), (flyer.SUB_FLIGHT_DONE, done)]


def test_a_new_subscriber_is_not_handed_an_old_flight(flyer: BusyFlyer) -> None:
    told: list[str] = []
    blocked, go_on = threading.Event(), threading.Event()

    def block(**_: Any) -> None:
        blocked.set()
        assert go_on.wait(TIMEOUT)

    flyer.subscribe(block, flyer.SUB_FLIGHT_DONE)
    flyer.kickoff().wait(TIMEOUT)
    assert blocked.wait(TIMEOUT)
    flyer.subscribe(lambda **_: told.append("late"), flyer.SUB_FLIGHT_DONE)  # the flight is still being told of
    go_on.set()
    fence(flyer)
    flyer.subscribe(lambda **_: told.append("later"), flyer.SUB_FLIGHT_DONE)
    flyer._subscribers.wait(TIMEOUT)
    assert told == []
    flyer.kickoff().wait(TIMEOUT)
    fence(flyer)
    assert told == ["late", "later"]


def test_unsubscribed(flyer: BusyFlyer) -> None:
    told: list[str] = []
    blocked, go_on = threading.Event(), threading.Event()

    def block(**_: Any) -> None:
        blocked.set()
        assert go_on.wait(TIMEOUT)

    def listen(**_: Any) -> None:
        told.append("told")

    flyer.subscribe(block, flyer.SUB_FLIGHT_DONE)
    flyer.subscribe(listen, flyer.SUB_FLIGHT_DONE)
    flyer.subscribe(lambda **_: told.append("the next"), flyer.SUB_FLIGHT_DONE)
    flyer.kickoff().wait(TIMEOUT)
    assert blocked.wait(TIMEOUT)
    flyer.clear_sub(listen)
    go_on.set()
    fence(flyer)
    flyer.kickoff().wait(TIMEOUT)
    fence(flyer)
    assert told == ["the next"] * 2


def test_a_slow_subscriber_delays_nobody(flyer: BusyFlyer, make_flyer: MakeFlyer) -> None:
    blocked, go_on, other_told = threading.Event(), threading.Event(), threading.Event()

    def block(**_: Any) -> None:
        blocked.set()
        assert go_on.wait(TIMEOUT)

    flyer.subscribe(block, flyer.SUB_FLIGHT_BUSY)
    other = make_flyer(events=flyer.events)
    other.subscribe(lambda **_: other_told.set(), other.SUB_FLIGHT_DONE)
    try:
        status = flyer.kickoff()
        assert blocked.wait(TIMEOUT)
        status.wait(TIMEOUT)
        flyer.complete().wait(TIMEOUT)
        other.kickoff().wait(TIMEOUT)
        assert other_told.wait(TIMEOUT)
        assert not go_on.is_set()
    finally:
        go_on.set()


def test_a_subscriber_that_raises_is_logged(flyer: BusyFlyer, caplog: pytest.LogCaptureFixture) -> None:
    told = threading.Event()

    def fail(**_: Any) -> None:
        raise ValueError("no idea")

    flyer.subscribe(fail, flyer.SUB_FLIGHT_DONE)
    flyer.subscribe(lambda **_: told.set(), flyer.SUB_FLIGHT_DONE)
    flyer.kickoff().wait(TIMEOUT)
    assert told.wait(TIMEOUT)
    assert "no idea" in caplog.text
    flyer.kickoff().wait(TIMEOUT)


def test_a_subscriber_may_use_channel_access(flyer: BusyFlyer) -> None:
    read: queue.Queue[Any] = queue.Queue()
    flyer.subscribe(lambda **_: read.put(look(BUSY_PV)[0]), flyer.SUB_FLIGHT_DONE)
    flyer.kickoff().wait(TIMEOUT)
    assert read.get(timeout=TIMEOUT) == 0


def test_no_thread_without_subscribers(controller: Controller) -> None:
    flyer = BusyFlyer(PREFIX, name="alone")
    flyer.wait_for_connection(timeout=10)

    def threads() -> list[str]:
        return [thread.name for thread in threading.enumerate() if "alone" in thread.name]

    flyer.kickoff().wait(TIMEOUT)
    flyer.complete().wait(TIMEOUT)
    assert threads() == []
    flyer.subscribe(lambda **_: None, flyer.SUB_FLIGHT_DONE)
    flyer.kickoff().wait(TIMEOUT)
    fence(flyer)
    assert len(threads()) == 1


def test_ophyds_subscription_status(flyer: BusyFlyer) -> None:
    landed = SubscriptionStatus(flyer, lambda **_: True, event_type=flyer.SUB_FLIGHT_DONE, timeout=TIMEOUT)
    flyer.kickoff()
    landed.wait(TIMEOUT)
