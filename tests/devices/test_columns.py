"""Waveforms at any depth of a flyer's tree are its columns, and their kind means what it means in ophyd."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
import pytest
from bluesky import RunEngine
from ophyd import Component, Device, DynamicDeviceComponent, EpicsSignalRO, Signal
from ophyd.sim import make_fake_device

from busy_callback_flyer import BusyFlyer, RaggedArrayError, StaleArrayError, Waveform, make_flyer
from busy_callback_flyer.devices.columns import collected_names

from ..conftest import PREFIX

TIMEOUT = 20.0

Controller = Callable[..., None]
Documents = list[tuple[str, dict[str, Any]]]
MakeFlyer = Callable[..., Any]

WAVES: dict[str, Any] = {"x": (Waveform, "x_array", {}), "y": (Waveform, "y_array", {"kind": "config"})}


class Counter(Device):
    x = Component(Waveform, "x_array")
    y = Component(Waveform, "y_array", kind="config")


class LazyCounter(Device):
    x = Component(Waveform, "x_array", lazy=True)
    y = Component(Waveform, "y_array", lazy=True, kind="config")


class Crate(Device):
    card = Component(Counter, "")


class DynamicCrate(Device):
    card = DynamicDeviceComponent(WAVES)


class WithErrors(Waveform):
    errors = Component(Waveform, f"{PREFIX}y_array", add_prefix=())


class Bare(BusyFlyer):
    tArr = xArr = yArr = None  # noqa: N815


TREES: dict[str, tuple[Component[Any], list[str]]] = {
    "sub-device": (Component(Counter, ""), ["part.x", "part.y"]),
    "dynamic": (DynamicDeviceComponent(WAVES), ["part.x", "part.y"]),
    "two deep": (Component(Crate, ""), ["part.card.x", "part.card.y"]),
    "dynamic in a sub-device": (Component(DynamicCrate, ""), ["part.card.x", "part.card.y"]),
    "lazy columns": (Component(LazyCounter, ""), ["part.x", "part.y"]),
    "lazy sub-device": (Component(Counter, "", lazy=True), ["part.x", "part.y"]),
    "of kind config": (Component(Counter, "", kind="config"), ["part.x", "part.y"]),
}


def with_part(part: Component[Any], **more: Any) -> type[BusyFlyer]:
    return type("Nested", (Bare,), {"part": part, **more})


def flown(flyer: BusyFlyer) -> dict[str, Any]:
    """What one flight brought, by data key."""
    flyer.kickoff().wait(TIMEOUT)
    flyer.complete().wait(TIMEOUT)
    (page,) = flyer.collect_pages()
    return dict(page["data"])


def keys(flyer: BusyFlyer) -> list[str]:
    return list(flyer.describe_collect()[flyer.name])


# In the tree


@pytest.mark.parametrize("events", ["direct", "ophyd"])
@pytest.mark.parametrize("tree", TREES)
def test_waveforms_anywhere_in_the_tree_are_columns(
    tree: str,
    events: str,
    make_flyer: MakeFlyer,
    controller: Controller,
    run_engine: RunEngine,
    documents: Documents,
) -> None:
    controller(npts=5)
    part, names = TREES[tree]
    flyer = make_flyer(with_part(part), time_array=None, events=events)
    expected = [getattr(flyer, name).name for name in names]
    assert expected == [f"ifly_{name.replace('.', '_')}" for name in names], "ophyd's own names"
    run_engine(bp.fly([flyer], md=flyer.plot_md))
    (page,) = (document for name, document in documents if name == "event_page")
    (descriptor,) = (document for name, document in documents if name == "descriptor")
    (start,) = (document for name, document in documents if name == "start")
    assert list(page["data"]) == list(descriptor["data_keys"]) == expected
    assert page["data"][expected[0]] == [-5.0, -2.5, 0.0, 2.5, 5.0]
    assert page["data"][expected[1]] == getattr(flyer, names[1]).wave.get(use_monitor=False).tolist()
    assert descriptor["hints"] == {"ifly": {"fields": expected}}
    assert start["hints"] == {"dimensions": [([expected[0]], "ifly")]}
    assert descriptor["configuration"]["ifly"]["data"][f"{expected[1]}_pv"] == f"{PREFIX}y_array"


@pytest.mark.parametrize("events", ["direct", "ophyd"])
@pytest.mark.parametrize("tree", TREES)
def test_waveforms_anywhere_in_the_tree_are_judged(
    tree: str, events: str, make_flyer: MakeFlyer, controller: Controller
) -> None:
    flyer = make_flyer(with_part(TREES[tree][0]), time_array=None, events=events, fresh_timeout=0.05)
    flown(flyer)
    controller(seed=2, fault=4, duration=0.02)  # the arrays are not refreshed
    flyer.kickoff().wait(TIMEOUT)
    with pytest.raises(StaleArrayError, match=f"{PREFIX}x_array.*{PREFIX}y_array"):
        flyer.complete().wait(TIMEOUT)
    controller(fault=3, duration=0.02)  # one array is shorter
    flyer.kickoff().wait(TIMEOUT)
    with pytest.raises(RaggedArrayError, match=f"{PREFIX}y_array"):
        flyer.complete().wait(TIMEOUT)
    controller()
    assert [len(values) for values in flown(flyer).values()] == [11, 11]


def test_columns_keep_the_order_of_the_tree(make_flyer: MakeFlyer, controller: Controller) -> None:
    class Mixed(BusyFlyer):
        part = Component(Crate, "")
        again = Component(Waveform, "x_array")
        yArr = None  # noqa: N815

    controller(npts=3)
    flyer = make_flyer(Mixed)
    expected = ["ifly_tArr", "ifly_xArr", "ifly_part_card_x", "ifly_part_card_y", "ifly_again"]
    assert list(flown(flyer)) == expected == keys(flyer)


def test_a_waveform_in_a_waveform_is_a_column(make_flyer: MakeFlyer, controller: Controller) -> None:
    controller(npts=3)
    flyer = make_flyer(with_part(Component(WithErrors, "x_array")), time_array=None)
    assert list(flown(flyer)) == ["ifly_part", "ifly_part_errors"] == keys(flyer)


def test_columns_of_a_flyer_in_a_flyer_are_its_own(make_flyer: MakeFlyer, controller: Controller) -> None:
    class Second(BusyFlyer):
        yArr = None  # noqa: N815

    flyer = make_flyer(type("Outer", (BusyFlyer,), {"inner": Component(Second, "")}))
    assert list(flown(flyer)) == ["ifly_tArr", "ifly_xArr", "ifly_yArr"]
    assert list(flown(flyer.inner)) == ["ifly_inner_tArr", "ifly_inner_xArr"]


def test_two_columns_of_one_key_are_refused_when_defined() -> None:
    with pytest.raises(TypeError, match=r"Clash: part\.x and part_x have one data key"):
        type("Clash", (Bare,), {"part": Component(Counter, ""), "part_x": Component(Waveform, "x_array")})


@pytest.mark.parametrize("events", ["direct", "ophyd"])
def test_options_take_dotted_names(events: str, make_flyer: MakeFlyer, controller: Controller) -> None:
    class Detector(Device):
        times = Component(Waveform, "t_array")
        y = Component(Waveform, "y_array")
        npts = Component(EpicsSignalRO, "npts", kind="omitted")

    controller(npts=4, duration=0.1)
    names = {"time_array": "part.times", "points": "part.npts", "expected_points": "part.npts", "progress": "part.y"}
    flyer = make_flyer(with_part(Component(Detector, "")), events=events, **names)
    told, counted = [], threading.Event()

    def watch(**facts: Any) -> None:
        told.append(facts)
        if facts.get("fraction") == 0.0:
            counted.set()

    flyer.kickoff().watch(watch)
    flyer.complete().wait(TIMEOUT)
    assert counted.wait(TIMEOUT)
    assert {facts["target"] for facts in told if "target" in facts} == {4}
    (page,) = flyer.collect_pages()
    assert list(page["data"]) == ["ifly_part_times", "ifly_part_y"]
    t0 = flyer.timeline.t0
    assert page["time"] == pytest.approx([t0 + seconds for seconds in page["data"]["ifly_part_times"]])
    assert flyer.describe_collect()["ifly"]["ifly_part_times"]["units"] == "s"
    assert flyer.hints == {"fields": ["ifly_part_y"]}


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("time_array", "part.z"),
        ("time_array", "part"),
        ("points", "part.x"),
        ("progress", "part.card.x"),
        ("expected_time", "part.x"),
    ],
)
def test_options_that_name_nothing_in_the_tree_are_refused(option: str, name: str) -> None:
    options: dict[str, Any] = {"time_array": None, option: name}
    with pytest.raises(ValueError, match=f"{option}='{name}'"):
        with_part(Component(Counter, ""))(PREFIX, name="f", **options)


def test_values_of_a_sub_device_are_read_once_a_flight(
    make_flyer: MakeFlyer, controller: Controller, run_engine: RunEngine, documents: Documents
) -> None:
    class Detector(Counter):
        gain = Component(Signal, value=3.0, kind="hinted")
        npts = Component(EpicsSignalRO, "npts")
        notes = Component(Signal, value="-", kind="config")

    controller(npts=2)
    flyer = make_flyer(with_part(Component(Detector, "")), time_array=None)
    run_engine(bp.fly([flyer]))
    (page,) = (document for name, document in documents if name == "event_page")
    (descriptor,) = (document for name, document in documents if name == "descriptor")
    assert list(page["data"]) == ["ifly_part_x", "ifly_part_y", "ifly_part_gain", "ifly_part_npts"]
    assert (page["data"]["ifly_part_gain"], page["data"]["ifly_part_npts"]) == ([3.0, 3.0], [2, 2])
    assert descriptor["hints"] == {"ifly": {"fields": ["ifly_part_x", "ifly_part_y", "ifly_part_gain"]}}


def test_layout_array(make_flyer: MakeFlyer, controller: Controller) -> None:
    controller(npts=3)
    flyer = make_flyer(with_part(Component(Crate, "")), time_array=None, layout="array", array_length=4)
    data = flown(flyer)
    assert list(data) == [f"ifly_part_card_{column}" for column in ("x", "x_nord", "y", "y_nord")] == keys(flyer)
    assert data["ifly_part_card_x_nord"] == [3]


def test_a_fake_device_flies_its_tree() -> None:
    flyer = make_fake_device(with_part(Component(Crate, "")))("f:", name="f", events="ophyd", time_array=None)
    flyer.busy.state.sim_put(0)
    said = threading.Event()
    flyer.busy.state.subscribe(lambda value, **_: said.set() if value else None)
    status = flyer.kickoff()
    assert said.wait(TIMEOUT)
    for wave in (flyer.part.card.x.wave, flyer.part.card.y.wave):
        wave.sim_put(np.array([1.0, 2.0]))
    flyer.busy.state.sim_put(0)
    status.wait(TIMEOUT)
    flyer.complete().wait(TIMEOUT)
    (page,) = flyer.collect_pages()
    assert page["data"] == {"f_part_card_x": [1.0, 2.0], "f_part_card_y": [1.0, 2.0]}


# Of kind omitted


def omit_part(flyer: Any) -> None:
    flyer.part.kind = "omitted"


def omit_column(flyer: Any) -> None:
    flyer.part.x.kind = flyer.part.y.kind = "omitted"


def omit_wave(flyer: Any) -> None:
    flyer.part.x.wave.kind = flyer.part.y.wave.kind = "omitted"


@pytest.mark.parametrize("omit", [omit_part, omit_column, omit_wave])
def test_what_is_omitted_is_not_collected(omit: Callable[[Any], None], make_flyer: MakeFlyer) -> None:
    flyer = make_flyer(type("Nested", (BusyFlyer,), {"part": Component(Counter, ""), "yArr": None}))
    assert list(flown(flyer)) == ["ifly_tArr", "ifly_xArr", "ifly_part_x", "ifly_part_y"]
    omit(flyer)
    assert keys(flyer) == ["ifly_tArr", "ifly_xArr"]
    assert flyer.hints == {"fields": ["ifly_xArr"]}
    assert "ifly_part_x_pv" not in flyer.read_configuration()
    assert list(flown(flyer)) == ["ifly_tArr", "ifly_xArr"]


def test_what_is_omitted_in_the_class_can_be_collected_later(make_flyer: MakeFlyer, controller: Controller) -> None:
    class Shy(BusyFlyer):
        yArr = Component(Waveform, "y_array", kind="omitted")  # noqa: N815

    flyer = make_flyer(Shy)
    assert list(flown(flyer)) == ["ifly_tArr", "ifly_xArr"]
    flyer.yArr.kind = "normal"
    flyer.wait_for_connection(timeout=10)
    assert list(flown(flyer)) == ["ifly_tArr", "ifly_xArr", "ifly_yArr"] == keys(flyer)


def test_what_is_omitted_is_not_waited_for(controller: Controller) -> None:
    class Hidden(Device):
        absent = Component(Waveform, "absent", lazy=True)

    class Shy(BusyFlyer):
        gone = Component(Waveform, "absent", lazy=True, kind="omitted")
        hidden = Component(Hidden, "", kind="omitted")

    flyer = Shy(PREFIX, name="ifly", flight_timeout=TIMEOUT)
    flyer.wait_for_connection(timeout=10)
    assert list(flown(flyer)) == ["ifly_tArr", "ifly_xArr", "ifly_yArr"]


def test_a_flight_keeps_the_columns_of_its_kickoff(make_flyer: MakeFlyer, controller: Controller) -> None:
    flyer = make_flyer()
    before = ["ifly_tArr", "ifly_xArr", "ifly_yArr"]
    flyer.kickoff().wait(TIMEOUT)
    flyer.yArr.kind = "omitted"
    flyer.complete().wait(TIMEOUT)
    assert keys(flyer) == before, "it was not collected yet"
    assert flyer.hints == {"fields": before[1:]}
    (page,) = flyer.collect_pages()
    assert list(page["data"]) == before
    assert keys(flyer) == before[:2], "the next one"
    assert flyer.hints == {"fields": ["ifly_xArr"]}
    assert list(flown(flyer)) == before[:2]


def test_a_column_that_is_omitted_is_not_judged(make_flyer: MakeFlyer, controller: Controller) -> None:
    controller(fault=3)
    flyer = make_flyer()
    flyer.yArr.kind = "omitted"
    assert len(flown(flyer)["ifly_xArr"]) == 11


def test_times_that_are_omitted_are_refused(make_flyer: MakeFlyer, controller: Controller) -> None:
    class Timeless(BusyFlyer):
        tArr = Component(Waveform, "t_array", kind="omitted")  # noqa: N815

    says = "time_array='tArr': this column of ifly is not collected.*time_array=None"
    with pytest.raises(ValueError, match=says):
        Timeless(PREFIX, name="ifly")
    with pytest.raises(ValueError, match=says):
        BusyFlyer(PREFIX, name="ifly", configuration_attrs=["busy"])
    flyer = make_flyer()
    flyer.tArr.kind = "omitted"
    for verb in (flyer.kickoff, flyer.describe_collect):
        with pytest.raises(ValueError, match=says):
            verb()
    flyer.time_array = None
    assert list(flown(flyer)) == ["ifly_xArr", "ifly_yArr"]


@pytest.mark.parametrize("nest", [Component(Crate, ""), DynamicDeviceComponent(WAVES)])
def test_a_copy_has_the_columns_and_their_kinds(nest: Component[Any]) -> None:
    """ophyd's own copy leaves out what chance decides."""
    parts = {f"part{number}": copy.deepcopy(nest) for number in range(4)}
    flyer: Any = type("Nested", (BusyFlyer,), parts)(PREFIX, name="ifly")
    flyer.part1.kind = flyer.yArr.kind = "omitted"
    flyer.xArr.kind = "hinted"
    columns = ["tArr", "xArr", "part0", "part2", "part3"]
    copied = copy.copy(flyer)
    assert collected_names(copied) == collected_names(flyer)
    assert list(dict.fromkeys(name.split(".")[0] for name in collected_names(copied))) == columns
    assert copied.hints == flyer.hints == {"fields": ["ifly_xArr"]}


