"""What a flight's arrays and values become: pages, data keys, documents; and what is refused.

Most flights are on the record `own`: its controller is the test, so it says what is written, and in which order.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import epics
import event_model
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.callbacks.best_effort import BestEffortCallback
from bluesky.utils import FailedStatus, MsgGenerator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as numpy_arrays
from ophyd import Component, Device, EpicsSignal, EpicsSignalRO, Signal
from ophyd.sim import SynAxis

from busy_callback_flyer import (
    BusyFlyer,
    BusyRecord,
    CollectError,
    FlightRefused,
    RaggedArrayError,
    StaleArrayError,
    Waveform,
)
from busy_callback_flyer import make_flyer as make_flyer_by_names
from busy_callback_flyer.engine.collector import ArraySpec, Collector, ValueSpec, _Round

from ..conftest import PREFIX, look
from ..faults.interruptions import HandFlyer, until

Documents = list[tuple[str, dict[str, Any]]]
Controller = Callable[..., None]
Make = Callable[..., BusyFlyer]

BUSY_PV = f"{PREFIX}mybusy"
OWN_PV = f"{PREFIX}own"
TIMEOUT = 20.0  # generous: reached only where something is broken
OLD = np.array([-1.0, -2.0, -3.0])


@pytest.fixture(autouse=True)
def leave_done(controller: Controller) -> Iterator[None]:
    yield
    epics.caput(OWN_PV, 0)
    assert look(OWN_PV)[0] == 0


@pytest.fixture(params=["direct", "ophyd"])
def make(request: pytest.FixtureRequest, make_flyer: Callable[..., BusyFlyer]) -> Make:
    """Makes flyers, of either kind of events: on `own`, where no other is asked for, with these components."""

    def make(components: dict[str, Any] | None = None, base: type[BusyFlyer] = HandFlyer, **options: Any) -> BusyFlyer:
        return make_flyer(type("Made", (base,), components or {}), events=request.param, **options)

    return make


def one_column(pv: str, **how: Any) -> dict[str, Any]:
    """Components of a flyer with this waveform only."""
    return {"tArr": None, "yArr": None, "xArr": Component(Waveform, pv, kind="config", **how)}


def put(pv: str, value: Any) -> None:
    assert epics.caput(f"{PREFIX}{pv}", value, wait=True, timeout=10) == 1


def write_arrays(points: int = 3, offset: float = 0.0) -> np.ndarray:
    """As a controller does in its flight."""
    x = offset + np.arange(float(points))
    for array, values in (("t", time.time() + np.arange(points)), ("x", x), ("y", x**2)):
        put(f"{array}_array", values)
    return x


def take_off(flyer: BusyFlyer) -> None:
    flyer.kickoff()
    until(lambda: "busy" in flyer.timeline)


def land(flyer: BusyFlyer) -> None:
    """Done, and the arrays in hand."""
    epics.caput(OWN_PV, 0)
    flyer.complete().wait(TIMEOUT)


def collected(flyer: BusyFlyer) -> dict[str, Any]:
    """Data of the only page."""
    (page,) = flyer.collect_pages()
    return dict(page["data"])


def fly_writing(flyer: BusyFlyer, arrays: dict[str, Any]) -> dict[str, Any]:
    """A flight in which these records are written, and its only page."""
    take_off(flyer)
    for pv, values in arrays.items():
        put(pv, values)
    land(flyer)
    return collected(flyer)


def of_kind(documents: Documents, name: str) -> list[Any]:
    return [document for kind, document in documents if kind == name]


def only(documents: Documents, name: str) -> Any:
    (found,) = of_kind(documents, name)
    return found


def rows(documents: Documents, key: str) -> list[Any]:
    """Of all pages."""
    return [value for page in of_kind(documents, "event_page") for value in page["data"].get(key, [])]


def validate(documents: Documents) -> None:
    for name, document in documents:
        event_model.schema_validators[event_model.DocumentNames[name]].validate(document)


# Numbers


INTEGERS: dict[str, tuple[list[Any], str]] = {
    "char": ([0, 1, 127, 128, 255], "|u1"),
    "uchar": ([0, 1, 127, 128, 255], "|u1"),
    "short": ([-(2**15), -1, 0, 1, 2**15 - 1], "<i2"),
    "ushort": ([0, 1, 2**15, 2**16 - 1], "<i4"),
    "long": ([-(2**31), -1, 0, 1, 2**31 - 1], "<i4"),
}
REALS: dict[str, tuple[list[Any], str]] = {
    "ulong": ([0.0, 1.0, 2.0**31, 2.0**32 - 1], "<f8"),
    "int64": ([-(2.0**53), -1.0, 0.0, 2.0**53], "<f8"),
    "uint64": ([0.0, 1.0, 2.0**53], "<f8"),
    "float": ([-0.5, 0.0, float(np.float32(0.1)), float(np.float32(3e38))], "<f4"),
    "double": ([-0.5, 0.0, 0.1, 1e308, 5e-324], "<f8"),
}


@pytest.mark.parametrize("ftvl", INTEGERS | REALS)
def test_every_number_type(make: Make, ftvl: str) -> None:
    """As Channel Access has it: it knows no unsigned numbers of 16 bits or more, and no integers of 64."""
    values, dtype = (INTEGERS | REALS)[ftvl]
    pv = f"ftvl_{ftvl}"
    flyer = make(one_column(pv), time_array=None)
    data = fly_writing(flyer, {pv: np.array(values)})
    assert data == {"ifly_xArr": values}
    assert {type(value) for value in data["ifly_xArr"]} == {int if ftvl in INTEGERS else float}
    key = flyer.describe_collect()["ifly"]["ifly_xArr"]
    assert key.pop("precision", None) == {"float": 3, "double": 3}.get(ftvl, 0 if ftvl in REALS else None)
    assert key == {
        "source": f"PV:{PREFIX}{pv}",
        "dtype": "integer" if ftvl in INTEGERS else "number",
        "dtype_numpy": dtype,
        "shape": [],
        "units": "mm",
        "limits": {"control": {"low": 2.0, "high": 120.0}},
    }


def test_units_of_the_component_where_the_record_has_none(make: Make) -> None:
    flyer = make(
        {
            "tArr": None,
            "xArr": Component(Waveform, "unwritten", units="keV"),
            "yArr": Component(Waveform, "y_array", units="keV"),
        },
        time_array=None,
    )
    keys = flyer.describe_collect()["ifly"]
    assert [keys[key]["units"] for key in ("ifly_xArr", "ifly_yArr")] == ["keV", "counts"]


def test_nan_and_infinities(make: Make) -> None:
    values = np.array([math.nan, math.inf, -math.inf, -0.0])
    for ftvl in ("float", "double"):
        flyer = make(one_column(f"ftvl_{ftvl}"), time_array=None)
        (got,) = fly_writing(flyer, {f"ftvl_{ftvl}": values}).values()
        assert np.array(got).tobytes() == values.tobytes()


def test_no_elements(make: Make) -> None:
    """A record that was never written has none: there is no page, and no error."""
    flyer = make(one_column("unwritten", fresh=False), time_array=None)
    take_off(flyer)
    land(flyer)
    assert list(flyer.collect_pages()) == []
    assert not flyer.kept
    assert flyer.describe_collect()["ifly"]["ifly_xArr"]["dtype_numpy"] == "<f8"


@pytest.mark.parametrize("ftvl", ["short", "long", "float", "double", "char"])
def test_one_element(make: Make, ftvl: str) -> None:
    pv = f"ftvl_{ftvl}"
    flyer = make(one_column(pv), time_array=None)
    assert fly_writing(flyer, {pv: np.array([7])}) == {"ifly_xArr": [7]}
    key = flyer.describe_collect()["ifly"]["ifly_xArr"]
    assert key["dtype_numpy"] == (INTEGERS | REALS)[ftvl][1]


def test_room_for_one_element(make: Make) -> None:
    flyer = make(one_column("single"), time_array=None)
    assert fly_writing(flyer, {"single": 7}) == {"ifly_xArr": [7]}
    assert flyer.describe_collect()["ifly"]["ifly_xArr"]["dtype"] == "integer"


# Text


TEXT = {"text": Component(Waveform, "str_wave", string=True, fresh=False)}


@pytest.mark.parametrize("text", ["gold on glass", "Å = 0.1 nm", "a"])
def test_text(make: Make, text: str) -> None:
    put("str_wave", np.frombuffer(text.encode() + b"\0rest", np.uint8))
    flyer = make(TEXT)
    take_off(flyer)
    write_arrays(3)
    land(flyer)
    (page,) = flyer.collect_pages()
    assert page["data"]["ifly_text"] == [text] * 3
    assert page["timestamps"]["ifly_text"] == pytest.approx([look(f"{PREFIX}str_wave")[1]] * 3, abs=2e-6)
    key = flyer.describe_collect()["ifly"]["ifly_text"]
    assert key == {"source": f"PV:{PREFIX}str_wave", "dtype": "string", "shape": []}


def test_text_that_fills_its_array(make: Make) -> None:
    put("str_wave", np.frombuffer(b"x" * 256, np.uint8))
    flyer = make(TEXT)
    take_off(flyer)
    write_arrays(2)
    land(flyer)
    assert collected(flyer)["ifly_text"] == ["x" * 256] * 2


def test_text_never_written(make: Make) -> None:
    flyer = make({"text": Component(Waveform, "unwritten_text", string=True, fresh=False)})
    take_off(flyer)
    write_arrays(2)
    land(flyer)
    assert collected(flyer)["ifly_text"] == ["", ""]


def test_text_in_documents(make: Make, run_engine: RunEngine, documents: Documents) -> None:
    put("str_wave", "gold")
    run_engine(bp.fly([make(TEXT, BusyFlyer)]))
    validate(documents)
    assert rows(documents, "ifly_text") == ["gold"] * 11


@pytest.mark.parametrize("how", [{}, {"fresh": True}])
def test_text_is_judged_as_an_array_is(make: Make, how: dict[str, bool]) -> None:
    put("str_wave", "gold")
    flyer = make({"text": Component(Waveform, "str_wave", string=True, **how)}, fresh_timeout=0)
    take_off(flyer)
    write_arrays()
    epics.caput(OWN_PV, 0)
    with pytest.raises(StaleArrayError, match=f"{PREFIX}str_wave"):
        flyer.complete().wait(TIMEOUT)


@pytest.mark.parametrize("pv", ["x_array", "ftvl_long"])
def test_text_of_numbers_is_refused(make: Make, pv: str) -> None:
    """As soon as it is known."""

    def fly() -> None:
        flyer = make({"text": Component(Waveform, pv, string=True, fresh=False)})
        take_off(flyer)
        write_arrays()
        land(flyer)

    put(pv, np.array([71, 72]))
    with pytest.raises((FlightRefused, CollectError), match=rf"{PREFIX}{pv} .*and characters \(FTVL CHAR\) are needed"):
        fly()


# Values beside the arrays


class Sample(Device):
    temperature = Component(Signal, value=4.2, kind="normal")
    holder = Component(EpicsSignalRO, "message", string=True, kind="hinted")
    notes = Component(Signal, value="-", kind="config")


class Scalars(BusyFlyer):
    counts = Component(EpicsSignalRO, "signal", kind="hinted")
    where = Component(EpicsSignalRO, "position", kind="normal")
    said = Component(EpicsSignalRO, "message", string=True, kind="normal")
    filling = Component(EpicsSignalRO, "fill", kind="normal")
    faulty = Component(EpicsSignalRO, "fault", string=True, kind="normal")
    energy = Component(Signal, value=7.5, kind="normal")
    sample = Component(Sample, "", kind="normal")
    points_set = Component(EpicsSignalRO, "npts", kind="config")
    seed = Component(EpicsSignalRO, "seed", kind="omitted")


SCALARS = {
    "ifly_counts": "signal",
    "ifly_where": "position",
    "ifly_said": "message",
    "ifly_filling": "fill",
    "ifly_faulty": "fault",
    "ifly_sample_holder": "message",
}


@pytest.mark.parametrize("busy", [BusyRecord, EpicsSignal])
def test_scalars(
    make: Make, controller: Controller, run_engine: RunEngine, documents: Documents, busy: type[Device]
) -> None:
    """One value for all points, with its own stamp; what is configuration or omitted is none, nor is the record."""
    controller(npts=4, start=1, stop=2)
    flyer = make({"busy": Component(busy, "mybusy")}, Scalars)
    flyer.energy.put(8.0)
    run_engine(bp.fly([flyer]))
    validate(documents)
    page, keys = only(documents, "event_page"), only(documents, "descriptor")["data_keys"]
    columns = {"ifly_tArr", "ifly_xArr", "ifly_yArr"}
    assert set(page["data"]) == set(keys) == columns | set(SCALARS) | {"ifly_energy", "ifly_sample_temperature"}
    expected = {
        "ifly_counts": page["data"]["ifly_yArr"][-1],
        "ifly_where": 2.0,
        "ifly_said": "flew 4 points",
        "ifly_filling": 0,
        "ifly_faulty": "none",
        "ifly_energy": 8.0,
        "ifly_sample_temperature": 4.2,
        "ifly_sample_holder": "flew 4 points",
    }
    assert {key: page["data"][key] for key in expected} == {key: [value] * 4 for key, value in expected.items()}
    for key, pv in SCALARS.items():
        assert page["timestamps"][key] == pytest.approx([look(f"{PREFIX}{pv}")[1]] * 4, abs=2e-6)
        assert keys[key]["source"] == f"PV:{PREFIX}{pv}"
    assert page["timestamps"]["ifly_energy"] == [flyer.energy.timestamp] * 4
    kinds = {key: keys[key]["dtype"] for key in expected}
    assert [key for key, kind in kinds.items() if kind == "string"] == [
        "ifly_said",
        "ifly_faulty",
        "ifly_sample_holder",
    ]


def test_scalars_of_each_flight(make: Make, controller: Controller) -> None:
    """Not those that a monitor has not yet brought up to date."""
    flyer = make(base=Scalars)
    for stop in range(10):
        controller(npts=2, stop=stop)
        flyer.kickoff().wait(TIMEOUT)
        flyer.complete().wait(TIMEOUT)
        data = collected(flyer)
        assert data["ifly_where"] == [float(stop)] * 2
        assert data["ifly_xArr"][-1] == stop


class Celsius(EpicsSignalRO):
    def get(self, **kwargs: Any) -> Any:
        return super().get(**kwargs) - 273.15


class Halved(EpicsSignalRO):
    def get(self) -> Any:
        return super().get() / 2


class OwnReading(BusyFlyer):
    where = Component(Celsius, "position", kind="normal", auto_monitor=True)
    pairs = Component(Halved, "counted", kind="omitted")
    axis = Component(SynAxis, kind="normal")


def test_scalars_are_what_their_signals_read(
    make: Make, controller: Controller, run_engine: RunEngine, documents: Documents
) -> None:
    """Never the bare record; what counts points neither."""
    flyer = make(base=OwnReading, points="pairs")
    put("counted", 6)
    flyer.axis.set(3).wait(TIMEOUT)
    for stop in (4, 5):
        documents.clear()
        controller(npts=4, stop=stop)
        run_engine(bp.fly([flyer]))
        validate(documents)
        page = only(documents, "event_page")
        reading = flyer.where.read()["ifly_where"] | flyer.axis.read()
        assert page["data"]["ifly_where"] == [stop - 273.15] * 3
        assert set(page["data"]["ifly_axis"]) == set(page["data"]["ifly_axis_setpoint"]) == {3}
        assert set(page["timestamps"]["ifly_axis"]) == {reading["ifly_axis"]["timestamp"]}


def test_an_array_that_its_signal_reads_in_its_own_way(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """It is not had from libca directly, past the signal: that is told."""

    class Doubled(EpicsSignalRO):
        def get(self, **kwargs: Any) -> Any:
            return 2 * super().get(**kwargs)

    class Doubling(Waveform):
        wave = Component(Doubled, "", kind="normal")

    flyer = make({"xArr": Component(Doubling, "x_array", kind="config")})
    assert [record.message for record in caplog.records if "directly" in record.message] == (
        ["ifly cannot have its events directly (ifly_xArr_wave has a get or read of its own): it takes ophyd's"]
        if flyer.events == "direct"
        else []
    )
    take_off(flyer)
    x = write_arrays()
    land(flyer)
    assert collected(flyer)["ifly_xArr"] == (2 * x).tolist()


@pytest.mark.parametrize("kind", ["omitted", "config"])
def test_kind_can_be_set_later(make: Make, kind: str) -> None:
    flyer = make({"energy": Component(Signal, value=7.5, kind="normal")})
    flyer.energy.kind = kind
    assert "ifly_energy" not in flyer.describe_collect()["ifly"]
    take_off(flyer)
    write_arrays()
    land(flyer)
    assert set(collected(flyer)) == {"ifly_tArr", "ifly_xArr", "ifly_yArr"}


NO_ARRAYS: dict[str, Any] = dict.fromkeys(("tArr", "xArr", "yArr"))


def test_scalars_alone_are_one_event(
    make: Make, controller: Controller, run_engine: RunEngine, documents: Documents
) -> None:
    controller(stop=3)
    flyer = make(NO_ARRAYS, Scalars, time_array=None)
    run_engine(bp.fly([flyer]))
    validate(documents)
    page = only(documents, "event_page")
    assert page["data"]["ifly_where"] == [3.0]
    assert page["data"]["ifly_energy"] == [7.5]
    assert page["seq_num"] == [1]
    assert list(flyer.collect_pages()) == []


def test_neither_arrays_nor_scalars(make: Make, run_engine: RunEngine, documents: Documents) -> None:
    flyer = make(NO_ARRAYS, BusyFlyer, time_array=None)
    run_engine(bp.fly([flyer]))
    assert of_kind(documents, "event_page") == []
    assert only(documents, "stop")["exit_status"] == "success"


def test_scalar_that_cannot_be_read(make: Make) -> None:
    class Broken(Signal):
        def get(self, **_: Any) -> Any:
            raise ValueError("no value today")

    flyer = make({"energy": Component(Broken, value=1.0, kind="normal")})
    take_off(flyer)
    write_arrays()
    epics.caput(OWN_PV, 0)
    with pytest.raises(CollectError, match="ifly_energy could not be read after the flight: no value today"):
        flyer.complete().wait(TIMEOUT)


# Points that a component counts


COUNTED = {"counted": Component(EpicsSignalRO, "counted", kind="omitted")}


def fly_counting(flyer: BusyFlyer, count: float) -> None:
    take_off(flyer)
    write_arrays(5)
    put("counted", count)
    epics.caput(OWN_PV, 0)


@pytest.mark.parametrize("count", [0, 1, 3, 5])
def test_points(make: Make, count: int) -> None:
    flyer = make(COUNTED, points="counted")
    fly_counting(flyer, count)
    flyer.complete().wait(TIMEOUT)
    pages = list(flyer.collect_pages())
    assert [page["data"]["ifly_xArr"] for page in pages] == [[float(x) for x in range(count)]] * (count > 0)
    assert all(page["data"].keys() == {"ifly_tArr", "ifly_xArr", "ifly_yArr"} for page in pages)


def test_points_of_arrays_of_unequal_length(make: Make) -> None:
    """What is beyond the count does not matter."""
    flyer = make(COUNTED, points="counted")
    take_off(flyer)
    write_arrays(5)
    put("y_array", np.arange(9.0))
    put("counted", 4)
    land(flyer)
    assert {len(values) for values in collected(flyer).values()} == {4}


def test_more_points_than_there_are(make: Make) -> None:
    flyer = make(COUNTED, points="counted")
    fly_counting(flyer, 6)
    with pytest.raises(RaggedArrayError, match=f"6 points were counted.*{PREFIX}x_array 5"):
        flyer.complete().wait(TIMEOUT)


@pytest.mark.parametrize("count", [-1, 2.5, math.nan, math.inf])
def test_what_counts_no_points(make: Make, count: float) -> None:
    flyer = make(COUNTED, points="counted")
    fly_counting(flyer, count)
    with pytest.raises(CollectError, match=f"{PREFIX}counted counts no points: it says"):
        flyer.complete().wait(TIMEOUT)


def test_points_that_are_a_column_too(make: Make) -> None:
    flyer = make({"counted": Component(EpicsSignalRO, "counted", kind="normal")}, points="counted")
    fly_counting(flyer, 2)
    flyer.complete().wait(TIMEOUT)
    data = collected(flyer)
    assert data["ifly_counted"] == [2, 2]
    assert len(data["ifly_xArr"]) == 2


@pytest.mark.parametrize("points", ["nope", "xArr", "busy", "kickoff", ""])
def test_points_must_be_a_signal(points: str) -> None:
    with pytest.raises(ValueError, match=f"^points={points!r}"):
        BusyFlyer(PREFIX, name="bad", points=points)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("layout", "columns"),
        ("on_stale", "ignore"),
        ("on_ragged", "pad"),
        ("fresh_timeout", -1),
        ("fresh_timeout", math.nan),
        ("array_length", 0),
        ("array_length", 2.5),
        ("array_length", True),
        ("describe", "deep"),
    ],
)
def test_bad_options(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{option}="):
        BusyFlyer(PREFIX, name="bad", **{option: value})


# Are they this flight's?


def land_without_arrays(flyer: BusyFlyer) -> None:
    """The arrays hold what was written before."""
    put("x_array", OLD)
    take_off(flyer)
    for array in ("t", "y"):
        put(f"{array}_array", OLD)
    epics.caput(OWN_PV, 0)


def stale_message(flyer: BusyFlyer) -> str:
    with pytest.raises(StaleArrayError) as caught:
        flyer.complete().wait(TIMEOUT)
    return str(caught.value)


def stamp_in(message: str, where: str) -> float:
    date = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}[+-]\d\d:\d\d"
    match = re.search(rf"{re.escape(where)}(?:stamp )?({date})", message)
    assert match is not None, message
    return datetime.fromisoformat(match[1]).timestamp()


def is_stamp(stamp: float | None) -> Any:
    """pyepics rounds stamps to microseconds."""
    return pytest.approx(stamp, abs=2e-6)


def test_arrays_after_done(make: Make, controller: Controller) -> None:
    controller(npts=5, start=1, stop=2)
    make(base=BusyFlyer).kickoff().wait(TIMEOUT)
    controller(npts=4, start=2, stop=3, fault=2)
    flyer = make(base=BusyFlyer, fresh_timeout=TIMEOUT)
    flyer.kickoff().wait(TIMEOUT)
    flyer.complete().wait(TIMEOUT)
    assert collected(flyer)["ifly_xArr"] == pytest.approx(np.linspace(2, 3, 4))


def test_arrays_are_asked_for_until_they_are_fresh(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """complete() waits, the kickoff's status does not."""
    flyer = make(fresh_timeout=TIMEOUT)
    asked: list[Any] = []
    read_busy = flyer._wiring.driver.channel.read  # once each time that the arrays are asked for

    def note_and_read(answer: Any) -> None:
        asked.append(answer)
        read_busy(answer)

    take_off(flyer)
    monkeypatch.setattr(flyer._wiring.driver.channel, "read", note_and_read)
    epics.caput(OWN_PV, 0)
    completed = flyer.complete()
    until(lambda: len(asked) >= 3)
    assert isinstance(flyer, HandFlyer)
    assert flyer.statuses[0].success
    assert not completed.done
    x = write_arrays(4, offset=10)
    completed.wait(TIMEOUT)
    assert collected(flyer)["ifly_xArr"] == x.tolist()


