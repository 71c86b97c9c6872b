"""BusyFlyer against the embedded IOC, through Channel Access and a RunEngine."""

from __future__ import annotations

import inspect
import math
import queue
import re
import threading
from collections.abc import Callable
from typing import Any

import bluesky.plans as bp
import epics
import event_model
import numpy as np
import psutil
import pytest
from bluesky import RunEngine
from bluesky.utils import FailedStatus
from ophyd import Component, EpicsSignal, EpicsSignalRO

from busy_callback_flyer import (
    BusyFlyer,
    FlightAborted,
    FlightRefused,
    FlightTimeout,
    PollingFlyer,
    RaggedArrayError,
    StaleArrayError,
    Waveform,
    make_flyer,
)
from busy_callback_flyer.channels.ca import CABusy
from busy_callback_flyer.channels.ca.base import _handles, _requests
from busy_callback_flyer.engine.options import OPTIONS
from busy_callback_flyer.engine.ports import Confirmed, Put, PutAnswer
from busy_callback_flyer.ioc import EmbeddedIOC

from ..conftest import PREFIX, look
from ..faults.interruptions import until

Documents = list[tuple[str, dict[str, Any]]]
Controller = Callable[..., None]
MakeFlyer = Callable[..., BusyFlyer]

BUSY_PV = f"{PREFIX}mybusy"
TIMEOUT = 20.0  # generous: reached only where something is broken


def only(documents: Documents, name: str) -> dict[str, Any]:
    (found,) = [document for kind, document in documents if kind == name]
    return found


def test_flies_in_a_run_engine(
    flyer: BusyFlyer, controller: Controller, run_engine: RunEngine, documents: Documents
) -> None:
    controller(npts=11, duration=0.1, start=-5, stop=5)
    run_engine(bp.fly([flyer]))
    descriptor, page = only(documents, "descriptor"), only(documents, "event_page")
    assert descriptor["name"] == "ifly"
    assert set(descriptor["data_keys"]) == {"ifly_tArr", "ifly_xArr", "ifly_yArr"} == set(page["data"])
    assert page["data"]["ifly_xArr"] == pytest.approx(np.linspace(-5, 5, 11))
    assert epics.caget(f"{PREFIX}y_array").tolist() == page["data"]["ifly_yArr"]
    for name, document in documents:
        event_model.schema_validators[event_model.DocumentNames[name]].validate(document)


def test_point_times(flyer: BusyFlyer, controller: Controller, run_engine: RunEngine, documents: Documents) -> None:
    controller(npts=5, duration=0.1)
    run_engine(bp.fly([flyer]))
    page = only(documents, "event_page")
    times = epics.caget(f"{PREFIX}t_array").tolist()
    t0 = flyer.timeline.t0
    assert t0 == flyer.timeline["busy"].stamp
    assert t0 is not None
    for key in ("ifly_tArr", "ifly_xArr", "ifly_yArr"):
        assert page["timestamps"][key] == times
    assert page["data"]["ifly_tArr"] == [time - t0 for time in times]
    assert page["data"]["ifly_tArr"][-1] - page["data"]["ifly_tArr"][0] == pytest.approx(0.1, abs=0.05)


def test_data_keys(flyer: BusyFlyer) -> None:
    (stream, keys), *_ = flyer.describe_collect().items()
    assert stream == "ifly"
    assert keys["ifly_xArr"] == {
        "source": f"PV:{PREFIX}x_array",
        "dtype": "number",
        "dtype_numpy": "<f8",
        "shape": [],
        "units": "mm",
        "precision": 4,
    }
    assert keys["ifly_tArr"]["units"] == "s"
    assert list(keys) == ["ifly_tArr", "ifly_xArr", "ifly_yArr"]
    assert flyer.describe_collect()["ifly"] is not keys, "the RunEngine changes what it is given"


