"""Taxi, then fly: two busy records in turn, both by the same rules. The test is the controller of both."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Literal

import bluesky.plan_stubs as bps
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.protocols import Preparable
from bluesky.utils import MsgGenerator
from ophyd import Component

from busy_callback_flyer import (
    BusyRecord,
    FlightAborted,
    FlightRefused,
    FlightTimeout,
    StaleArrayError,
    TaxiFlyer,
    plans,
)
from busy_callback_flyer.engine.timeline import Timeline

# isort: split
import epics

from ..conftest import PREFIX, look
from ..faults.interruptions import known, until

BUSY, TAXI = f"{PREFIX}own", f"{PREFIX}second"
TIMEOUT = 20.0


class HandTaxiFlyer(TaxiFlyer):
    """Nobody acts on its records but the test."""

    busy = Component(BusyRecord, "own", kind="config")
    taxi = Component(BusyRecord, "second", kind="config")


@pytest.fixture(params=["direct", "ophyd"])
def flyer(request: pytest.FixtureRequest, make_flyer: Callable[..., Any]) -> HandTaxiFlyer:
    for pv in (BUSY, TAXI):
        epics.caput(pv, 0)
        assert look(pv)[0] == 0
    flyer: HandTaxiFlyer = make_flyer(HandTaxiFlyer, events=request.param, flight_timeout=TIMEOUT, taxi_timeout=TIMEOUT)
    return flyer


def is_busy(pv: str) -> bool:
    return look(pv)[0] == 1


def fill(points: tuple[float, ...] = (1, 2, 3)) -> None:
    x = np.array(points, float)
    for array, values in (("t", time.time() + x), ("x", x), ("y", x**2)):
        assert epics.caput(f"{PREFIX}{array}_array", values, wait=True, timeout=10) == 1


def under_way(timeline: Timeline) -> bool:
    """As its flyer knows: reads of the test's own, again and again, can make pyepics lose an event to ophyd."""
    return "busy" in timeline and "done" not in timeline and "failed" not in timeline


def begins_to_taxi(flyer: HandTaxiFlyer) -> None:
    until(lambda: under_way(flyer.taxi_timeline))


def begins_to_fly(flyer: HandTaxiFlyer) -> None:
    until(lambda: under_way(flyer.timeline))


def taxis(flyer: HandTaxiFlyer) -> None:
    """Play the controller: until the taxi is over."""
    begins_to_taxi(flyer)
    epics.caput(TAXI, 0)


def lands(flyer: HandTaxiFlyer, points: tuple[float, ...] = (1, 2, 3)) -> None:
    """Play the controller: the flight, once it has begun."""
    begins_to_fly(flyer)
    fill(points)
    epics.caput(BUSY, 0)


def test_it_can_be_prepared(flyer: HandTaxiFlyer) -> None:
    assert isinstance(flyer, Preparable)


def test_a_kickoff_taxis_first(flyer: HandTaxiFlyer) -> None:
    status = flyer.kickoff()
    begins_to_taxi(flyer)
    assert not is_busy(BUSY)
    assert not status.done
    taxis(flyer)
    begins_to_fly(flyer)
    assert not status.done
    lands(flyer)
    status.wait(timeout=TIMEOUT)
    flyer.complete().wait(timeout=TIMEOUT)
    (page,) = flyer.collect_pages()
    assert page["data"]["ifly_xArr"] == [1, 2, 3]
    assert flyer.taxi_timeline["done"].client <= flyer.timeline["put"].client
    assert [look(pv)[0] for pv in (BUSY, TAXI)] == [0, 0]


def test_what_is_prepared_taxis_once_and_for_one_flight(flyer: HandTaxiFlyer) -> None:
    prepared = flyer.prepare()
    taxis(flyer)
    prepared.wait(timeout=TIMEOUT)
    taxied = look(TAXI)
    status = flyer.kickoff()
    lands(flyer)
    status.wait(timeout=TIMEOUT)
    assert look(TAXI) == taxied
    status = flyer.kickoff()
    begins_to_taxi(flyer)
    assert not is_busy(BUSY)
    taxis(flyer)
    lands(flyer)
    status.wait(timeout=TIMEOUT)