def test_not_waited_for_with_fresh_timeout_0(make: Make) -> None:
    flyer = make(fresh_timeout=0)
    land_without_arrays(flyer)
    message = stale_message(flyer)
    assert stamp_in(message, f"{PREFIX}x_array (") == is_stamp(look(f"{PREFIX}x_array")[1])
    for word in ("fresh_timeout", "fresh=False", "Done"):
        assert word in message
    for fresh in ("t_array", "y_array"):
        assert fresh not in message


def test_never_refreshed(make: Make, controller: Controller) -> None:
    flyer = make(base=BusyFlyer, fresh_timeout=0.05)
    flyer.kickoff().wait(TIMEOUT)
    flyer.complete().wait(TIMEOUT)
    list(flyer.collect_pages())
    controller(fault=4)
    flyer.kickoff().wait(TIMEOUT)
    message = stale_message(flyer)
    assert all(f"{PREFIX}{array}_array" in message for array in "txy")
    with pytest.raises(StaleArrayError):
        list(flyer.collect_pages())
    controller(npts=3)
    flyer.kickoff().wait(TIMEOUT)
    flyer.complete().wait(TIMEOUT)
    assert collected(flyer)["ifly_xArr"] == [-5, 0, 5]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("busy_callback_flyer.")]


def test_stale_arrays_pass_with_a_warning(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    flyer = make(fresh_timeout=0, on_stale="warn", time_array=None)  # old times are told of, too
    land_without_arrays(flyer)
    flyer.complete().wait(TIMEOUT)
    assert collected(flyer)["ifly_xArr"] == OLD.tolist()
    (warning,) = warnings(caplog)
    assert warning.startswith("ifly: not written since the put of Busy")
    assert f"{PREFIX}x_array" in warning


def test_arrays_that_are_waited_for_are_not_warned_of(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    flyer = make(fresh_timeout=TIMEOUT, on_stale="warn")
    land_without_arrays(flyer)
    x = write_arrays()
    flyer.complete().wait(TIMEOUT)
    assert collected(flyer)["ifly_xArr"] == x.tolist()
    assert warnings(caplog) == []


def test_array_filled_before_the_flight(make: Make) -> None:
    flyer = make({"xArr": Component(Waveform, "x_array", fresh=False)}, fresh_timeout=0)
    land_without_arrays(flyer)
    flyer.complete().wait(TIMEOUT)
    assert collected(flyer)["ifly_xArr"] == OLD.tolist()


# Another flight came before the arrays were read


class Held:
    """A flight that is done, and whose arrays are not asked for before the test says so."""

    def __init__(self, flyer: BusyFlyer) -> None:
        self.collector = flyer._wiring.collector
        with pytest.MonkeyPatch.context() as patch:
            asked: queue.Queue[Any] = queue.Queue()
            patch.setattr(self.collector, "fetch", lambda *args: asked.put(args))
            take_off(flyer)
            self.x = write_arrays()
            put("counted", 2)
            epics.caput(OWN_PV, 0)
            self._asked = asked.get(timeout=TIMEOUT)

    def ask(self) -> None:
        self.collector.fetch(*self._asked)


def another_client_puts(value: int) -> None:
    epics.caput(OWN_PV, value)
    assert look(OWN_PV)[0] == value


def test_overtaken(make: Make) -> None:
    flyer = make()
    held = Held(flyer)
    another_client_puts(1)
    put("x_array", OLD)
    held.ask()
    message = stale_message(flyer)
    assert message.startswith("overtaken by another flight")
    assert stamp_in(message, "Done at ") == is_stamp(flyer.timeline["done"].stamp)
    assert stamp_in(message, "become Busy (") == is_stamp(look(OWN_PV)[1])
    assert stamp_in(message, f"{PREFIX}x_array (") == is_stamp(look(f"{PREFIX}x_array")[1])
    for ours in ("t_array", "y_array"):
        assert ours not in message
    with pytest.raises(StaleArrayError):
        list(flyer.collect_pages())


def test_overtaken_by_a_flight_that_is_over(make: Make) -> None:
    flyer = make()
    held = Held(flyer)
    another_client_puts(1)
    put("x_array", OLD)
    another_client_puts(0)
    held.ask()
    assert "has since become Busy and Done" in stale_message(flyer)


def test_overtaken_by_two_flights(make: Make) -> None:
    flyer = make()
    held = Held(flyer)
    another_client_puts(1)
    put("x_array", OLD)
    another_client_puts(0)
    another_client_puts(1)
    held.ask()
    assert f"{PREFIX}x_array" in stale_message(flyer)


@pytest.mark.parametrize("over", [False, True])
def test_another_flight_that_has_not_written_yet(make: Make, over: bool) -> None:
    flyer = make()
    held = Held(flyer)
    another_client_puts(1)
    if over:
        another_client_puts(0)
    held.ask()
    flyer.complete().wait(TIMEOUT)
    assert collected(flyer)["ifly_xArr"] == held.x.tolist()


def test_overtaken_passes_with_a_warning(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    flyer = make(on_stale="warn")
    held = Held(flyer)
    another_client_puts(1)
    put("x_array", OLD)
    held.ask()
    flyer.complete().wait(TIMEOUT)
    assert collected(flyer)["ifly_xArr"] == OLD.tolist()
    (warning,) = warnings(caplog)
    assert warning.startswith("ifly: overtaken by another flight")


def test_array_filled_before_the_flight_is_not_overtaken(make: Make) -> None:
    flyer = make({"xArr": Component(Waveform, "x_array", fresh=False)})
    held = Held(flyer)
    another_client_puts(1)
    put("x_array", OLD)
    held.ask()
    flyer.complete().wait(TIMEOUT)
    assert collected(flyer)["ifly_xArr"] == OLD.tolist()


def test_count_of_another_flight(make: Make) -> None:
    """It says 2 in this flight, and 1 in the other."""
    flyer = make(COUNTED, points="counted")
    held = Held(flyer)
    another_client_puts(1)
    put("counted", 1)
    held.ask()
    assert f"{PREFIX}counted" in stale_message(flyer)


def test_no_page_is_of_two_flights(make: Make) -> None:
    """Another client's flight follows at once upon every second one of ours, and writes its own arrays.

    Which of two so close was ours cannot always be known.
    """
    contested = {"busy": Component(BusyRecord, "contested", kind="config")}
    flyer = make(contested, BusyFlyer, fresh_timeout=0, reset_settle=0, time_array=None)
    taken_off, over = queue.Queue[int](), queue.Queue[int]()
    flights = 100

    def write(number: float) -> None:
        for array in "txy":
            put(f"{array}_array", np.full(50, number))

    def control() -> None:
        epics.ca.use_initial_context()
        for number in range(1, flights + 1):
            taken_off.get(timeout=TIMEOUT)
            write(number)
            epics.caput(f"{PREFIX}contested", 0)
            if number % 2:
                epics.caput(f"{PREFIX}contested", 1)
                write(-number)
                epics.caput(f"{PREFIX}contested", 0)
            over.put(number)

    flyer.subscribe(lambda **_: taken_off.put(1), flyer.SUB_FLIGHT_BUSY)
    thread = threading.Thread(target=control)
    thread.start()
    good: list[int] = []
    try:
        for number in range(1, flights + 1):
            flyer.kickoff()
            with contextlib.suppress(StaleArrayError):
                flyer.complete().wait(TIMEOUT)
                (page,) = flyer.collect_pages()
                (value,) = {value for values in page["data"].values() for value in values}
                assert abs(value) == number, "of an earlier flight"
                good.append(int(value))
            assert over.get(timeout=TIMEOUT) == number
    finally:
        thread.join()
    assert set(range(2, flights + 1, 2)) <= set(good)


# Arrays of unequal length


RAGGED = rf"{PREFIX}t_array 11, {PREFIX}x_array 11, {PREFIX}y_array 10"


@pytest.mark.parametrize("layout", ["rows", "array"])
def test_ragged(make: Make, controller: Controller, layout: str, caplog: pytest.LogCaptureFixture) -> None:
    flyer = make(base=BusyFlyer, layout=layout)
    controller(npts=11, fault=3)
    flyer.kickoff().wait(TIMEOUT)
    with pytest.raises(RaggedArrayError, match=f"{RAGGED}.*on_ragged='truncate'.*points="):
        flyer.complete().wait(TIMEOUT)
    for on_ragged, warned in (("truncate", 0), ("warn", 1)):
        flyer.on_ragged = on_ragged
        flyer.kickoff().wait(TIMEOUT)
        flyer.complete().wait(TIMEOUT)
        data = collected(flyer)
        x, y = (epics.caget(f"{PREFIX}{array}_array") for array in "xy")
        if layout == "rows":
            assert data["ifly_xArr"] == x[:10].tolist()
            assert data["ifly_yArr"] == y.tolist()
            assert len(data["ifly_tArr"]) == 10
        else:
            assert [data[f"ifly_{attr}_nord"] for attr in ("tArr", "xArr", "yArr")] == [[10]] * 3
            assert data["ifly_xArr"][0][:10].tolist() == x[:10].tolist()
            assert np.isnan(data["ifly_xArr"][0][10:]).all()
        told = [message for message in warnings(caplog) if "keeps as many points as all arrays have" in message]
        assert len(told) == warned


# One event whose cells are the arrays


def test_array_layout(make: Make, controller: Controller, run_engine: RunEngine, documents: Documents) -> None:
    controller(npts=11)
    flyer = make(base=BusyFlyer, layout="array")
    run_engine(bp.fly([flyer]))
    validate(documents)
    page, keys = only(documents, "event_page"), only(documents, "descriptor")["data_keys"]
    assert page["seq_num"] == [1]
    done = flyer.timeline["done"].stamp
    assert page["timestamps"] == {key: [done] for key in page["data"]}
    t0 = flyer.timeline.t0
    for attr, array in (("tArr", "t"), ("xArr", "x"), ("yArr", "y")):
        (cell,) = page["data"][f"ifly_{attr}"]
        written = epics.caget(f"{PREFIX}{array}_array") - (t0 if array == "t" else 0)
        assert isinstance(cell, np.ndarray)
        assert cell.shape == (256,)
        assert cell[:11].tolist() == written.tolist()
        assert np.isnan(cell[11:]).all()
        assert page["data"][f"ifly_{attr}_nord"] == [11]
        assert keys[f"ifly_{attr}"]["dtype"] == "array"
        assert keys[f"ifly_{attr}"]["shape"] == [256]
        assert keys[f"ifly_{attr}"]["dtype_numpy"] == "<f8"
        assert keys[f"ifly_{attr}_nord"] == {
            "source": f"PV:{PREFIX}{array}_array",
            "dtype": "integer",
            "dtype_numpy": "<i8",
            "shape": [],
            "object_name": "ifly",
        }
    assert set(keys) == set(page["data"])


@pytest.mark.parametrize("ftvl", INTEGERS | REALS)
def test_cells_keep_their_type(make: Make, ftvl: str) -> None:
    values, dtype = (INTEGERS | REALS)[ftvl]
    pv = f"ftvl_{ftvl}"
    flyer = make(one_column(pv), time_array=None, layout="array", array_length=8)
    (cell,) = fly_writing(flyer, {pv: np.array(values)})["ifly_xArr"]
    assert cell.dtype.str == dtype
    assert cell[: len(values)].tolist() == values
    padding = cell[len(values) :]
    assert len(padding) == 8 - len(values)
    assert (np.isnan(padding) if dtype in ("<f4", "<f8") else padding == 0).all()
    key = flyer.describe_collect()["ifly"]["ifly_xArr"]
    assert (key["dtype"], key["shape"], key["dtype_numpy"]) == ("array", [8], dtype)


@pytest.mark.parametrize("length", [11, 20])
def test_array_length(make: Make, controller: Controller, length: int) -> None:
    controller(npts=11)
    flyer = make(base=BusyFlyer, layout="array", array_length=length)
    flyer.kickoff().wait(TIMEOUT)
    flyer.complete().wait(TIMEOUT)
    data, keys = collected(flyer), flyer.describe_collect()["ifly"]
    assert [len(data[f"ifly_{attr}"][0]) for attr in ("tArr", "xArr", "yArr")] == [length] * 3
    assert [keys[f"ifly_{attr}"]["shape"] for attr in ("tArr", "xArr", "yArr")] == [[length]] * 3


def test_arrays_longer_than_declared(make: Make, controller: Controller) -> None:
    """complete() tells; not collect, in the RunEngine's loop."""
    controller(npts=11)
    flyer = make(base=BusyFlyer, layout="array", array_length=10)
    flyer.kickoff().wait(TIMEOUT)
    with pytest.raises(CollectError, match=rf"{PREFIX}x_array 11 \(declared 10\).*array_length is too small"):
        flyer.complete().wait(TIMEOUT)


def test_array_layout_with_values_beside(
    make: Make, controller: Controller, run_engine: RunEngine, documents: Documents
) -> None:
    controller(npts=3, stop=2)
    put("str_wave", "gold")
    flyer = make(TEXT, Scalars, layout="array", array_length=5)
    run_engine(bp.fly([flyer]))
    validate(documents)
    data = only(documents, "event_page")["data"]
    assert (data["ifly_text"], data["ifly_where"], data["ifly_energy"]) == (["gold"], [2.0], [7.5])
    assert "ifly_text_nord" not in data


def test_array_layout_of_a_flight_without_points(make: Make) -> None:
    flyer = make(COUNTED, points="counted", layout="array")
    fly_counting(flyer, 0)
    flyer.complete().wait(TIMEOUT)
    assert list(flyer.collect_pages()) == []


# What is in hand is this flight's for good


@pytest.mark.parametrize("layout", ["rows", "array"])
def test_snapshot(make: Make, layout: str) -> None:
    flyer = make({"energy": Component(Signal, value=7.5, kind="normal")}, layout=layout, array_length=3)
    take_off(flyer)
    x = write_arrays(3)
    land(flyer)
    write_arrays(5, offset=100)
    flyer.energy.put(8.0)
    data = collected(flyer)
    assert np.ravel(data["ifly_xArr"]).tolist() == x.tolist()
    assert np.ravel(data["ifly_yArr"]).tolist() == (x**2).tolist()
    assert data["ifly_energy"] == [7.5] * len(data["ifly_energy"])


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("time_origin", "relative"),
        ("time_array", None),
        ("layout", "array"),
        ("page_size", 1),
        ("stream_name", "another"),
        ("describe", "flat"),
        ("on_ragged", "truncate"),
    ],
)
def test_a_flight_keeps_the_options_of_its_kickoff(make: Make, option: str, value: Any) -> None:
    """To its last page, also where they are set after Done, before anybody described it."""
    pages, keys = [], []
    for change in (False, True):
        flyer = make()
        take_off(flyer)
        for array in "txy":
            put(f"{array}_array", [1.0, 2.0, 3.0])
        land(flyer)
        if change:
            setattr(flyer, option, value)
        keys.append(flyer.describe_collect())
        pages.append([(page["data"]["ifly_xArr"], page["timestamps"]["ifly_tArr"]) for page in flyer.collect_pages()])
    assert pages[0] == pages[1]
    assert keys[0] == keys[1]


def test_pages_share_nothing(make: Make) -> None:
    """A consumer may change one."""
    flyer = make({"energy": Component(Signal, value=7.5, kind="normal")}, page_size=2)
    take_off(flyer)
    write_arrays(6)
    land(flyer)
    pages = list(flyer.collect_pages())
    lists = [
        values for page in pages for values in (page["time"], *page["data"].values(), *page["timestamps"].values())
    ]
    assert len(lists) == 3 * 9 == len({id(values) for values in lists})


# Plans


def positions(documents: Documents) -> list[Any]:
    return rows(documents, "ifly_xArr")


def once(flyer: BusyFlyer, **collect: Any) -> MsgGenerator[None]:
    yield from bps.kickoff(flyer, wait=True)
    yield from bps.complete(flyer, wait=True)
    yield from bps.collect(flyer, **collect)


def succeeded(documents: Documents) -> None:
    validate(documents)
    assert only(documents, "stop")["exit_status"] == "success"


@pytest.mark.parametrize("layout", ["rows", "array"])
def test_declared_stream(
    make: Make, controller: Controller, run_engine: RunEngine, documents: Documents, layout: str
) -> None:
    @bpp.run_decorator()
    def plan() -> MsgGenerator[None]:
        yield from bps.declare_stream(flyer, name="ifly", collect=True)
        for _ in range(2):
            yield from once(flyer, name="ifly")

    controller(npts=3)
    flyer = make(base=BusyFlyer, describe="flat", layout=layout)
    run_engine(plan())
    succeeded(documents)
    assert only(documents, "descriptor")["name"] == "ifly"
    got = positions(documents)
    assert [list(cell[:3]) for cell in got] == [[-5, 0, 5]] * 2 if layout == "array" else got == [-5, 0, 5] * 2


@pytest.mark.parametrize("describe", ["nested", "flat"])
def test_configured_form_of_the_description(make: Make, describe: str) -> None:
    flyer = make(stream_name="primary")
    flyer.configure({"describe": describe})
    keys = flyer.describe_collect()
    assert set(keys if describe == "flat" else keys["primary"]) == {"ifly_tArr", "ifly_xArr", "ifly_yArr"}


def test_collect_while_completing(
    make: Make, controller: Controller, run_engine: RunEngine, documents: Documents
) -> None:
    """Collect is called again and again, in flight and behind it: each point is emitted once."""

    @bpp.stage_decorator([flyer := make(base=BusyFlyer, describe="flat", kickoff_finishes_on="busy")])
    @bpp.run_decorator()
    def plan() -> MsgGenerator[None]:
        yield from bps.declare_stream(flyer, name="ifly", collect=True)
        for _ in range(2):
            yield from bps.kickoff(flyer, wait=True)
            yield from bps.collect_while_completing([flyer], [flyer], flush_period=0.02, stream_name="ifly")

    collects: list[str] = []
    run_engine.msg_hook = lambda msg: collects.append(msg.command)  # type: ignore[assignment]
    controller(npts=5, duration=0.2)
    run_engine(plan())
    succeeded(documents)
    assert collects.count("collect") > 2
    assert positions(documents) == pytest.approx([-5, -2.5, 0, 2.5, 5] * 2)


def test_flies_during_a_plan(make: Make, controller: Controller, run_engine: RunEngine, documents: Documents) -> None:
    controller(npts=5, duration=0.1)
    flyer = make(base=BusyFlyer, kickoff_finishes_on="busy")
    detector = Signal(name="detector", value=1.0)
    run_engine(bpp.fly_during_wrapper(bp.count([detector], num=3), [flyer]))
    succeeded(documents)
    assert positions(documents) == pytest.approx([-5, -2.5, 0, 2.5, 5])
    assert only(documents, "stop")["num_events"] == {"primary": 3, "ifly": 5}


def test_two_flyers_in_one_run(make: Make, controller: Controller, run_engine: RunEngine, documents: Documents) -> None:
    """The second's record resets itself, and it has an array that was there before."""
    put("ftvl_long", np.array([1, 2]))
    controller(npts=3)
    first = make(base=BusyFlyer, kickoff_finishes_on="busy")
    high = {"busy": Component(BusyRecord, "high", kind="config"), **one_column("ftvl_long", fresh=False)}
    second = make(high, BusyFlyer, kickoff_finishes_on="busy", time_array=None)
    second.name = "jfly"
    run_engine(bp.fly([first, second]))
    succeeded(documents)
    assert positions(documents) == [-5, 0, 5]
    assert rows(documents, "jfly_xArr") == [1, 2]
    assert only(documents, "stop")["num_events"] == {"ifly": 3, "jfly": 2}


def test_several_flights_in_one_run(
    make: Make, controller: Controller, run_engine: RunEngine, documents: Documents
) -> None:
    """Of any length: one stream, whose events are counted on."""

    @bpp.run_decorator()
    def plan() -> MsgGenerator[None]:
        for points in (3, 7, 1, 20):
            controller(npts=points)
            yield from once(flyer)

    flyer = make(base=BusyFlyer, page_size=6)
    run_engine(plan())
    succeeded(documents)
    only(documents, "descriptor")
    assert [len(page["time"]) for page in of_kind(documents, "event_page")] == [3, 6, 1, 1, 6, 6, 6, 2]
    assert [number for page in of_kind(documents, "event_page") for number in page["seq_num"]] == list(range(1, 32))
    expected = np.concatenate([np.linspace(-5, 5, points) for points in (3, 7)] + [[-5], np.linspace(-5, 5, 20)])
    assert positions(documents) == pytest.approx(expected)


def test_a_flight_at_each_step_of_a_scan(
    make: Make, controller: Controller, run_engine: RunEngine, documents: Documents
) -> None:
    def fly_at(detectors: Any, step: dict[Any, Any], pos_cache: Any) -> MsgGenerator[None]:
        yield from bps.one_nd_step(detectors, step, pos_cache)
        (position,) = step.values()
        controller(npts=2, start=position, stop=position + 1)
        yield from once(flyer)

    flyer = make(base=BusyFlyer)
    detector, motor = Signal(name="detector", value=1.0), SynAxis(name="motor")
    run_engine(bp.scan([detector], motor, 0, 10, 3, per_step=fly_at))  # type: ignore[arg-type]
    succeeded(documents)
    assert positions(documents) == [0, 1, 5, 6, 10, 11]
    assert only(documents, "stop")["num_events"] == {"primary": 3, "ifly": 6}


def test_a_flight_that_is_refused_leaves_the_flights_before_it(
    make: Make, controller: Controller, run_engine: RunEngine, documents: Documents
) -> None:
    @bpp.run_decorator()
    def plan() -> MsgGenerator[None]:
        for fault in (0, 4):
            controller(npts=3, fault=fault)
            yield from once(flyer)

    flyer = make(base=BusyFlyer, fresh_timeout=0)
    with pytest.raises(FailedStatus) as caught:
        run_engine(plan())
    assert isinstance(caught.value.__cause__, StaleArrayError)
    validate(documents)
    assert only(documents, "stop")["exit_status"] == "fail"
    assert positions(documents) == [-5, 0, 5]


# Documents and their consumers


class Unpacked(event_model.DocumentRouter):
    """Takes pages apart, as it does for who has no `event_page`."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []

    def event(self, doc: Any) -> Any:
        self.events.append(doc)
        return doc


def table(flyer: BusyFlyer, array: str) -> list[float]:
    """What the IOC holds, as documents have it."""
    values = epics.caget(f"{PREFIX}{array}_array")
    return list((values - flyer.timeline.t0 if array == "t" else values).tolist())


def test_unpacked_into_events(make: Make, run_engine: RunEngine, documents: Documents) -> None:
    flyer, router = make(base=Scalars, page_size=4), Unpacked()
    run_engine(bp.fly([flyer]), router)  # type: ignore[arg-type]
    pages = of_kind(documents, "event_page")
    validate(documents)
    unpacked = [event for page in pages for event in event_model.unpack_event_page(page)]
    assert len(pages) == 3
    assert router.events == unpacked
    assert [event["seq_num"] for event in unpacked] == list(range(1, 12))
    assert len({event["uid"] for event in unpacked}) == 11
    for attr, array in (("tArr", "t"), ("xArr", "x"), ("yArr", "y")):
        assert [event["data"][f"ifly_{attr}"] for event in unpacked] == table(flyer, array)
    times = epics.caget(f"{PREFIX}t_array").tolist()
    assert [event["timestamps"]["ifly_xArr"] for event in unpacked] == times
    for event in unpacked:
        event_model.schema_validators[event_model.DocumentNames.event].validate(event)
        json.dumps(event)


@pytest.mark.parametrize("chunk", [1, 3, 5, 100])
def test_rechunked(direct_flyer: BusyFlyer, run_engine: RunEngine, documents: Documents, chunk: int) -> None:
    direct_flyer.page_size = 4
    run_engine(bp.fly([direct_flyer]))
    again = list(event_model.rechunk_event_pages(of_kind(documents, "event_page"), chunk))
    assert [len(page["uid"]) for page in again] == [chunk] * (11 // chunk) + [11 % chunk] * (11 % chunk > 0)
    assert [x for page in again for x in page["data"]["ifly_xArr"]] == table(direct_flyer, "x")
    assert [number for page in again for number in page["seq_num"]] == list(range(1, 12))


def test_json_lines(make: Make, run_engine: RunEngine, documents: Documents, tmp_path: Path) -> None:
    json_writer = pytest.importorskip("bluesky.callbacks.json_writer")
    put("str_wave", "gold")
    flyer = make(TEXT, Scalars, page_size=4)
    run_engine(bp.fly([flyer]), json_writer.JSONLinesWriter(str(tmp_path), "run.jsonl"))
    lines = [json.loads(line) for line in tmp_path.joinpath("run.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == [name for name, _ in documents]
    written = [(line["name"], line["doc"]) for line in lines]
    assert positions(written) == table(flyer, "x")
    pages, emitted = of_kind(written, "event_page"), of_kind(documents, "event_page")
    assert [page["data"] for page in pages] == [page["data"] for page in emitted]
    assert [page["timestamps"] for page in pages] == [page["timestamps"] for page in emitted]


def test_numbers_are_pythons_own(make: Make) -> None:
    """So is what comes of a signal whose value is numpy's."""
    flyer = make(
        {
            "scalar": Component(Signal, value=np.float32(0.5), kind="normal"),
            "list": Component(Signal, value=np.array([1, 2]), kind="normal"),
        }
    )
    take_off(flyer)
    write_arrays(2)
    land(flyer)
    (page,) = flyer.collect_pages()
    json.dumps(page)
    assert page["data"]["ifly_scalar"] == [0.5, 0.5]
    assert page["data"]["ifly_list"] == [[1, 2], [1, 2]]


def test_best_effort_callback(
    make: Make, controller: Controller, run_engine: RunEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    mpl.use("Agg")
    controller(npts=7)
    best_effort = BestEffortCallback()
    flyer = make(base=Scalars, stream_name="primary")
    before = set(plt.get_fignums())
    run_engine(bp.fly([flyer], md=flyer.plot_md), best_effort)
    figures = [plt.figure(number) for number in set(plt.get_fignums()) - before]
    lines = {axes.get_ylabel(): line for figure in figures for axes in figure.axes for line in axes.get_lines()}
    line = lines["ifly_yArr"]
    assert np.asarray(line.get_xdata()).tolist() == table(flyer, "x")
    assert np.asarray(line.get_ydata()).tolist() == table(flyer, "y")
    shown = capsys.readouterr().out
    assert sum(bool(re.match(r"\|\s+\d+ \|", row)) for row in shown.splitlines()) == 7
    for figure in figures:
        plt.close(figure)


# Any arrays


TYPES: dict[str, str] = {"uchar": "|u1", "short": "<i2", "long": "<i4", "float": "<f4", "double": "<f8"}


@st.composite
def any_arrays(draw: st.DrawFn) -> dict[str, np.ndarray]:
    length = draw(st.integers(0, 300))
    return {ftvl: draw(numpy_arrays(np.dtype(dtype), length)) for ftvl, dtype in TYPES.items()}


def bits(values: Any, dtype: str) -> bytes:
    """All kinds of NaN are one."""
    array = np.array(values, dtype)
    if array.dtype.kind == "f":
        array[np.isnan(array)] = np.nan
    return array.tobytes()


class AnyArrays(HandFlyer):
    tArr = xArr = yArr = None  # noqa: N815
    uchar = Component(Waveform, "ftvl_uchar")
    short = Component(Waveform, "ftvl_short")
    long = Component(Waveform, "ftvl_long")
    float = Component(Waveform, "ftvl_float")
    double = Component(Waveform, "ftvl_double")
    count = Component(Signal, value=0, kind="omitted")


@pytest.mark.parametrize("layout", ["rows", "array"])
def test_any_arrays_go_through_bit_for_bit(
    make: Make, run_engine: RunEngine, documents: Documents, layout: str
) -> None:
    """None can be written with no element: there the count says so."""
    flyer = make(
        base=AnyArrays, time_array=None, layout=layout, array_length=300, points="count", kickoff_finishes_on="busy"
    )

    @bpp.run_decorator()
    def plan(arrays: dict[str, np.ndarray]) -> MsgGenerator[None]:
        yield from bps.kickoff(flyer, wait=True)
        for ftvl, values in arrays.items():
            put(f"ftvl_{ftvl}", values if len(values) else np.zeros(1, values.dtype))
            flyer.count.put(len(values))
        epics.caput(OWN_PV, 0)
        yield from bps.complete(flyer, wait=True)
        yield from bps.collect(flyer)

    @settings(
        max_examples=25,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(arrays=any_arrays(), page_size=st.integers(1, 400))
    def goes_through(arrays: dict[str, np.ndarray], page_size: int) -> None:
        documents.clear()
        flyer.page_size = page_size
        run_engine(plan(arrays))
        validate(documents)
        length = len(arrays["long"])
        if layout == "array":
            assert rows(documents, "ifly_long_nord") == [length] * (length > 0)
        for ftvl, dtype in TYPES.items():
            got = rows(documents, f"ifly_{ftvl}")
            if layout == "array":
                got = list(got[0][:length]) if got else []
            assert len(got) == length
            assert bits(got, dtype) == bits(arrays[ftvl], dtype)
        if length and layout == "rows":
            sizes = [len(page["time"]) for page in of_kind(documents, "event_page")]
            assert sizes == [page_size] * (length // page_size) + [length % page_size] * (length % page_size > 0)

    goes_through()


# However it goes, complete() ends


class Odd(BusyFlyer):
    """With a value that is no EPICS signal: it is read at once."""

    soft = Component(Signal, value=3, kind="normal")


def test_a_value_that_is_there_at_once_ends_one_round(
    make_flyer: Callable[..., BusyFlyer], controller: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The busy record is read once, behind it, and the arrays are gathered once."""
    for number in range(10):  # the worker's thread begins with a flyer's first flight
        flyer = make_flyer(Odd)
        asked: list[object] = []
        channel = flyer._wiring.driver.channel

        def noted(answer: Any, asked: list[object] = asked, read: Any = channel.read) -> None:
            asked.append(answer)
            read(answer)

        noting = SimpleNamespace(read=noted, host=channel.host, keeps_order=channel.keeps_order, reading=None)
        monkeypatch.setattr(flyer._wiring.collector, "busy", noting)
        controller(npts=3, seed=number)
        flyer.kickoff().wait(TIMEOUT)
        flyer.complete().wait(TIMEOUT)
        (page,) = flyer.collect_pages()
        assert page["data"]["ifly_soft"] == [3, 3, 3]
        assert len(asked) == 1


@pytest.mark.parametrize("events", ["direct", "ophyd"])
@pytest.mark.parametrize("reopened", [False, True])
def test_complete_ends_though_the_lines_are_closed(
    make_flyer: Callable[..., BusyFlyer], controller: Callable[..., None], events: str, reopened: bool
) -> None:
    """While arrays that are too old are about to be asked for again."""
    flyer = make_flyer(Odd, events=events, fresh_timeout=TIMEOUT)
    flyer.kickoff().wait(TIMEOUT)
    flyer.complete().wait(TIMEOUT)
    list(flyer.collect_pages())
    controller(fault=4)
    flyer.kickoff().wait(TIMEOUT)
    completed = flyer.complete()
    assert not completed.done
    if reopened:
        flyer.events = "ophyd" if events == "direct" else "direct"
        controller()
        flyer.kickoff()
    else:
        flyer._wiring.close()
    with pytest.raises(CollectError):
        completed.wait(TIMEOUT)


def test_whatever_goes_wrong_complete_tells(
    make_flyer: Callable[..., BusyFlyer], controller: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    flyer = make_flyer()

    def fail(answer: Any) -> None:
        raise ZeroDivisionError("out of the blue")

    monkeypatch.setattr(flyer._wiring.driver.channel, "read", fail)
    flyer.kickoff().wait(TIMEOUT)
    with pytest.raises(CollectError, match="out of the blue"):
        flyer.complete().wait(TIMEOUT)


class Line:
    """Answers when the test says so."""

    pv = "a:pv"

    def __init__(self, host: str = "ioc:5064") -> None:
        self.host = host
        self.answer: Any = None

    def fetch(self, answer: Any) -> None:
        self.answer = answer


def test_the_busy_record_is_read_behind_what_comes_in_another_way() -> None:
    """Values come in a thread of their own, arrays of another IOC on another circuit."""
    lines = {"x": Line(), "elsewhere": Line("other:5064")}
    value: Any = Line()
    busy: list[Any] = []
    record: Any = SimpleNamespace(host="ioc:5064", keeps_order=True, read=busy.append)
    specs = [ArraySpec(attr, attr, line, fresh=True) for attr, line in lines.items()]  # type: ignore[arg-type]
    gathered: list[Any] = []
    _Round(Collector("ifly", specs, record), [ValueSpec("value", "value", value)], gathered.append).ask()
    lines["x"].answer(1)
    value.answer(2)
    assert busy == []
    lines["elsewhere"].answer(3)
    (answer,) = busy
    assert gathered == []
    answer(None)
    assert [sorted(answers.values(), key=str) for answers in gathered] == [[1, 2, 3, None]]


EPICS_EPOCH = 631152000.0

TIMES: dict[str, tuple[str, Callable[[float, np.ndarray], np.ndarray], str | None]] = {
    "absolute": ("absolute", lambda now, since: now + since, None),
    "relative": ("relative", lambda now, since: since, None),
    "of 1990": ("epics", lambda now, since: now + since - EPICS_EPOCH, None),
    "of 1990, given as absolute": ("absolute", lambda now, since: now + since - EPICS_EPOCH, "time_origin='epics'"),
    "relative, given as absolute": ("absolute", lambda now, since: since, "time_origin='relative'"),
    "absolute, given as relative": ("relative", lambda now, since: now + since, "time_origin='absolute'"),
    "absolute, given as of 1990": ("epics", lambda now, since: now + since, "time_origin='absolute'"),
    "ms": ("absolute", lambda now, since: 1e3 * (now + since), "With milliseconds time_origin='absolute'"),
    "ns": ("absolute", lambda now, since: 1e9 * (now + since), "With nanoseconds time_origin='absolute'"),
}


@pytest.mark.parametrize("layout", ["rows", "array"])
@pytest.mark.parametrize("times", TIMES)
def test_times_far_outside_the_flight_are_told(
    make: Make, caplog: pytest.LogCaptureFixture, times: str, layout: str
) -> None:
    """Once a flight, with dates and what to set; they are filed as they were asked to be."""
    origin, written, advice = TIMES[times]
    flyer = make(time_origin=origin, layout=layout, array_length=3, page_size=1)
    take_off(flyer)
    now, since = time.time(), np.array([0.0, 0.1, 0.2])
    put("t_array", written(now, since))
    put("x_array", [1.0, 2.0, 3.0])
    put("y_array", [1.0, 2.0, 3.0])
    land(flyer)
    caplog.clear()
    pages = list(flyer.collect_pages())
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    if advice is None:
        assert told == []
        t0 = flyer.timeline.t0
        assert t0 is not None
        seconds = np.ravel([page["data"]["ifly_tArr"] for page in pages])
        assert seconds == pytest.approx(since + (0 if origin == "relative" else now - t0), abs=1e-5)
        return
    (message,) = told
    assert message.startswith(f"ifly, {PREFIX}t_array: the times lie far outside the flight: time_origin={origin!r} ")
    assert advice in message
    assert time.strftime("%Y-%m-%d ", time.localtime(now)) in message


@pytest.mark.parametrize("events", ["direct", "ophyd"])
def test_a_text_holds_no_times(make_flyer: Callable[..., BusyFlyer], events: str) -> None:
    class Text(Waveform):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, string=True, **kwargs)

    message = "^time_array='note': must be None or a column of numbers, and this is a text$"
    for note in (Component(Waveform, "str_wave", string=True), Component(Text, "str_wave")):
        kind = type("Noted", (BusyFlyer,), {"note": note})
        with pytest.raises(ValueError, match=message):
            kind(PREFIX, name="noted", time_array="note", events=events)
    flyer = make_flyer(kind, events=events)
    flyer.time_array = "note"
    before = look(BUSY_PV)
    with pytest.raises(ValueError, match=message):
        flyer.kickoff()
    assert look(BUSY_PV) == before
    with pytest.raises(ValueError, match="time_array='t': must be None or a column of numbers"):
        make_flyer_by_names(
            "made", busy=BUSY_PV, arrays={"t": {"pv": f"{PREFIX}str_wave", "string": True}}, time_array="t"
        )


def test_times_are_seconds_whatever_the_record_says(make_flyer: Callable[..., BusyFlyer]) -> None:
    keys = make_flyer(time_array="xArr").describe_collect()["ifly"]
    assert keys["ifly_xArr"]["units"] == "s"
    assert keys["ifly_yArr"]["units"] == "counts"


def test_a_text_that_is_none_is_refused_before_the_flight(controller: Callable[..., None]) -> None:
    array = {"pv": f"{PREFIX}x_array", "string": True}
    flyer = make_flyer_by_names("ifly", busy=f"{PREFIX}mybusy", arrays={"x": array})
    with pytest.raises(FlightRefused, match="x_array holds DOUBLE, and characters"):
        flyer.wait_for_connection(timeout=10)
    before = look(f"{PREFIX}mybusy")
    with pytest.raises(FlightRefused, match="x_array holds DOUBLE, and characters"):
        flyer.kickoff()
    assert look(f"{PREFIX}mybusy") == before


@pytest.mark.parametrize("events", ["direct", "ophyd"])
def test_units_beyond_ascii(make_flyer: Callable[..., BusyFlyer], events: str) -> None:
    pv = f"{PREFIX}x_array.EGU"
    before = epics.caget(pv)
    try:
        assert epics.caput(pv, "µm", wait=True, timeout=10) == 1
        assert make_flyer(events=events).describe_collect()["ifly"]["ifly_xArr"]["units"] == "µm"
    finally:
        epics.caput(pv, before, wait=True, timeout=10)
