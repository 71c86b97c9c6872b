"""PollingFlyer, and what it has in common with BusyFlyer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bluesky.plans as bp
import epics
import pytest
from bluesky import RunEngine
from ophyd import Component, EpicsSignal

from busy_callback_flyer import BusyFlyer, FlightAborted, FlightTimeout, PollingFlyer

from ..conftest import PREFIX, look

TIMEOUT = 20.0
BUSY_PV = f"{PREFIX}mybusy"

MakeFlyer = Callable[..., Any]
Controller = Callable[..., None]


def collected(flyer: BusyFlyer, run_engine: RunEngine) -> tuple[dict[str, Any], dict[str, Any]]:
    """The data keys and the page of one run."""
    documents: dict[str, dict[str, Any]] = {}
    token = run_engine.subscribe(documents.__setitem__)
    run_engine(bp.fly([flyer]))
    run_engine.unsubscribe(token)
    return documents["descriptor"]["data_keys"], documents["event_page"]


def test_both_flyers_bring_the_same(make_flyer: MakeFlyer, controller: Controller, run_engine: RunEngine) -> None:
    """Same settings, same seed: same keys, and x and y bit for bit."""
    controller(npts=51, duration=0.2, seed=7)
    keys, page = collected(make_flyer(BusyFlyer), run_engine)
    polled_keys, polled_page = collected(make_flyer(PollingFlyer), run_engine)
    assert {name: dict(key, object_name="") for name, key in keys.items()} == {
        name: dict(key, object_name="") for name, key in polled_keys.items()
    }
    for key in ("ifly_xArr", "ifly_yArr"):
        assert page["data"][key] == polled_page["data"][key]
        assert len(page["data"][key]) == 51
    assert len(set(page["data"]["ifly_yArr"])) > 10, "no signal"


@pytest.mark.parametrize("duration", [0, 0.2])
def test_flies(make_flyer: MakeFlyer, controller: Controller, duration: float) -> None:
    controller(duration=duration)
    flyer = make_flyer(PollingFlyer)
    assert flyer.poll_sleep_interval_s == 0.05
    for _ in range(3):
        flyer.kickoff().wait(TIMEOUT)
        assert look(BUSY_PV)[0] == 0
        flyer.complete().wait(TIMEOUT)
        (page,) = flyer.collect_pages()
        assert len(page["time"]) == 11
    assert [mark.step for mark in flyer.timeline if mark.step != "busy"] == [
        "put",
        "done",
        "finished",
        "arrays",
        "collected",
    ]


def test_puts_done_first(make_flyer: MakeFlyer, controller: Controller) -> None:
    controller(fault=1)
    epics.caput(BUSY_PV, 1)
    assert look(BUSY_PV)[0] == 1
    controller()
    flyer = make_flyer(PollingFlyer)
    flyer.kickoff().wait(TIMEOUT)


def test_absent_busy_times_out() -> None:
    class Lost(PollingFlyer):
        busy = Component(EpicsSignal, "nowhere")

    with pytest.raises(FlightTimeout, match=f"{PREFIX}nowhere: not connected"):
        Lost(PREFIX, name="lost", start_timeout=0.2).kickoff().wait(TIMEOUT)


def test_stop(make_flyer: MakeFlyer, controller: Controller) -> None:
    controller(duration=60)
    flyer = make_flyer(PollingFlyer)
    status = flyer.kickoff()
    while look(BUSY_PV)[0] == 0:
        assert not status.done
    flyer.stop()
    with pytest.raises(FlightAborted):
        status.wait(TIMEOUT)
    assert look(BUSY_PV)[0] == 0


def test_flight_timeout(make_flyer: MakeFlyer, controller: Controller) -> None:
    controller(fault=1)
    flyer = make_flyer(PollingFlyer, flight_timeout=0.3)
    with pytest.raises(FlightTimeout, match="flight_timeout"):
        flyer.kickoff().wait(TIMEOUT)
    assert look(BUSY_PV)[0] == 0
