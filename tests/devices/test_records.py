"""PVs as they come: field names, aliases, records without NELM and NORD, texts, integers that are 0 or 1."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

import bluesky.plans as bp
import epics
import pytest
from bluesky import RunEngine
from ophyd import Component, Device, EpicsSignal, EpicsSignalRO, Signal

from busy_callback_flyer import BusyFlyer, BusyRecord, FlightRefused, FlightStatus, PollingFlyer, Waveform, make_flyer
from busy_callback_flyer.channels.signal_reader import join_channel_access
from busy_callback_flyer.channels.signals import SignalArray
from busy_callback_flyer.engine.worker import Worker

from ..conftest import PREFIX, Documents, look

TIMEOUT = 10.0

Controller = Callable[..., None]
Events = Literal["direct", "ophyd"]


def put(record: str, value: Any) -> None:
    assert epics.caput(f"{PREFIX}{record}", value, wait=True, timeout=TIMEOUT) == 1


def configuration(documents: Documents) -> dict[str, Any]:
    """What the descriptor has of the flyer's configuration."""
    (descriptor,) = [document for name, document in documents if name == "descriptor"]
    ifly = descriptor["configuration"]["ifly"]
    assert ifly["data"].keys() == ifly["data_keys"].keys()
    return dict(ifly["data"])


def columns(documents: Documents) -> dict[str, list[Any]]:
    pages = [document for name, document in documents if name == "event_page"]
    return {key: [row for page in pages for row in page["data"][key]] for key in pages[0]["data"]}


PAIRS = [
    *(("mybusy", pv) for pv in ("x_array", "x_array.VAL", "x_alias", "x_alias.VAL", "past", "past.VAL")),
    *(("mybusy.VAL", pv) for pv in ("x_array", "past")),
]


@pytest.mark.parametrize("events", ["direct", "ophyd"])
@pytest.mark.parametrize(("busy", "array"), PAIRS)
def test_field_names_aliases_and_records_without_nelm_fly(
    events: Events, busy: str, array: str, controller: Controller, run_engine: RunEngine, documents: Documents
) -> None:
    """NELM, NORD, OUT and FLNK are used where they are; nothing waits for them where they are not."""
    controller(npts=5, duration=0.01)
    put("past.RES", 1)  # it holds what came since
    flyer = make_flyer(
        "ifly", busy=f"{PREFIX}{busy}", arrays={"x": f"{PREFIX}{array}"}, events=events, flight_timeout=TIMEOUT
    )
    flyer.wait_for_connection(timeout=TIMEOUT)
    assert flyer.connected
    run_engine(bp.fly([flyer]))
    assert len(columns(documents)["ifly_x"]) == 5
    data = configuration(documents)
    assert {"ifly_busy_output_link", "ifly_busy_forward_link"} <= data.keys()
    if array.startswith("past"):
        assert "ifly_x_number_elements" not in data
    else:
        assert data["ifly_x_number_elements"] == 256
    assert flyer.read_configuration().keys() == flyer.describe_configuration().keys()


@pytest.mark.parametrize("base", [BusyFlyer, PollingFlyer])
def test_a_subclass_with_field_names_flies(
    base: type[BusyFlyer], controller: Controller, run_engine: RunEngine, documents: Documents
) -> None:
    controller(npts=5, duration=0.01)
    put("past.RES", 1)
    kind = type(
        "Fields",
        (base,),
        {
            "busy": Component(BusyRecord, "mybusy.VAL", kind="config"),
            "xArr": Component(Waveform, "x_array.VAL", kind="config"),
            "yArr": Component(Waveform, "past", kind="config"),
        },
    )
    run_engine(bp.fly([kind(PREFIX, name="ifly", flight_timeout=TIMEOUT)]))  # which waits for no connection
    assert {key: len(values) for key, values in columns(documents).items()} == dict.fromkeys(
        ("ifly_tArr", "ifly_xArr", "ifly_yArr"), 5
    )
    assert configuration(documents).keys() >= {"ifly_busy_output_link", "ifly_xArr_number_elements"}
    assert "ifly_yArr_number_elements" not in configuration(documents)


