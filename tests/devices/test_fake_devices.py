"""Events by ophyd's signals: any control layer, fake devices, and the traps on the way."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any

import epics
import numpy as np
import pytest
from ophyd import Component, Signal
from ophyd.sim import make_fake_device

from busy_callback_flyer import BusyFlyer, FlightRefused, FlightTimeout

from ..conftest import PREFIX

TIMEOUT = 20.0
BUSY_PV = f"{PREFIX}mybusy"

MakeFlyer = Callable[..., Any]
Controller = Callable[..., None]


# Fake devices

ROWS = {"tArr": [1.0, 2.0, 3.0], "xArr": [0.1, 0.2, 0.3], "yArr": [4.0, 5.0, 6.0]}


@pytest.fixture
def fake() -> Any:
    flyer = make_fake_device(BusyFlyer)("fake:", name="ifly", events="ophyd", flight_timeout=TIMEOUT)
    flyer.busy.state.sim_put(0)
    return flyer


def in_flight(flyer: Any) -> None:
    """Wait for the flight's Busy, which a worker puts."""
    said = threading.Event()
    token = flyer.busy.state.subscribe(lambda value, **_: said.set() if value else None)
    assert said.wait(TIMEOUT)
    flyer.busy.state.unsubscribe(token)


def land(flyer: Any, **rows: Any) -> None:
    """What the controller would do at the end."""
    for attr, values in (rows or ROWS).items():
        getattr(flyer, attr).wave.sim_put(np.array(values))
    flyer.busy.state.sim_put(0)


def test_fake_device_flies(fake: Any) -> None:
    for _ in range(2):
        status = fake.kickoff()
        in_flight(fake)
        assert not status.done
        land(fake)
        status.wait(TIMEOUT)
        fake.complete().wait(TIMEOUT)
        (page,) = fake.collect_pages()
        assert page["data"]["ifly_xArr"] == ROWS["xArr"]
        assert page["timestamps"]["ifly_yArr"] == ROWS["tArr"]
        assert list(fake.collect_pages()) == []


def test_fake_device_left_busy_is_reset(fake: Any) -> None:
    fake.busy.state.sim_put(1)
    known = threading.Event()
    fake._wiring.worker.do(known.set)  # behind the news
    assert known.wait(TIMEOUT)
    heard: queue.Queue[int] = queue.Queue()
    fake.busy.state.subscribe(lambda value, **_: heard.put(value), run=False)
    status = fake.kickoff()
    assert [heard.get(timeout=TIMEOUT) for _ in range(2)] == [0, 1]
    land(fake)
    status.wait(TIMEOUT)


def test_fake_device_that_takes_no_put_is_refused(fake: Any) -> None:
    """Nothing of the put is to be seen in it."""
    fake.busy.state.sim_set_putter(lambda value: None)
    with pytest.raises(FlightRefused, match="no trace"):
        fake.kickoff().wait(TIMEOUT)


def test_fake_record_that_clears_itself(fake: Any) -> None:
    state = fake.busy.state

    def put(value: int) -> None:
        state.sim_put(value)
        land(fake)

    state.sim_set_putter(put)
    fake.kickoff().wait(TIMEOUT)
    fake.complete().wait(TIMEOUT)
    (page,) = fake.collect_pages()
    assert len(page["time"]) == 3


def test_fake_device_is_silent_and_ends_by_its_timeout(fake: Any) -> None:
    fake.flight_timeout = 0.2
    with pytest.raises(FlightTimeout, match=r"flight_timeout=0\.2 s"):
        fake.kickoff().wait(TIMEOUT)
    said = threading.Event()
    fake.busy.state.subscribe(lambda value, **_: None if value else said.set())
    assert said.wait(TIMEOUT), "Done is written"


def test_stop_ends_the_flight_of_a_fake_device(fake: Any) -> None:
    status = fake.kickoff()
    in_flight(fake)
    fake.stop()
    assert status.exception(TIMEOUT) is not None
    said = threading.Event()
    fake.busy.state.subscribe(lambda value, **_: None if value else said.set())
    assert said.wait(TIMEOUT)


# Where direct cannot be had


def test_falls_back_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "busy_callback_flyer"):
        flyer = make_fake_device(BusyFlyer)("fake:", name="ifly")
        for _ in range(2):
            status = flyer.kickoff()
            in_flight(flyer)
            land(flyer)
            status.wait(TIMEOUT)
    (record,) = (record for record in caplog.records if "directly" in record.getMessage())
    assert "ifly cannot have its events directly" in record.message
    assert "FakeEpicsSignal" in record.message


def test_why_libca_cannot_be_had_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is a private one, and pyepics may find none: a reason, and no error of another kind."""
    from busy_callback_flyer.channels.ca import library as libca

    def fail() -> None:
        raise epics.ca.ChannelAccessException("cannot find Epics CA DLL")

    open_it = libca.library.__wrapped__  # what is kept since is not asked
    monkeypatch.setattr(epics.ca, "libca", object())
    with pytest.raises(libca.Unavailable, match="_name"):
        open_it()
    monkeypatch.setattr(epics.ca, "libca", None)
    monkeypatch.setattr(epics.ca, "initialize_libca", fail)
    with pytest.raises(libca.Unavailable, match="cannot find Epics CA DLL"):
        open_it()


def test_events_can_be_changed_between_flights(make_flyer: MakeFlyer, controller: Controller) -> None:
    controller(npts=3)
    flyer = make_flyer()
    for events in ("ophyd", "direct", "ophyd"):
        flyer.events = events
        flyer.kickoff().wait(TIMEOUT)
        flyer.complete().wait(TIMEOUT)
        (page,) = flyer.collect_pages()
        assert len(page["time"]) == 3
    flyer.events = "none"
    with pytest.raises(ValueError, match="events='none'"):
        flyer.kickoff()


def test_a_flyer_whose_signals_somebody_watches(make_flyer: MakeFlyer, controller: Controller) -> None:
    """Subscribers of the flyer's own signals change nothing."""
    controller(npts=3, duration=0.05)
    flyer = make_flyer(events="ophyd")
    seen: list[Any] = []
    for signal in (flyer.busy.state, flyer.xArr.wave, flyer.xArr.number_read):
        signal.subscribe(lambda value, **_: seen.append(value))
    for npts in (3, 17, 5):
        controller(npts=npts, duration=0.05)
        flyer.kickoff().wait(TIMEOUT)
        flyer.complete().wait(TIMEOUT)
        (page,) = flyer.collect_pages()
        assert len(page["time"]) == npts
    assert seen


# Other shapes of a busy record, other control layers


def test_soft_signals_fly() -> None:
    """No EPICS at all: whoever simulates a beamline can fly."""

    class Soft(BusyFlyer):
        busy = Component(Signal, value=0)
        tArr = xArr = yArr = None  # noqa: N815

    flyer = Soft(name="soft", events="ophyd", time_array=None)
    status = flyer.kickoff()
    said = threading.Event()
    flyer.busy.subscribe(lambda value, **_: said.set() if value else None)
    assert said.wait(TIMEOUT)
    flyer.busy.put(0)
    status.wait(TIMEOUT)