# Of kind hinted


@pytest.mark.parametrize("way", ["in the class", "the column", "its array"])
def test_a_column_that_is_hinted_is_the_one_that_is_hinted(way: str, make_flyer: MakeFlyer) -> None:
    class Hinted(BusyFlyer):
        yArr = Component(Waveform, "y_array", kind="hinted" if way == "in the class" else "config")  # noqa: N815

    flyer = make_flyer(Hinted)
    if way != "in the class":
        assert flyer.hints == {"fields": ["ifly_xArr", "ifly_yArr"]}
        (flyer.yArr if way == "the column" else flyer.yArr.wave).kind = "hinted"
    assert flyer.hints == {"fields": ["ifly_yArr"]}
    assert flyer.plot_md["hints"] == {"dimensions": [(["ifly_xArr"], "ifly")]}
    assert list(flown(flyer)) == ["ifly_tArr", "ifly_xArr", "ifly_yArr"], "all are collected"


def test_times_and_nested_columns_are_hinted_where_that_is_asked_for(make_flyer: MakeFlyer) -> None:
    flyer = make_flyer(type("Nested", (BusyFlyer,), {"part": Component(Crate, "")}))
    flyer.tArr.kind = "hinted"
    flyer.part.card.y.kind = "hinted"
    assert flyer.hints == {"fields": ["ifly_tArr", "ifly_part_card_y"]}


