"""A flyer that is a component of another device: it is flown, not read, and `plans.fly` stages the root."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import bluesky.plans as bp
import bluesky.preprocessors as bpp
import epics
import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
from bluesky import RunEngine
from bluesky.callbacks.best_effort import BestEffortCallback
from bluesky.utils import Msg
from ophyd import Component, Device, EpicsSignal, EpicsSignalRO, Kind
from ophyd.sim import det, motor
from ophyd.utils import RedundantStaging

from busy_callback_flyer import BusyFlyer, BusyRecord, FlightAborted, TaxiFlyer
from busy_callback_flyer.plans import fly

from ..conftest import PREFIX
from ..faults.interruptions import HandFlyer, Scene, raising_in_flight, until

TIMEOUT = 20.0

Controller = Callable[..., None]
Documents = list[tuple[str, dict[str, Any]]]
Make = Callable[..., Any]


class Second(HandFlyer):
    busy = Component(BusyRecord, "second", kind="config")


class Measuring(BusyFlyer):
    temperature = Component(EpicsSignalRO, "position", kind="hinted")


class Station(Device):
    current = Component(EpicsSignalRO, "signal", kind="hinted")
    flyer = Component(BusyFlyer, "")


class Branch(Device):
    flyer = Component(HandFlyer, "")
    second = Component(Second, "")


class Deep(Device):
    duration = Component(EpicsSignal, "duration", kind="config")
    branch = Component(Branch, "")


@pytest.fixture
def make(controller: Controller) -> Iterator[Make]:
    """Makes connected stations, and lands their flyers after the test."""
    stations: list[Device] = []

    def make_station(kind: type[Device] = Station) -> Device:
        station = kind(PREFIX, name="station")
        stations.append(station)
        for device in (station, *(part for _, part in station.walk_subdevices() if isinstance(part, BusyFlyer))):
            device.wait_for_connection(timeout=10)
        return station

    yield make_station
    for station in stations:
        station.stop()
    for record in ("own", "second"):
        epics.caput(f"{PREFIX}{record}", 0)


def of_kind(documents: Documents, name: str) -> list[dict[str, Any]]:
    return [document for kind, document in documents if kind == name]


def staged(run_engine: RunEngine) -> list[tuple[str, Any]]:
    """What the RunEngine stages and unstages, in order."""
    messages: list[tuple[str, Any]] = []

    def note(msg: Msg) -> None:
        if msg.command in ("stage", "unstage"):
            messages.append((msg.command, msg.obj))

    run_engine.msg_hook = note  # type: ignore[assignment]
    return messages


# Read and hinted

KINDS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    **{kind: {"kind": kind} for kind in ("omitted", "config", "normal", "hinted")},
}


@pytest.mark.parametrize("flyer", [BusyFlyer, Measuring, TaxiFlyer])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_scan_of_the_station_and_a_flight(
    kind: str,
    flyer: type[BusyFlyer],
    make: Make,
    controller: Controller,
    run_engine: RunEngine,
    documents: Documents,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mpl.use("Agg")
    monkeypatch.setenv("BLUESKY_DEBUG_CALLBACKS", "1")
    controller(npts=3)
    part = Component(flyer, "", flight_timeout=TIMEOUT, **KINDS[kind])
    station = make(type("Kept", (Station,), {"flyer": part}))
    run_engine.subscribe(BestEffortCallback())
    for _ in range(2):
        documents.clear()
        before = set(plt.get_fignums())
        assert station.hints == {"fields": ["station_current"]}
        assert list(station.read()) == ["station_current"]
        run_engine(bp.scan([det, station], motor, 0, 1, 3))
        figures = [plt.figure(number) for number in set(plt.get_fignums()) - before]
        assert {axes.get_ylabel() for figure in figures for axes in figure.axes} == {"det", "station_current"}
        plt.close("all")
        run_engine(fly(station.flyer))
        scanned, flown = of_kind(documents, "descriptor")
        columns = ["station_flyer_xArr", "station_flyer_yArr"]
        values = ["station_flyer_temperature"] * (flyer is Measuring)
        assert scanned["hints"]["station"] == {"fields": ["station_current"]}
        assert flown["hints"] == {"station_flyer": {"fields": columns + values}}
        assert flown["data_keys"].keys() == {"station_flyer_tArr", *columns, *values}
    assert ("station_flyer_time_array" in station.read_configuration()) is (kind != "omitted")


def test_whatever_kind_it_is_given_it_is_flown_and_not_read(make: Make) -> None:
    station = make(type("Kept", (Station,), {"flyer": Component(Measuring, "")}))
    for kind in ("hinted", "normal", Kind.normal | Kind.config):
        station.flyer.kind = kind
        assert station.flyer.kind == Kind.config
    station.read_attrs = ["current", "flyer", "flyer.temperature"]
    assert station.hints["fields"] == list(station.read()) == ["station_current"]
    station.flyer.kind = "omitted"
    assert station.flyer.kind == Kind.omitted
    alone = copy.copy(station.flyer)
    assert alone.parent is None
    alone.kind = "hinted"
    assert alone.kind == Kind.hinted | Kind.config


def test_a_step_scan_of_the_flyer_itself(
    controller: Controller, run_engine: RunEngine, documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its hints are those of what is read then, and those of the columns when it flies."""
    mpl.use("Agg")
    monkeypatch.setenv("BLUESKY_DEBUG_CALLBACKS", "1")
    flyer = Measuring(PREFIX, name="ifly", flight_timeout=TIMEOUT)
    flyer.wait_for_connection(timeout=10)
    run_engine.subscribe(BestEffortCallback())
    for _ in range(2):
        documents.clear()
        run_engine(bp.scan([det, flyer], motor, 0, 1, 3))
        run_engine(fly(flyer))
        plt.close("all")
        hints = {document["name"]: document["hints"]["ifly"]["fields"] for document in of_kind(documents, "descriptor")}
        assert hints == {
            "primary": ["ifly_temperature"],
            "ifly": ["ifly_xArr", "ifly_yArr", "ifly_temperature"],
        }
        assert flyer.hints["fields"] == hints["ifly"]