def test_a_kickoff_in_the_taxi_waits_for_it(flyer: HandTaxiFlyer) -> None:
    prepared = flyer.prepare()
    begins_to_taxi(flyer)
    busy = look(TAXI)
    status = flyer.kickoff()
    assert not is_busy(BUSY)
    assert look(TAXI) == busy
    taxis(flyer)
    prepared.wait(timeout=TIMEOUT)
    lands(flyer)
    status.wait(timeout=TIMEOUT)


@pytest.mark.parametrize("by", ["kickoff", "prepare and kickoff"])
def test_a_failed_taxi_never_flies(flyer: HandTaxiFlyer, by: str) -> None:
    before = look(BUSY)
    flyer.taxi_timeout = 0.2
    if by == "prepare and kickoff":
        prepared = flyer.prepare()
    status = flyer.kickoff()
    failure = status.exception(timeout=TIMEOUT)
    assert isinstance(failure, FlightTimeout)
    for word in (BUSY, TAXI, "taxi failed", "taxi_timeout=0.2"):
        assert word in str(failure)
    if by == "prepare and kickoff":
        assert isinstance(prepared.exception(timeout=TIMEOUT), FlightTimeout)
    assert isinstance(flyer.complete().exception(timeout=TIMEOUT), FlightTimeout)
    assert list(flyer.collect_pages()) == []
    assert look(BUSY) == before
    assert not is_busy(TAXI)
    flyer.taxi_timeout = TIMEOUT
    status = flyer.kickoff()
    taxis(flyer)
    lands(flyer)
    status.wait(timeout=TIMEOUT)


def test_after_a_taxi_that_failed_the_next_kickoff_taxis(flyer: HandTaxiFlyer) -> None:
    flyer.taxi_timeout = 0.2
    assert isinstance(flyer.prepare().exception(timeout=TIMEOUT), FlightTimeout)
    flyer.taxi_timeout = TIMEOUT
    status = flyer.kickoff()
    taxis(flyer)
    lands(flyer)
    status.wait(timeout=TIMEOUT)


def test_stop_in_the_taxi_ends_it_and_nothing_is_flown(flyer: HandTaxiFlyer) -> None:
    before = look(BUSY)
    status = flyer.kickoff()
    begins_to_taxi(flyer)
    flyer.stop()
    assert isinstance(status.exception(timeout=TIMEOUT), FlightAborted)
    assert not is_busy(TAXI)
    assert look(BUSY) == before
    assert not flyer.flying


def test_stop_in_flight_leaves_the_taxi_alone(flyer: HandTaxiFlyer) -> None:
    status = flyer.kickoff()
    taxis(flyer)
    begins_to_fly(flyer)
    taxied = look(TAXI)
    flyer.stop()
    assert isinstance(status.exception(timeout=TIMEOUT), FlightAborted)
    assert not is_busy(BUSY)
    assert look(TAXI) == taxied


def test_stop_between_forgets_the_taxi(flyer: HandTaxiFlyer) -> None:
    prepared = flyer.prepare()
    taxis(flyer)
    prepared.wait(timeout=TIMEOUT)
    flyer.stop()
    flyer.kickoff()
    begins_to_taxi(flyer)


def test_it_is_not_prepared_in_flight(flyer: HandTaxiFlyer) -> None:
    flyer.kickoff()
    with pytest.raises(RuntimeError, match="flying already"):
        flyer.prepare()


def test_what_the_taxi_filled_is_of_this_flight(flyer: HandTaxiFlyer) -> None:
    status = flyer.kickoff()
    begins_to_taxi(flyer)
    fill()
    epics.caput(TAXI, 0)
    begins_to_fly(flyer)
    epics.caput(BUSY, 0)
    status.wait(timeout=TIMEOUT)
    flyer.complete().wait(timeout=TIMEOUT)
    (page,) = flyer.collect_pages()
    assert page["data"]["ifly_xArr"] == [1, 2, 3]