def test_timeline_is_in_order(flyer: BusyFlyer, controller: Controller) -> None:
    controller(duration=0.05)
    flyer.kickoff().wait(TIMEOUT)
    flyer.complete().wait(TIMEOUT)
    list(flyer.collect_pages())
    timeline = flyer.timeline
    assert {"put", "busy", "done", "callback", "finished", "arrays", "collected"} == {mark.step for mark in timeline}
    client = [timeline[step].client for step in ("put", "busy", "done", "finished", "arrays", "collected")]
    assert client == sorted(client)
    assert timeline["busy"].stamp is not None
    assert timeline["done"].stamp is not None
    assert timeline["put"].client <= timeline["busy"].stamp < timeline["done"].stamp <= timeline["finished"].client


def test_kickoff_waits_for_nobody(flyer: BusyFlyer, ioc: EmbeddedIOC) -> None:
    """No network round trip is in it: it returns while the IOC cannot answer."""
    ioc.freeze()
    try:
        status = flyer.kickoff()
        assert not status.done
    finally:
        ioc.thaw()
    status.wait(TIMEOUT)


def test_two_hundred_short_flights(flyer: BusyFlyer, controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    """None hangs, none finishes before its Done, and no thread is started for one."""
    controller(npts=3, duration=0.005)
    flyer.kickoff().wait(TIMEOUT)  # whatever is started once is started by now
    look(BUSY_PV)
    started: list[threading.Thread] = []
    start = threading.Thread.start

    def count_and_start(thread: threading.Thread) -> None:
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", count_and_start)
    stamps = set()
    for _ in range(200):
        flyer.kickoff().wait(TIMEOUT)
        value, stamp = look(BUSY_PV)
        assert value == 0, "finished before its Done"
        # pyepics rounds stamps to microseconds
        assert stamp == pytest.approx(flyer.timeline["done"].stamp, abs=2e-6), "finished by another Done"
        stamps.add(stamp)
    assert len(stamps) == 200
    assert started == []


def test_zero_length_flights(flyer: BusyFlyer, controller: Controller) -> None:
    controller(npts=3, duration=0)
    for _ in range(100):
        flyer.kickoff().wait(TIMEOUT)
        flyer.complete().wait(TIMEOUT)
        (page,) = flyer.collect_pages()
        assert len(page["time"]) == 3


@pytest.mark.slow
def test_two_thousand_flights_leave_nothing_behind(flyer: BusyFlyer, controller: Controller) -> None:
    process = psutil.Process()

    def fly(flights: int) -> tuple[int, int]:
        for _ in range(flights):
            flyer.kickoff().wait(TIMEOUT)
            flyer.complete().wait(TIMEOUT)
            assert len(list(flyer.collect_pages())) == 1
        return process.num_threads(), process.num_fds()

    before = fly(100)
    assert fly(2000) == before
    assert not _requests, "requests that nobody will answer"


def test_status_finishes_in_libcas_thread(direct_flyer: BusyFlyer, controller: Controller) -> None:
    controller(duration=60)
    called_from: queue.Queue[threading.Thread] = queue.Queue()
    status = direct_flyer.kickoff()
    status.add_callback(lambda _: called_from.put(threading.current_thread()))
    look(BUSY_PV)  # Busy is put by now
    epics.caput(BUSY_PV, 0)
    # Python knows a thread that it did not start by no better name.
    assert isinstance(called_from.get(timeout=TIMEOUT), threading._DummyThread)
    assert status.success


def test_kickoff_while_flying_is_refused(flyer: BusyFlyer, controller: Controller) -> None:
    controller(duration=60)
    status = flyer.kickoff()
    with pytest.raises(RuntimeError, match="flying already"):
        flyer.kickoff()
    flyer.stop()
    with pytest.raises(FlightAborted):
        status.wait(TIMEOUT)


def test_stop_writes_done_once(flyer: BusyFlyer, controller: Controller) -> None:
    controller(duration=60)
    status = flyer.kickoff()
    completed = flyer.complete()
    flyer.stop()
    for waiting in (status, completed):
        with pytest.raises(FlightAborted, match=BUSY_PV):
            waiting.wait(TIMEOUT)
    assert look(BUSY_PV)[0] == 0
    assert list(flyer.collect_pages()) == []
    controller(duration=0)
    flyer.kickoff().wait(TIMEOUT)
    before = look(BUSY_PV)
    flyer.stop()  # nothing is in the air: nothing is written, which would process the record
    assert look(BUSY_PV) == before


def test_record_left_busy_is_reset(flyer: BusyFlyer, controller: Controller) -> None:
    controller(fault=1)  # never finishes
    epics.caput(BUSY_PV, 1)
    assert look(BUSY_PV)[0] == 1
    controller(fault=0)
    flyer.kickoff().wait(TIMEOUT)
    flyer.complete().wait(TIMEOUT)
    (page,) = flyer.collect_pages()
    assert len(page["time"]) == 11


def test_flight_timeout_resets_the_record(make_flyer: MakeFlyer, controller: Controller) -> None:
    controller(fault=1)
    flyer = make_flyer(flight_timeout=0.3)
    with pytest.raises(FlightTimeout, match=r"prj:mybusy.*flight_timeout=0\.3 s.*last seen: Busy"):
        flyer.kickoff().wait(TIMEOUT)
    assert look(BUSY_PV)[0] == 0
    controller()
    flyer.kickoff().wait(TIMEOUT)


@pytest.mark.parametrize("events", ["direct", "ophyd"])
def test_flight_timeout_can_leave_the_record(make_flyer: MakeFlyer, controller: Controller, events: str) -> None:
    """It stays Busy until the next kickoff resets it, with a put-callback that was never answered."""
    controller(fault=1)
    flyer = make_flyer(events=events, flight_timeout=0.3, on_timeout="leave")
    with pytest.raises(FlightTimeout):
        flyer.kickoff().wait(TIMEOUT)
    assert look(BUSY_PV)[0] == 1
    flyer.stop()
    assert look(BUSY_PV)[0] == 1, "no flight of ours is open"
    controller(npts=3)
    flyer.flight_timeout = TIMEOUT
    flyer.kickoff().wait(TIMEOUT)
    flyer.complete().wait(TIMEOUT)
    (page,) = flyer.collect_pages()
    assert len(page["time"]) == 3


# Collecting


def test_collected_once(flyer: BusyFlyer) -> None:
    flyer.kickoff().wait(TIMEOUT)
    assert len(list(flyer.collect_pages())) == 1, "complete() may be left out at a prompt"
    assert list(flyer.collect_pages()) == []


def test_nothing_before_the_flight_is_done(flyer: BusyFlyer, controller: Controller) -> None:
    assert list(flyer.collect_pages()) == []
    flyer.kickoff().wait(TIMEOUT)
    controller(duration=60)
    status = flyer.kickoff()  # forgets what the first flight left
    assert list(flyer.collect_pages()) == []
    flyer.stop()
    with pytest.raises(FlightAborted):
        status.wait(TIMEOUT)


def test_a_kickoff_that_is_refused_loses_nothing(flyer: BusyFlyer) -> None:
    flyer.kickoff().wait(TIMEOUT)
    flyer.complete().wait(TIMEOUT)
    flyer.page_size = 0
    with pytest.raises(ValueError, match="page_size"):
        flyer.kickoff()
    flyer.page_size = 10
    (page,) = flyer.collect_pages()  # by the options of its own kickoff
    assert len(page["time"]) == 11


def test_late_answer_to_an_earlier_flight_is_not_ours(
    direct_flyer: BusyFlyer, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller(duration=60)
    answers: list[PutAnswer] = []
    put_callback = CABusy.put_callback

    def keep_answer(channel: CABusy, value: int, answer: PutAnswer) -> None:
        answers.append(answer)
        put_callback(channel, value, answer)

    monkeypatch.setattr(CABusy, "put_callback", keep_answer)
    for _ in range(2):
        direct_flyer.stop()
        look(BUSY_PV)
        status = direct_flyer.kickoff()
        until(lambda: "busy" in direct_flyer.timeline)
    while "busy" not in direct_flyer.timeline:
        assert not status.done
    answers[0](Put.SERVED, "")
    assert "callback" not in direct_flyer.timeline
    assert not status.done


def test_kickoff_waits_for_the_done_of_the_flight_before(
    direct_flyer: BusyFlyer, controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """stop() in another thread has told its verdict, and is about to put Done."""
    controller(duration=60)
    puts: list[str] = []
    about_to_put, go_on = threading.Event(), threading.Event()
    channel = direct_flyer._wiring.driver.channel
    put_done, put_busy = channel.put, channel.put_callback

    def slow_put_done(value: int, confirmed: Confirmed) -> None:
        about_to_put.set()
        assert go_on.wait(TIMEOUT)
        puts.append("Done")
        put_done(value, confirmed)

    def noted_put_busy(value: int, answer: PutAnswer) -> None:
        puts.append("Busy")
        put_busy(value, answer)

    monkeypatch.setattr(channel, "put", slow_put_done)
    monkeypatch.setattr(channel, "put_callback", noted_put_busy)
    direct_flyer.kickoff()
    until(lambda: "put" in direct_flyer.timeline)
    stopper = threading.Thread(target=direct_flyer.stop)
    stopper.start()
    assert about_to_put.wait(TIMEOUT)
    starter = threading.Thread(target=direct_flyer.kickoff)
    starter.start()
    starter.join(0.2)  # long enough for one that does not wait
    go_on.set()
    for thread in (stopper, starter):
        thread.join(TIMEOUT)
    assert puts[:2] == ["Busy", "Done"]


def test_complete_without_kickoff(flyer: BusyFlyer) -> None:
    with pytest.raises(RuntimeError, match="kickoff"):
        flyer.complete()


def test_arrays_not_refreshed_are_refused(flyer: BusyFlyer, controller: Controller) -> None:
    flyer.kickoff().wait(TIMEOUT)
    controller(fault=4)
    flyer.kickoff().wait(TIMEOUT)
    with pytest.raises(StaleArrayError, match=f"{PREFIX}x_array"):
        flyer.complete().wait(TIMEOUT)
    with pytest.raises(StaleArrayError):
        list(flyer.collect_pages())


def test_arrays_not_refreshed_reach_no_document(
    flyer: BusyFlyer, controller: Controller, run_engine: RunEngine, documents: Documents
) -> None:
    flyer.kickoff().wait(TIMEOUT)
    controller(fault=4)
    with pytest.raises(FailedStatus) as failure:
        run_engine(bp.fly([flyer]))
    assert isinstance(failure.value.__cause__, StaleArrayError)
    assert not [document for name, document in documents if name == "event_page"]
    assert only(documents, "stop")["exit_status"] == "fail"


def test_arrays_of_unequal_length_are_refused(flyer: BusyFlyer, controller: Controller) -> None:
    controller(fault=3)
    flyer.kickoff().wait(TIMEOUT)
    with pytest.raises(RaggedArrayError, match=rf"{PREFIX}x_array 11, {PREFIX}y_array \d+"):
        flyer.complete().wait(TIMEOUT)


def test_many_pages(make_flyer: MakeFlyer, controller: Controller) -> None:
    flyer = make_flyer(page_size=4)
    flyer.kickoff().wait(TIMEOUT)
    pages = list(flyer.collect_pages())
    assert [len(page["time"]) for page in pages] == [4, 4, 3]
    assert [x for page in pages for x in page["data"]["ifly_xArr"]] == epics.caget(f"{PREFIX}x_array").tolist()


def test_stream_name(make_flyer: MakeFlyer, run_engine: RunEngine, documents: Documents) -> None:
    run_engine(bp.fly([make_flyer(stream_name="primary")]))
    assert only(documents, "descriptor")["name"] == "primary"


# As any Device


def test_hints_and_configuration(direct_flyer: BusyFlyer) -> None:
    assert direct_flyer.hints == {"fields": ["ifly_xArr", "ifly_yArr"]}
    configuration = direct_flyer.read_configuration()
    assert configuration["ifly_xArr_number_elements"]["value"] == 256
    assert configuration.keys() == direct_flyer.describe_configuration().keys()
    assert direct_flyer.read() == {}, "a flight's arrays are collected, not read"


def test_stage_and_unstage(flyer: BusyFlyer) -> None:
    assert flyer in flyer.stage()
    flyer.kickoff().wait(TIMEOUT)
    flyer.unstage()


def test_components_can_be_overridden_added_and_dropped(controller: Controller) -> None:
    class Other(BusyFlyer):
        busy = Component(EpicsSignal, "mybusy")
        yArr = None  # noqa: N815
        signal_counts = Component(Waveform, "y_array")

    flyer = Other(PREFIX, name="other")
    flyer.wait_for_connection(timeout=10)
    flyer.kickoff().wait(TIMEOUT)
    (page,) = flyer.collect_pages()
    assert list(page["data"]) == ["other_tArr", "other_xArr", "other_signal_counts"]


def test_tutorial_style_subclass(controller: Controller) -> None:
    class MyFlyer(BusyFlyer):
        busy = Component(EpicsSignal, f"{PREFIX}mybusy")
        tArr = Component(Waveform, f"{PREFIX}t_array")  # noqa: N815
        xArr = Component(Waveform, f"{PREFIX}x_array")  # noqa: N815
        yArr = None  # noqa: N815

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__("", parent=None, **kwargs)

    flyer = MyFlyer("prj:", name="ifly")
    flyer.wait_for_connection(timeout=10)
    flyer.kickoff().wait(TIMEOUT)


def test_own_collect_is_refused_when_defined() -> None:
    with pytest.raises(TypeError, match=r"Mine\.collect .*delete it"):

        class Mine(BusyFlyer):
            def collect(self) -> None: ...


def test_a_component_with_the_name_of_an_option_is_refused_when_defined() -> None:
    with pytest.raises(TypeError, match=r"Mine\.points is an option"):

        class Mine(BusyFlyer):
            points = Component(EpicsSignalRO, "npts")


def test_time_array_may_be_none(make_flyer: MakeFlyer) -> None:
    flyer = make_flyer(time_array=None)
    flyer.kickoff().wait(TIMEOUT)
    (page,) = flyer.collect_pages()
    assert set(page["time"]) == {flyer.timeline["done"].stamp}


def test_destroy_releases_the_channels(direct_flyer: BusyFlyer, controller: Controller) -> None:
    controller(duration=60)
    status = direct_flyer.kickoff()
    look(BUSY_PV)  # Busy is put by now
    channels: list[Any] = direct_flyer._wiring.channels
    assert all(channel.ready for channel in channels)
    handles = {channel._handle.number for channel in channels}
    assert handles <= _handles.keys()
    direct_flyer.destroy()
    with pytest.raises(FlightAborted):
        status.wait(TIMEOUT)
    assert look(BUSY_PV)[0] == 0
    with pytest.raises(RuntimeError, match="ifly was destroyed"):
        direct_flyer.kickoff()
    assert not any(channel.ready for channel in channels)
    assert not handles & _handles.keys()
    controller()
    epics.caput(BUSY_PV, 1, wait=True, timeout=TIMEOUT)  # nobody is told any more


# Bad input


@pytest.mark.parametrize(
    "options",
    [
        {"flight_timeout": -1},
        {"start_timeout": math.nan},
        {"reset_settle": -0.1},
        {"page_size": 0},
        {"page_size": 2.5},
        {"time_array": "zArr"},
        {"time_origin": "sometimes"},
        {"when_busy": "panic"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_bad_options_are_refused_at_construction_and_at_kickoff(
    direct_flyer: BusyFlyer, options: dict[str, Any]
) -> None:
    ((option, value),) = options.items()
    with pytest.raises(ValueError, match=f"^{option}="):
        BusyFlyer(PREFIX, name="bad", **options)
    setattr(direct_flyer, option, value)
    before = look(BUSY_PV)
    with pytest.raises(ValueError, match=f"^{option}="):
        direct_flyer.kickoff()
    assert look(BUSY_PV) == before, "the hardware moved"


def test_missing_pvs_are_named() -> None:
    class Lost(BusyFlyer):
        xArr = Component(Waveform, "nowhere_x")  # noqa: N815
        yArr = Component(Waveform, "nowhere_y")  # noqa: N815

    flyer = Lost(PREFIX, name="lost")
    with pytest.raises(TimeoutError) as error:
        flyer.wait_for_connection(timeout=1)
    assert f"{PREFIX}nowhere_x" in str(error.value)
    assert f"{PREFIX}nowhere_y" in str(error.value)
    assert f"{PREFIX}t_array" not in str(error.value)


def test_absent_busy_times_out_at_kickoff() -> None:
    class Lost(BusyFlyer):
        busy = Component(EpicsSignal, "nowhere")

    flyer = Lost(PREFIX, name="lost", start_timeout=0.2)
    with pytest.raises(FlightTimeout, match=f"{PREFIX}nowhere: not connected"):
        flyer.kickoff().wait(TIMEOUT)


@pytest.mark.parametrize("base", [BusyFlyer, PollingFlyer])
@pytest.mark.parametrize(
    ("component", "words"),
    [
        ({"busy": Component(EpicsSignal, "duration")}, "prj:duration is no busy record"),
        ({"busy": Component(EpicsSignal, "fault")}, "prj:fault is no busy record"),
        ({"xArr": Component(Waveform, "strings")}, "prj:strings holds STRING, and numbers are needed"),
    ],
    ids=["number", "many states", "strings"],
)
def test_pvs_of_the_wrong_kind_are_refused(
    base: type[BusyFlyer], component: dict[str, Component], words: str, controller: Controller
) -> None:
    kind = type("Wrong", (base,), component)
    flyer = kind(PREFIX, name="wrong")
    with pytest.raises(FlightRefused, match=words):
        flyer.wait_for_connection(timeout=10)
    with pytest.raises(FlightRefused, match=words):
        flyer.kickoff()
    assert look(BUSY_PV)[0] == 0


def test_disconnected_array_is_named() -> None:
    class Lost(BusyFlyer):
        yArr = Component(Waveform, "nowhere_y")  # noqa: N815

    flyer = Lost(PREFIX, name="lost", start_timeout=0.3)
    before = look(BUSY_PV)
    with pytest.raises(FlightRefused, match=f"{PREFIX}nowhere_y is not connected within start_timeout=0.3 s"):
        flyer.kickoff().wait(TIMEOUT)
    assert look(BUSY_PV) == before


# Configuration


def test_options_are_configuration(direct_flyer: BusyFlyer, run_engine: RunEngine, documents: Documents) -> None:
    direct_flyer.flight_timeout = 60
    run_engine(bp.fly([direct_flyer]))
    configuration = only(documents, "descriptor")["configuration"]["ifly"]
    assert configuration["data"]["ifly_xArr_pv"] == f"{PREFIX}x_array"
    assert configuration["data"]["ifly_flight_timeout"] == 60
    assert configuration["data"]["ifly_layout"] == "rows"
    assert configuration["data"]["ifly_describe"] == "nested"
    assert "ifly_points" not in configuration["data"], "None has no type"
    assert configuration["data"].keys() == configuration["data_keys"].keys() == configuration["timestamps"].keys()
    assert configuration["data_keys"]["ifly_layout"]["dtype"] == "string"
    assert configuration["data_keys"]["ifly_page_size"]["dtype"] == "integer"


def test_configure(direct_flyer: BusyFlyer) -> None:
    before = look(BUSY_PV)
    old, new = direct_flyer.configure({"page_size": 7, "describe": "flat", "flight_timeout": 2.5})
    assert (old["ifly_page_size"]["value"], new["ifly_page_size"]["value"]) == (2000, 7)
    assert old["ifly_page_size"]["timestamp"] < new["ifly_page_size"]["timestamp"]
    assert new["ifly_flight_timeout"]["value"] == direct_flyer.flight_timeout == 2.5
    assert direct_flyer.describe_collect().keys() == {"ifly_tArr", "ifly_xArr", "ifly_yArr"}
    with pytest.raises(ValueError, match="page_size=0"):
        direct_flyer.configure({"layout": "array", "page_size": 0})
    assert (direct_flyer.layout, direct_flyer.page_size) == ("rows", 7), "all or nothing"
    with pytest.raises(ValueError, match="nonsense"):
        direct_flyer.configure({"layout": "array", "nonsense": 1})
    for option in ("points", "stream_name", "time_array"):
        with pytest.raises(ValueError, match=f"{option}=5"):
            direct_flyer.configure({"layout": "array", option: 5})
    assert direct_flyer.layout == "rows"
    assert look(BUSY_PV) == before


def test_every_option_can_be_configured() -> None:
    """Those of the constructor, and of the docstring."""
    options = set(inspect.signature(BusyFlyer.__init__).parameters) - {"self", "prefix", "name", "kwargs"}
    assert options == set(OPTIONS)
    assert BusyFlyer.__doc__ is not None
    for option in options:
        assert re.search(rf"^ *{option} : ", BusyFlyer.__doc__, re.MULTILINE), option


# From PV names alone


def test_make_flyer(controller: Controller, run_engine: RunEngine, documents: Documents) -> None:
    controller(npts=3)
    made = make_flyer(
        "made",
        busy=BUSY_PV,
        arrays={"t": f"{PREFIX}t_array", "x": f"{PREFIX}x_array", "y": {"pv": f"{PREFIX}y_array", "fresh": False}},
        signals={"where": f"{PREFIX}position"},
        time_array="t",
        flight_timeout=TIMEOUT,
        labels={"flyers"},
    )
    made.wait_for_connection(timeout=10)
    run_engine(bp.fly([made]))
    page = only(documents, "event_page")
    assert list(page["data"]) == ["made_t", "made_x", "made_y", "made_where"]
    assert page["data"]["made_x"] == [-5, 0, 5]
    assert len(set(page["data"]["made_where"])) == 1
    assert made.y.fresh is False
    assert made.flight_timeout == TIMEOUT
    assert made._ophyd_labels_ == {"flyers"}
    assert made.plot_md == {"hints": {"dimensions": [(["made_x"], "made")]}}


def test_make_flyer_with_the_usual_names() -> None:
    made = make_flyer("made", busy=BUSY_PV, arrays={"xArr": f"{PREFIX}y_array"})
    made.wait_for_connection(timeout=10)
    assert made.describe_collect()["made"].keys() == {"made_xArr"}
    assert made.xArr.wave.pvname == f"{PREFIX}y_array"


@pytest.mark.parametrize(
    "attr",
    ["time array", "name", "read", "busy", "hints", "1st", "kickoff", "collect", "log", "page_size", "_x", "prefix"],
)
def test_make_flyer_refuses_names_that_are_taken(attr: str) -> None:
    with pytest.raises(ValueError, match=f"'{attr}' cannot name a column of made"):
        make_flyer("made", busy=BUSY_PV, arrays={attr: f"{PREFIX}x_array"})


def test_make_flyer_keeps_the_order_of_its_columns() -> None:
    made = make_flyer("made", busy=BUSY_PV, arrays={"pos": f"{PREFIX}x_array", "xArr": f"{PREFIX}y_array"})
    assert made.plot_md["hints"]["dimensions"] == [(["made_pos"], "made")]


def test_text_is_not_plotted() -> None:
    text = {"pv": f"{PREFIX}str_wave", "string": True}
    made = make_flyer("made", busy=BUSY_PV, arrays={"txt": text, "x": f"{PREFIX}x_array", "y": f"{PREFIX}y_array"})
    assert made.plot_md["hints"]["dimensions"] == [(["made_x"], "made")]
    assert made.hints == {"fields": ["made_x", "made_y"]}


def test_make_flyer_refuses_options_as_others_do() -> None:
    with pytest.raises(ValueError, match="time_array='t'"):
        make_flyer("made", busy=BUSY_PV, arrays={"x": f"{PREFIX}x_array"}, time_array="t")
    with pytest.raises(ValueError, match="cannot name"):
        make_flyer("made", busy=BUSY_PV, arrays={"x": f"{PREFIX}x_array"}, signals={"x": f"{PREFIX}position"})
    with pytest.raises(ValueError, match="'x_nord' cannot name"):
        make_flyer("made", busy=BUSY_PV, arrays={"x": f"{PREFIX}x_array", "x_nord": f"{PREFIX}y_array"})
    with pytest.raises(ValueError, match="column 'x' of made has no pv"):
        make_flyer("made", busy=BUSY_PV, arrays={"x": {"units": "mm"}})