def test_values_that_are_hinted_are_hinted(make_flyer: MakeFlyer, run_engine: RunEngine, documents: Documents) -> None:
    class Hinting(BusyFlyer):
        current = Component(EpicsSignalRO, "signal", kind="hinted")
        where = Component(EpicsSignalRO, "position")

    flyer = make_flyer(Hinting)
    assert flyer.hints == {"fields": ["ifly_xArr", "ifly_yArr", "ifly_current"]}
    run_engine(bp.fly([flyer]))
    flyer.xArr.kind = "hinted"
    run_engine(bp.fly([flyer]))
    hinted = [document["hints"]["ifly"]["fields"] for name, document in documents if name == "descriptor"]
    assert hinted == [["ifly_xArr", "ifly_yArr", "ifly_current"], ["ifly_xArr", "ifly_current"]]


def test_hints_of_a_stream_that_is_declared(make_flyer: MakeFlyer, run_engine: RunEngine, documents: Documents) -> None:
    flyer = make_flyer(with_part(Component(Counter, "")), time_array=None, describe="flat")
    flyer.part.y.kind = "hinted"

    def plan() -> Any:
        yield from bps.open_run()
        yield from bps.declare_stream(flyer, name="flown", collect=True)
        yield from bps.kickoff(flyer, wait=True)
        yield from bps.complete(flyer, wait=True)
        yield from bps.collect(flyer, name="flown")
        yield from bps.close_run()

    run_engine(plan())
    (descriptor,) = (document for name, document in documents if name == "descriptor")
    (page,) = (document for name, document in documents if name == "event_page")
    assert descriptor["hints"] == {"ifly": {"fields": ["ifly_part_y"]}}
    assert list(page["data"]) == list(descriptor["data_keys"]) == ["ifly_part_x", "ifly_part_y"]


def test_make_flyer_takes_a_kind(controller: Controller) -> None:
    arrays: dict[str, Any] = {"x": f"{PREFIX}x_array", "y": {"pv": f"{PREFIX}y_array", "kind": "hinted"}}
    assert make_flyer("ifly", busy=f"{PREFIX}mybusy", arrays=arrays).hints == {"fields": ["ifly_y"]}