def test_what_is_older_than_the_taxi_is_not(flyer: HandTaxiFlyer) -> None:
    fill()
    flyer.fresh_timeout = 0.0
    status = flyer.kickoff()
    taxis(flyer)
    begins_to_fly(flyer)
    epics.caput(BUSY, 0)
    status.wait(timeout=TIMEOUT)
    assert isinstance(flyer.complete().exception(timeout=TIMEOUT), StaleArrayError)


@pytest.mark.parametrize("where", ["in the taxi", "in flight"])
def test_a_replay_rejoins(flyer: HandTaxiFlyer, where: str) -> None:
    """As the RunEngine does it after a pause: what came since the checkpoint comes again."""
    prepared, status = flyer.prepare(), flyer.kickoff()
    begins_to_taxi(flyer)
    if where == "in flight":
        taxis(flyer)
        begins_to_fly(flyer)
    before = [look(pv) for pv in (BUSY, TAXI)]
    flyer.pause()
    flyer.resume()
    assert flyer.prepare() is prepared
    assert flyer.kickoff() is status
    assert [look(pv) for pv in (BUSY, TAXI)] == before
    if where == "in the taxi":
        taxis(flyer)
    lands(flyer)
    status.wait(timeout=TIMEOUT)
    flyer.kickoff()
    begins_to_taxi(flyer)


def fly_once(flyer: HandTaxiFlyer) -> None:
    status = flyer.kickoff()
    taxis(flyer)
    lands(flyer)
    status.wait(timeout=TIMEOUT)
    flyer.complete().wait(timeout=TIMEOUT)
    assert len(list(flyer.collect_pages())) == 1


@pytest.mark.parametrize("by", ["kickoff", "prepare"])
def test_a_pause_after_a_flight_makes_no_taxi_do_for_two(flyer: HandTaxiFlyer, by: str) -> None:
    fly_once(flyer)
    flyer.pause()
    flyer.resume()
    getattr(flyer, by)()
    begins_to_taxi(flyer)
    assert not is_busy(BUSY)


def test_a_replay_of_the_kickoff_alone_makes_no_taxi_do_for_two(flyer: HandTaxiFlyer) -> None:
    """There was a checkpoint between prepare and kickoff."""
    prepared = flyer.prepare()
    taxis(flyer)
    prepared.wait(timeout=TIMEOUT)
    status = flyer.kickoff()
    flyer.pause()
    flyer.resume()
    assert flyer.kickoff() is status
    lands(flyer)
    status.wait(timeout=TIMEOUT)
    flyer.complete().wait(timeout=TIMEOUT)
    assert len(list(flyer.collect_pages())) == 1
    assert flyer.prepare() is not prepared
    begins_to_taxi(flyer)


def test_what_was_prepared_survives_a_pause(flyer: HandTaxiFlyer) -> None:
    prepared = flyer.prepare()
    taxis(flyer)
    prepared.wait(timeout=TIMEOUT)
    taxied = look(TAXI)
    flyer.pause()
    flyer.resume()
    assert flyer.prepare() is prepared
    status = flyer.kickoff()
    lands(flyer)
    status.wait(timeout=TIMEOUT)
    assert look(TAXI) == taxied


def test_what_was_prepared_by_a_plan_that_was_given_up_is_forgotten(flyer: HandTaxiFlyer) -> None:
    prepared = flyer.prepare()
    taxis(flyer)
    prepared.wait(timeout=TIMEOUT)
    flyer.pause()
    flyer.kickoff()
    begins_to_taxi(flyer)
    assert not is_busy(BUSY)


