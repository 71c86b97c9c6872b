"""What people are used to with any ophyd Device: copies, representations, numbers of numpy, waiting when described."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import epics
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.utils import MsgGenerator
from ophyd import Component

from busy_callback_flyer import (
    BusyFlyer,
    CollectError,
    FlightRefused,
    PollingFlyer,
    TaxiFlyer,
    Waveform,
    make_flyer,
    plans,
)

from ..conftest import PREFIX, look

Documents = list[tuple[str, dict[str, Any]]]
Controller = Callable[..., None]
MakeFlyer = Callable[..., BusyFlyer]

BUSY_PV = f"{PREFIX}mybusy"
TIMEOUT = 20.0


# Copies and representations

OPTIONS: list[tuple[type[BusyFlyer], dict[str, Any]]] = [
    (BusyFlyer, {"flight_timeout": 10, "layout": "array", "describe": "flat", "time_array": None}),
    (TaxiFlyer, {"taxi_timeout": 7.5, "page_size": 3}),
    (PollingFlyer, {"poll_sleep_interval_s": 0.5, "on_stale": "warn"}),
]


@pytest.mark.parametrize(("kind", "options"), OPTIONS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_copy_has_the_options(kind: type[BusyFlyer], options: dict[str, Any]) -> None:
    flyer = kind(PREFIX, name="ifly", **options)
    flyer.page_size = 5  # as they are set now
    twin = copy.copy(flyer)
    assert type(twin) is kind
    assert (twin.prefix, twin.name) == (PREFIX, "ifly")
    assert twin.options == flyer.options == {**kind(PREFIX, name="plain").options, **options, "page_size": 5}
    assert f"{kind.__name__}(prefix='prj:', name='ifly'" in repr(flyer)
    for option, value in {**options, "page_size": 5}.items():
        assert f"{option}={value!r}" in repr(flyer)
    assert "when_busy" not in repr(flyer), "a default is not worth a word"


def test_a_copy_of_a_made_flyer(controller: Controller) -> None:
    array = {"pv": f"{PREFIX}x_array", "fresh": False, "units": "cm"}
    made = make_flyer("made", busy=BUSY_PV, arrays={"x": array}, signals={"where": f"{PREFIX}position"})
    twin: Any = copy.copy(made)
    assert twin.time_array is None
    assert (twin.x.wave.pvname, twin.x.fresh, twin.x.units) == (f"{PREFIX}x_array", False, "cm")
    twin.wait_for_connection(timeout=10)
    twin.kickoff().wait(TIMEOUT)
    twin.complete().wait(TIMEOUT)
    (page,) = twin.collect_pages()
    assert set(page["data"]) == {"made_x", "made_where"}


def test_a_copy_of_a_waveform_has_its_options() -> None:
    waveform = Waveform(f"{PREFIX}str_wave", name="text", fresh=False, units="mm", string=True)
    twin = copy.copy(waveform)
    assert (twin.fresh, twin.units, twin.string) == (False, "mm", True)
    assert "fresh=False, units='mm', string=True" in repr(waveform)
    assert "string" not in repr(Waveform(f"{PREFIX}x_array", name="x"))


# Numbers


def test_numbers_of_numpy_are_numbers(controller: Controller, run_engine: RunEngine, documents: Documents) -> None:
    """And Python's own in documents, of whatever kind they were; texts, too."""
    options = {
        "flight_timeout": np.int64(20),
        "start_timeout": np.float32(2.5),
        "reset_settle": Fraction(1, 4),
        "page_size": np.int16(7),
        "layout": np.str_("array"),
        "array_length": np.uint16(300),
        "expected_points": np.int8(5),
        "poll_sleep_interval_s": np.float64(0.01),
    }
    flyer = PollingFlyer(PREFIX, name="ifly", **options)
    flyer.wait_for_connection(timeout=np.float32(10))
    run_engine(bp.fly([flyer]))
    (descriptor,) = (document for name, document in documents if name == "descriptor")
    configuration = descriptor["configuration"]["ifly"]
    for option, value in options.items():
        told = configuration["data"][f"ifly_{option}"]
        assert told == value
        assert type(told) in (int, float, str)
        dtype = {int: "integer", float: "number", str: "string"}[type(told)]
        assert configuration["data_keys"][f"ifly_{option}"]["dtype"] == dtype
    assert descriptor["data_keys"]["ifly_xArr"]["shape"] == [300]
    json.dumps([descriptor["data_keys"], {key: configuration["data"][f"ifly_{key}"] for key in options}])
    assert "page_size=7" in repr(flyer)