@pytest.mark.parametrize("events", ["direct", "ophyd"])
def test_arrays_of_other_records_and_fields_fly(events: Events, controller: Controller) -> None:
    """Filled before the flight, as nobody fills them in one."""
    controller(npts=7, duration=0.01)
    pvs = {"a": "asub.A", "b": "aao_array", "c": "aao_array.VAL"}
    arrays: dict[str, Any] = {attr: {"pv": f"{PREFIX}{pv}", "fresh": False} for attr, pv in pvs.items()}
    arrays["x"] = f"{PREFIX}x_array.VAL[0:2]"  # a filter of the IOC: NORD is not its length
    flyer = make_flyer("ifly", busy=f"{PREFIX}mybusy", arrays=arrays, events=events, flight_timeout=TIMEOUT)
    flyer.wait_for_connection(timeout=TIMEOUT)
    put("asub.A", [1.0, 2.0, 3.0])
    put("aao_array", [4, 5, 6])
    flyer.kickoff().wait(TIMEOUT)
    flyer.complete().wait(TIMEOUT)
    (page,) = flyer.collect_pages()
    assert len(page["data"]["ifly_x"]) == 3
    assert [page["data"][f"ifly_{attr}"] for attr in "abc"] == [[1, 2, 3], [4, 5, 6], [4, 5, 6]]
    assert flyer.read_configuration().keys() >= {"ifly_b_number_elements", "ifly_c_number_elements"}
    assert "ifly_a_number_elements" not in flyer.read_configuration()


# What a field is that is not there


def test_a_field_that_a_pv_cannot_have() -> None:
    array = Waveform(f"{PREFIX}asub.A", name="array")
    array.wait_for_connection(timeout=TIMEOUT)
    assert array.connected
    assert array.number_elements.read() == array.number_read.describe() == {}
    assert array.number_elements.get() is None
    assert array.get().number_read is None


def test_a_field_that_a_record_has_not() -> None:
    array = Waveform(f"{PREFIX}past", name="array")
    array.wait_for_connection(timeout=TIMEOUT)
    assert array.connected
    assert array.number_elements.connected
    assert array.number_elements.missing
    assert array.read_configuration() == array.describe_configuration() == {}


def test_a_field_is_waited_for_as_long_as_its_record_is_not_there() -> None:
    array = Waveform(f"{PREFIX}nowhere", name="array")
    with pytest.raises(TimeoutError, match=rf"{PREFIX}nowhere\.NELM"):
        array.wait_for_connection(timeout=0.7)
    assert not array.connected
    with pytest.raises(TimeoutError):
        array.number_elements.read()


def test_a_field_that_is_there_is_waited_for() -> None:
    for _ in range(5):
        array = Waveform(f"{PREFIX}x_array", name="array")
        array.wait_for_connection(timeout=TIMEOUT)
        assert array.read_configuration()["array_number_elements"]["value"] == 256
        array.destroy()


def test_a_record_of_soft_signals_waits_for_no_field() -> None:
    """What has NELM of its own keeps it."""

    class Soft(Waveform):
        wave = Component(Signal, value=[1.0])
        number_elements = Component(Signal, value=1, kind="config")

    array = Soft(f"{PREFIX}nowhere", name="array")
    array.wait_for_connection(timeout=TIMEOUT)
    assert array.read_configuration()["array_number_elements"]["value"] == 1


def test_points_cannot_be_counted_by_a_nord_that_is_not_there(controller: Controller) -> None:
    for pv in ("past", "asub.A"):
        flyer = make_flyer(
            "ifly", busy=f"{PREFIX}mybusy", arrays={"x": f"{PREFIX}{pv}"}, progress="x", expected_points=5
        )
        flyer.wait_for_connection(timeout=TIMEOUT)
        with pytest.raises(ValueError, match=f"{PREFIX}{pv} has no NORD.*progress"):
            flyer.kickoff()
        assert not flyer.flying
    assert look(f"{PREFIX}mybusy")[0] == 0