# Staged


def test_fly_stages_the_root(make: Make, controller: Controller, run_engine: RunEngine) -> None:
    """Two levels deep, as bluesky's own decorator does: the root's `stage_sigs` are set."""

    class Branch(Device):
        flyer = Component(BusyFlyer, "", flight_timeout=TIMEOUT)

    station = make(type("Deep", (Deep,), {"branch": Component(Branch, "")}))
    controller(npts=2, duration=1.0)
    station.stage_sigs["duration"] = 0.2
    flyer, messages = station.branch.flyer, staged(run_engine)
    for plan in (fly, lambda one: bpp.stage_decorator([one])(bp.fly)([one])):
        messages.clear()
        run_engine(plan(flyer))
        assert messages == [("stage", station), ("unstage", station)]
        assert flyer.timeline["done"].stamp - flyer.timeline.t0 < 0.9
        assert station.duration.get(use_monitor=False) == 1.0


def test_fly_stages_each_root_once(make: Make) -> None:
    station, alone = make(Deep), BusyFlyer(PREFIX, name="alone", flight_timeout=TIMEOUT)
    alone.wait_for_connection(timeout=10)
    branch = station.branch
    for flyer in (alone, branch.flyer, branch.second):
        flyer.on_ragged = "truncate"  # their controllers write the same arrays at the same time
    scene = Scene(branch.flyer)
    messages = staged(scene.run_engine)

    def land_both() -> None:
        until(lambda: "busy" in branch.second.timeline)
        scene.land()
        branch.flyer.complete().wait(TIMEOUT)
        scene.land((4, 5), record="second")

    scene.play(fly([branch.flyer, alone, branch.second]), land_both)
    assert scene.ending is None
    assert messages == [("stage", station), ("stage", alone), ("unstage", alone), ("unstage", station)]
    streams = [document["name"] for document in of_kind(scene.documents, "descriptor")]
    assert streams == ["station_branch_flyer", "alone", "station_branch_second"]


def pause_and(scene: Scene, decide: str) -> None:
    scene.play(fly(scene.flyer), scene.press_ctrl_c_twice, getattr(scene.run_engine, decide))


ENDS: dict[str, Callable[[Scene], None]] = {
    "abort": partial(pause_and, decide="abort"),
    "stop": partial(pause_and, decide="stop"),
    "halt": partial(pause_and, decide="halt"),
    "an exception in the plan": lambda scene: scene.play(raising_in_flight(fly(scene.flyer), scene)),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_flight_in_a_station_is_ended_where_its_plan_is(end: str, make: Make) -> None:
    station = make(Deep)
    before = station.duration.get(use_monitor=False)
    station.stage_sigs["duration"] = before + 1
    scene = Scene(station.branch.flyer)
    ENDS[end](scene)
    assert isinstance(scene.flyer.statuses[0].exception(TIMEOUT), FlightAborted)
    until(lambda: epics.caget(f"{PREFIX}own", use_monitor=False) == 0)
    assert station.duration.get(use_monitor=False) == before, "it was unstaged"
    scene.forget()
    scene.play(fly(scene.flyer), scene.land)
    assert scene.ending is None


@pytest.mark.parametrize(
    "plan", [fly, lambda flyer: bpp.stage_decorator([flyer])(bp.fly)([flyer])], ids=["plans.fly", "bluesky's own"]
)
def test_a_root_that_is_staged_already_is_refused_as_by_bluesky(plan: Any, make: Make, run_engine: RunEngine) -> None:
    station = make()
    with pytest.raises(RedundantStaging, match="already staged"):
        run_engine(bpp.stage_decorator([station])(plan)(station.flyer))
    assert list(station.flyer.timeline) == [], "nothing was flown"
    run_engine(plan(station.flyer))


def test_no_flight_is_ended_for_another_in_its_station(make: Make, run_engine: RunEngine) -> None:
    branch = make(Deep).branch
    status = branch.flyer.kickoff()
    until(lambda: "busy" in branch.flyer.timeline)
    with pytest.raises(RuntimeError, match=r"station_branch_flyer is flying.*station_branch_second"):
        run_engine(fly(branch.second))
    assert not status.done
    assert list(branch.second.timeline) == []
    epics.caput(f"{PREFIX}own", 0)
    status.wait(TIMEOUT)


def test_a_flyer_without_parent_is_staged_itself(controller: Controller, run_engine: RunEngine) -> None:
    flyer, messages = BusyFlyer(PREFIX, name="ifly", flight_timeout=TIMEOUT), staged(run_engine)
    run_engine(fly(flyer))
    assert messages == [("stage", flyer), ("unstage", flyer)]