@pytest.mark.parametrize("when_busy", ["fail", "wait", "reset"])
def test_nothing_is_moved_while_another_flies(
    flyer: HandTaxiFlyer, when_busy: Literal["fail", "wait", "reset"]
) -> None:
    flyer.when_busy = when_busy
    taxied = look(TAXI)
    epics.caput(BUSY, 1, wait=False)
    until(lambda: known(flyer) == 1)
    with pytest.raises(FlightRefused, match="is not Done: to taxi would move what flies"):
        flyer.prepare()
    status = flyer.kickoff()
    if when_busy == "fail":
        assert isinstance(status.exception(timeout=TIMEOUT), FlightRefused)
        assert is_busy(BUSY)
        assert look(TAXI) == taxied
        return
    if when_busy == "wait":
        assert look(TAXI) == taxied
        epics.caput(BUSY, 0)
    taxis(flyer)
    lands(flyer)
    status.wait(timeout=TIMEOUT)


def test_two_with_one_taxi_do_not_fly_at_once(flyer: HandTaxiFlyer) -> None:
    class Second(HandTaxiFlyer):
        busy = Component(BusyRecord, "contested", kind="config")

    with pytest.raises(ValueError, match=f"both have the busy record {TAXI}"):
        list(plans.fly([flyer, Second(PREFIX, name="jfly")]))


def test_a_taxi_of_normal_kind_is_no_column(make_flyer: Callable[..., Any]) -> None:
    class Normal(HandTaxiFlyer):
        taxi = Component(BusyRecord, "second")

    assert set(make_flyer(Normal).describe_collect()["ifly"]) == {"ifly_tArr", "ifly_xArr", "ifly_yArr"}


def test_a_pause_can_abort_both(flyer: HandTaxiFlyer) -> None:
    flyer.on_pause = "abort"
    for where in (TAXI, BUSY):
        status = flyer.kickoff()
        if where == BUSY:
            taxis(flyer)
        (begins_to_taxi if where == TAXI else begins_to_fly)(flyer)
        flyer.pause()
        assert isinstance(status.exception(timeout=TIMEOUT), FlightAborted)
        assert [is_busy(pv) for pv in (TAXI, BUSY)] == [False, False]


def test_in_a_plan(flyer: HandTaxiFlyer, run_engine: RunEngine, documents: list[tuple[str, dict[str, Any]]]) -> None:
    def plan() -> MsgGenerator[None]:
        yield from bps.prepare(flyer, None, group="taxi")
        yield from bps.wait("taxi")
        yield from plans.fly(flyer)

    def act(event: Callable[[], None]) -> Callable[..., None]:
        return lambda **_: event()

    flyer.subscribe(act(lambda: lands(flyer)), flyer.SUB_FLIGHT_BUSY)
    taxiing = threading.Thread(target=taxis, args=(flyer,))
    taxiing.start()
    run_engine(plan())
    taxiing.join(TIMEOUT)
    (page,) = (document for name, document in documents if name == "event_page")
    assert page["data"]["ifly_xArr"] == [1, 2, 3]
    assert documents[-1][1]["exit_status"] == "success"


def test_the_embedded_ioc_taxis_and_flies(make_flyer: Callable[..., Any], controller: Callable[..., None]) -> None:
    controller(npts=7, duration=0.05, start=-3.0)
    flyer: TaxiFlyer = make_flyer(TaxiFlyer, flight_timeout=TIMEOUT, taxi_timeout=TIMEOUT)
    flyer.prepare().wait(TIMEOUT)
    assert look(f"{PREFIX}position")[0] == -3.0
    flyer.kickoff().wait(TIMEOUT)
    flyer.complete().wait(TIMEOUT)
    (page,) = flyer.collect_pages()
    np.testing.assert_array_equal(page["data"][f"{flyer.name}_xArr"], np.linspace(-3.0, 5.0, 7))


def test_what_cannot_taxi_is_refused_before_anything_moves(make_flyer: Callable[..., Any]) -> None:
    class Wrong(HandTaxiFlyer):
        taxi = Component(BusyRecord, "npts", kind="config")

    flyer = Wrong(PREFIX, name="wrong")
    with pytest.raises(FlightRefused, match="no busy record"):
        flyer.wait_for_connection(timeout=TIMEOUT)
    with pytest.raises(FlightRefused, match="no busy record"):
        flyer.kickoff()
    assert not is_busy(BUSY)