# Texts

TEXTS = {"sample": "gold", "long_in": "x" * 39, "long_in.VAL$": "x" * 60, "long_out.VAL$": "y" * 60}


@pytest.mark.parametrize("events", ["direct", "ophyd"])
def test_strings_are_texts(events: Events, controller: Controller, run_engine: RunEngine, documents: Documents) -> None:
    controller(npts=3, duration=0.01)
    arrays: dict[str, Any] = {
        f"text{number}": {"pv": f"{PREFIX}{pv}", "string": True, "fresh": False} for number, pv in enumerate(TEXTS)
    }
    arrays["x"] = f"{PREFIX}x_array"
    flyer = make_flyer("ifly", busy=f"{PREFIX}mybusy", arrays=arrays, events=events, flight_timeout=TIMEOUT)
    flyer.wait_for_connection(timeout=TIMEOUT)
    put("sample", "gold")
    put("long_in.VAL$", "x" * 60)
    put("long_out.VAL$", "y" * 60)
    run_engine(bp.fly([flyer]))
    for number, text in enumerate(TEXTS.values()):
        assert columns(documents)[f"ifly_text{number}"] == [text] * 3


@pytest.mark.parametrize("events", ["direct", "ophyd"])
@pytest.mark.parametrize(("pv", "text"), [("strings", True), ("mybusy", True), ("sample", False)])
def test_what_is_neither_one_text_nor_numbers_is_refused(events: Events, pv: str, text: bool) -> None:
    put("strings", ["a", "b"])
    arrays = {"x": {"pv": f"{PREFIX}{pv}", "string": text, "fresh": False}}
    flyer = make_flyer("ifly", busy=f"{PREFIX}own", arrays=arrays, events=events)
    with pytest.raises(FlightRefused, match=f"{PREFIX}{pv} holds .*needed"):
        flyer.wait_for_connection(timeout=TIMEOUT)
    with pytest.raises(FlightRefused, match=f"{PREFIX}{pv} holds .*needed"):
        flyer.kickoff()


# Arrays by signals


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker("test", join_channel_access)
    yield worker
    worker.stop(TIMEOUT)


@pytest.mark.parametrize("pv", ["x_array", "aao_array", "ftvl_uchar"])
def test_a_monitored_array_without_nord_comes_whole(pv: str, worker: Worker, controller: Controller) -> None:
    """pyepics' PV asks for no more elements than its latest event had, and only NORD would tell."""
    put(pv, [9])
    array = EpicsSignalRO(f"{PREFIX}{pv}", name="array", auto_monitor=True)
    array.wait_for_connection(timeout=TIMEOUT)
    channel = SignalArray(array, worker)
    answers: queue.Queue[Any] = queue.Queue()
    for length in (3, 11, 2, 50, 1, *range(2, 30)):
        put(pv, list(range(length)))
        channel.fetch(answers.put)
        assert answers.get(timeout=TIMEOUT).values.tolist() == list(range(length))


@pytest.mark.parametrize("nord", [False, True])
def test_an_array_of_which_somebody_wants_few_elements_comes_whole(nord: bool, worker: Worker) -> None:
    """Who asks pyepics for the same PV gets the same object."""
    epics.get_pv(f"{PREFIX}limited", count=2, connect=True, timeout=TIMEOUT)
    array = Waveform(f"{PREFIX}limited", name="array")
    array.wait_for_connection(timeout=TIMEOUT)
    put("ftvl_double", [1.0, 2.0, 3.0, 4.0])
    channel = SignalArray(array.wave, worker, array.number_read if nord else None)
    answers: queue.Queue[Any] = queue.Queue()
    channel.fetch(answers.put)
    assert answers.get(timeout=TIMEOUT).values.tolist() == [1.0, 2.0, 3.0, 4.0]


def test_an_array_never_written_has_no_elements(worker: Worker) -> None:
    channel = SignalArray(EpicsSignalRO(f"{PREFIX}unwritten", name="array"), worker)
    answers: queue.Queue[Any] = queue.Queue()
    channel.fetch(answers.put)
    assert answers.get(timeout=TIMEOUT).values.tolist() == []