@pytest.mark.parametrize("value", [np.bool_(True), np.float64("nan"), np.array([3]), np.array(3)])
def test_what_is_no_number_of_numpys_is_none(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^page_size=.*: must be a whole number"):
        BusyFlyer(PREFIX, name="ifly", page_size=value)


# Described before it is connected


def flown_in_a_declared_stream(flyer: BusyFlyer, *layouts: str) -> MsgGenerator[Any]:
    @bpp.run_decorator()
    def flights() -> MsgGenerator[Any]:
        yield from bps.declare_stream(flyer, name="fly", collect=True)
        for layout in layouts or (flyer.layout,):
            flyer.layout = layout
            yield from bps.kickoff(flyer, wait=True)
            yield from bps.complete(flyer, wait=True)
            yield from bps.collect(flyer, name="fly")

    yield from flights()


@pytest.mark.parametrize("events", ["direct", "ophyd"])
def test_a_stream_is_declared_right_after_the_flyer_was_made(
    controller: Controller, run_engine: RunEngine, documents: Documents, events: Any
) -> None:
    flyer = BusyFlyer(PREFIX, name="ifly", describe="flat", events=events)
    run_engine(flown_in_a_declared_stream(flyer))
    assert [name for name, _ in documents] == ["start", "descriptor", "event_page", "stop"]


def test_a_column_that_does_not_connect_is_named(controller: Controller) -> None:
    class Lost(BusyFlyer):
        xArr = Component(Waveform, "nowhere_x")  # noqa: N815

    flyer = Lost(PREFIX, name="lost", connection_timeout=0.5)
    with pytest.raises(TimeoutError, match=rf"^lost: not connected within 0\.5 s: {PREFIX}nowhere_x$"):
        flyer.describe_collect()


def test_a_column_of_the_wrong_kind_is_refused_when_described(controller: Controller) -> None:
    class Wrong(BusyFlyer):
        xArr = Component(Waveform, "strings")  # noqa: N815

    with pytest.raises(FlightRefused, match=f"{PREFIX}strings holds STRING, and numbers are needed"):
        Wrong(PREFIX, name="wrong").describe_collect()


# One run, one form


def test_a_changed_layout_is_refused_at_kickoff_where_the_stream_was_declared(
    make_flyer: MakeFlyer, run_engine: RunEngine, documents: Documents
) -> None:
    flyer = make_flyer(describe="flat")
    with pytest.raises(FlightRefused, match=r"layout='array' cannot stand in a stream .* described with layout='rows'"):
        run_engine(flown_in_a_declared_stream(flyer, "rows", "array"))
    assert sum(name == "event_page" for name, _ in documents) == 1
    assert look(BUSY_PV)[1] == pytest.approx(flyer.timeline["done"].stamp, abs=2e-6), "the hardware moved"
    flyer.events = "ophyd"  # other channels: what was flown with these is kept all the same
    flyer.layout = "rows"
    flyer.kickoff().wait(TIMEOUT)
    flyer.complete().wait(TIMEOUT)
    flyer.events, flyer.layout = "direct", "array"
    with pytest.raises(FlightRefused, match="collect the latest flight first"):
        run_engine(bpp.run_wrapper(bps.kickoff(flyer, wait=True)))
    (page,) = flyer.collect_pages()
    assert len(page["time"]) == 11
    run_engine(flown_in_a_declared_stream(flyer, "array", "array"))
    assert sum(name == "event_page" for name, _ in documents) == 3


CHANGED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "layout": ({"layout": "rows"}, {"layout": "array"}),
    "array_length": ({"layout": "array", "array_length": 64}, {"array_length": 128}),
    "stream_name": ({"stream_name": "one"}, {"stream_name": "two"}),
    "time_array": ({"time_array": "tArr"}, {"time_array": None}),
    "data_keys": ({"name": "before"}, {"name": "after"}),
}