def test_options_are_checked_and_configured(flyer: HandTaxiFlyer) -> None:
    with pytest.raises(ValueError, match="taxi_timeout"):
        HandTaxiFlyer(PREFIX, name="bad", taxi_timeout=-1)
    flyer.configure({"taxi_timeout": 7.0})
    assert flyer.read_configuration()["ifly_taxi_timeout"]["value"] == 7.0


def test_flight_timeout_bounds_the_taxi_too(flyer: HandTaxiFlyer) -> None:
    flyer.taxi_timeout, flyer.flight_timeout = None, 0.3
    status = flyer.kickoff()
    until(lambda: is_busy(TAXI))
    error = status.exception(TIMEOUT)
    assert type(error) is FlightTimeout
    assert "not Done within flight_timeout=0.3 s of kickoff: Busy was not put" in str(error)
    assert "waiting for the taxi" in str(error)
    assert not is_busy(TAXI), "it is ended with its flight"
    assert not is_busy(BUSY)


@pytest.mark.parametrize("flown", [False, True], ids=["left alone", "flown by another"])
def test_arrays_that_are_filled_on_the_way_are_ours_unless_another_flew(flyer: HandTaxiFlyer, flown: bool) -> None:
    """What the taxi filled counts, as its put was ours; after another's flight only what was written since our put."""
    flyer.fresh_timeout = 0
    prepared = flyer.prepare()
    until(lambda: is_busy(TAXI))
    fill()
    epics.caput(TAXI, 0)
    prepared.wait(TIMEOUT)
    if flown:
        before = known(flyer)
        assert before == 0
        seen = flyer._wiring.driver.channel.reading
        epics.caput(BUSY, 1)
        epics.caput(BUSY, 0)
        until(lambda: flyer._wiring.driver.channel.reading not in (None, seen) and known(flyer) == 0)
    status = flyer.kickoff()
    until(lambda: is_busy(BUSY))
    epics.caput(BUSY, 0)
    status.wait(TIMEOUT)
    completed = flyer.complete()
    if flown:
        assert isinstance(completed.exception(TIMEOUT), StaleArrayError)
    else:
        completed.wait(TIMEOUT)


def test_a_taxi_right_behind_a_stop_lets_the_controller_settle(flyer: HandTaxiFlyer) -> None:
    """What the aborted one still writes must be on the ground of the next."""
    flyer.reset_settle = 0.3
    status = flyer.kickoff()
    until(lambda: is_busy(TAXI))
    epics.caput(TAXI, 0)
    until(lambda: is_busy(BUSY))
    flyer.stop()
    assert isinstance(status.exception(TIMEOUT), FlightAborted)
    stopped = flyer._ended.at
    prepared = flyer.prepare()
    until(lambda: is_busy(TAXI))
    put = flyer._taxi.driver.flight
    assert put is not None
    assert put._put_at >= stopped + 0.3
    epics.caput(TAXI, 0)
    prepared.wait(TIMEOUT)


def test_what_a_taxi_could_not_ask_is_asked_with_the_put(flyer: HandTaxiFlyer) -> None:
    prepared = flyer.prepare()
    until(lambda: is_busy(TAXI))
    epics.caput(TAXI, 0)
    prepared.wait(TIMEOUT)
    earlier = flyer._taxi._ground
    assert earlier is not None
    earlier._before.pop("xArr")
    status = flyer.kickoff()
    until(lambda: is_busy(BUSY))
    fill()
    epics.caput(BUSY, 0)
    status.wait(TIMEOUT)
    flyer.complete().wait(TIMEOUT)


def test_a_flight_that_fails_ends_no_taxi_that_was_prepared_since(flyer: HandTaxiFlyer) -> None:
    status = flyer.kickoff()
    until(lambda: is_busy(TAXI))
    flight = flyer._latest.flight  # type: ignore[union-attr]
    flyer.stop()
    assert isinstance(status.exception(TIMEOUT), FlightAborted)
    prepared = flyer.prepare()
    flyer._taxi.end("its flight was given up", flight)
    until(lambda: is_busy(TAXI))
    epics.caput(TAXI, 0)
    prepared.wait(TIMEOUT)