# Integers that are 0 or 1


class Flag(BusyFlyer):
    """By a record on which nobody acts."""

    tArr = yArr = None  # noqa: N815
    busy = Component(BusyRecord, "flag_long", kind="config")


class PolledFlag(PollingFlyer):
    tArr = yArr = None  # noqa: N815
    busy = Component(EpicsSignal, "flag_long", kind="config")


@pytest.mark.parametrize(("kind", "events"), [(Flag, "direct"), (Flag, "ophyd"), (PolledFlag, "direct")])
@pytest.mark.parametrize("flag", ["flag_long", "flag_short", "flag_char"])
def test_an_integer_flies(
    kind: type[BusyFlyer], events: Events, flag: str, run_engine: RunEngine, documents: Documents
) -> None:
    put(flag, 0)
    busy = Component(BusyRecord, flag, kind="config")
    flyer = type("Flown", (kind,), {"busy": busy})(
        PREFIX, name="ifly", events=events, time_array=None, flight_timeout=TIMEOUT
    )
    flyer.wait_for_connection(timeout=TIMEOUT)

    def act(**_: Any) -> None:
        """What the controller does."""
        put("x_array", [1.0, 2.0])
        put(flag, 0)

    flyer.subscribe(act, flyer.SUB_FLIGHT_BUSY)
    run_engine(bp.fly([flyer]))
    assert columns(documents)["ifly_xArr"] == [1.0, 2.0]
    assert look(f"{PREFIX}{flag}")[0] == 0


def in_flight(events: Events) -> tuple[BusyFlyer, FlightStatus]:
    """A flyer whose busy is a flag, in flight, and the status of its kickoff."""
    put("flag_long", 0)
    flyer = Flag(PREFIX, name="ifly", events=events, time_array=None, flight_timeout=TIMEOUT)
    flyer.wait_for_connection(timeout=TIMEOUT)
    busy = threading.Event()
    flyer.subscribe(lambda **_: busy.set(), flyer.SUB_FLIGHT_BUSY)
    status = flyer.kickoff()
    assert busy.wait(TIMEOUT)
    return flyer, status


@pytest.mark.parametrize("events", ["direct", "ophyd"])
def test_a_flag_that_says_2_is_neither_busy_nor_done(events: Events) -> None:
    flyer, status = in_flight(events)
    for value in (2, -1, 65536):
        put("flag_long", value)
    flyer._wiring.driver.channel.wait_sent(TIMEOUT)
    assert not status.done
    put("x_array", [1.0, 2.0])
    put("flag_long", 0)
    status.wait(TIMEOUT)


@pytest.mark.parametrize("events", ["direct", "ophyd"])
def test_stop_writes_done_to_a_flag(events: Events) -> None:
    flyer, status = in_flight(events)
    flyer.stop()
    assert status.exception(TIMEOUT) is not None
    assert look(f"{PREFIX}flag_long")[0] == 0


@pytest.mark.parametrize("kind", [Flag, PolledFlag])
def test_a_setting_is_not_written_to(kind: type[BusyFlyer]) -> None:
    """An integer that says something else at first is refused."""
    put("flag_long", 11)
    flyer = kind(PREFIX, name="ifly", time_array=None, flight_timeout=TIMEOUT)
    with pytest.raises(FlightRefused, match="flag_long is no busy record: it says 11"):
        flyer.kickoff().wait(TIMEOUT)
    assert look(f"{PREFIX}flag_long")[0] == 11


def test_a_station_with_fields_that_are_not_there_connects() -> None:
    class Past(BusyFlyer):
        tArr = xArr = None  # noqa: N815
        yArr = Component(Waveform, "past", kind="config")  # noqa: N815

    class Station(Device):
        flyer = Component(Past, "", time_array=None)

    station = Station(PREFIX, name="station")
    station.wait_for_connection(timeout=TIMEOUT)
    assert station.connected
    assert "station_flyer_yArr_number_elements" not in station.flyer.read_configuration()