@pytest.mark.parametrize("events", ["direct", "ophyd"])
@pytest.mark.parametrize("changed", CHANGED)
def test_a_flight_of_another_form_is_refused_at_collect(
    make_flyer: MakeFlyer, run_engine: RunEngine, documents: Documents, changed: str, events: Any
) -> None:
    """Nothing tells a flyer earlier whether a new run has begun. What it flew is kept, for a run of its own."""
    first, then = CHANGED[changed]
    flyer = make_flyer(events=events)

    @bpp.run_decorator()
    def two_flights() -> MsgGenerator[Any]:
        for options in (first, then):
            for option, value in options.items():
                setattr(flyer, option, value)
            yield from bps.kickoff(flyer, wait=True)
            yield from bps.complete(flyer, wait=True)
            yield from bps.collect(flyer)

    with pytest.raises(CollectError, match=rf"{changed}=.* cannot stand in a stream .* described with .*{changed}="):
        run_engine(two_flights())
    assert flyer.kept
    documents.clear()
    run_engine(plans.recover(flyer, run="the run that failed"))
    (descriptor,) = (document for name, document in documents if name == "descriptor")
    (page,) = (document for name, document in documents if name == "event_page")
    assert descriptor["data_keys"].keys() == page["data"].keys()
    assert descriptor["name"] == (flyer.stream_name or flyer.name)


@pytest.mark.parametrize("changed", CHANGED)
def test_a_run_of_its_own_may_have_another_form(
    make_flyer: MakeFlyer, run_engine: RunEngine, documents: Documents, changed: str
) -> None:
    flyer = make_flyer()
    for options in CHANGED[changed]:
        for option, value in options.items():
            setattr(flyer, option, value)
        run_engine(bp.fly([flyer]))
    assert sum(name == "event_page" for name, _ in documents) == 2


@pytest.mark.parametrize("describe", ["nested", "flat"])
def test_by_hand_no_description_counts(make_flyer: MakeFlyer, describe: str) -> None:
    """That of an earlier run, say: nobody goes by it."""
    flyer = make_flyer(describe=describe)
    flyer.describe_collect()
    flyer.layout = "array"
    flyer.kickoff().wait(TIMEOUT)
    flyer.complete().wait(TIMEOUT)
    (page,) = flyer.collect_pages()
    assert "ifly_xArr_nord" in page["data"]


def test_what_changes_no_form_can_be_changed_in_a_run(
    make_flyer: MakeFlyer, run_engine: RunEngine, documents: Documents
) -> None:
    flyer = make_flyer(describe="flat", page_size=4)
    flights = flown_in_a_declared_stream(flyer, "rows", "rows")

    def changing() -> MsgGenerator[Any]:
        def smaller_pages(msg: Any) -> Any:
            if msg.command == "collect":
                flyer.page_size, flyer.stream_name = 6, "of no meaning in this form"
            return None, None

        yield from bpp.plan_mutator(flights, smaller_pages)

    run_engine(changing())
    assert [len(page["time"]) for name, page in documents if name == "event_page"] == [4, 4, 3, 6, 5]


# Texts and units


def characters(text: str, encoding: str) -> np.ndarray:
    return np.frombuffer(text.encode(encoding) + b"\0", np.uint8)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("events", ["direct", "ophyd"])
@pytest.mark.parametrize("units", ["µm", "°", "Å/s"])
def test_units_keep_their_letters(make_flyer: MakeFlyer, units: str, events: Any, encoding: str) -> None:
    pv = f"{PREFIX}x_array.EGU"
    before = epics.caget(pv)
    try:
        assert epics.caput(f"{pv}$", characters(units, encoding), wait=True, timeout=10) == 1
        assert make_flyer(events=events).describe_collect()["ifly"]["ifly_xArr"]["units"] == units
    finally:
        epics.caput(pv, before, wait=True, timeout=10)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("events", ["direct", "ophyd"])
@pytest.mark.parametrize("text", ["Probe aus Gießen, 5 µm", "é"])
def test_a_text_keeps_its_letters(controller: Controller, text: str, events: Any, encoding: str) -> None:
    array = {"pv": f"{PREFIX}str_wave", "string": True, "fresh": False}
    made = make_flyer("made", busy=BUSY_PV, arrays={"note": array, "x": f"{PREFIX}x_array"}, events=events)
    made.wait_for_connection(timeout=10)
    assert epics.caput(f"{PREFIX}str_wave", characters(text, encoding), wait=True, timeout=10) == 1
    made.kickoff().wait(TIMEOUT)
    made.complete().wait(TIMEOUT)
    (page,) = made.collect_pages()
    assert set(page["data"]["made_note"]) == {text}
