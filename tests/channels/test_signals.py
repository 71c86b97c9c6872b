"""Events by ophyd's signals: any control layer, fake devices, and the traps on the way."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import epics
import numpy as np
import pytest
from ophyd import Component, EpicsSignal, EpicsSignalRO, Signal
from ophyd.sim import make_fake_device

from busy_callback_flyer import BusyFlyer, FlightRefused, FlightTimeout, Waveform
from busy_callback_flyer.channel import ArraySignal, BusySignal, Worker, why_not_direct
from busy_callback_flyer.flight import BUSY, DONE, Reading

from ..conftest import PREFIX, look
from .test_ca import Listener, in_thread

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
    fake._worker.do(known.set)  # behind the news
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


def test_why_not_direct() -> None:
    assert why_not_direct([EpicsSignalRO(BUSY_PV, name="state")]) is None
    assert "soft is a Signal" in str(why_not_direct([Signal(name="soft")]))
    apart = EpicsSignal(BUSY_PV, f"{PREFIX}mytaxi", name="apart")
    assert "another PV" in str(why_not_direct([apart]))


def test_libca_that_cannot_be_had_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from busy_callback_flyer import libca

    def fail() -> None:
        raise libca.Unavailable("there is none")

    monkeypatch.setattr(libca, "library", fail)
    assert why_not_direct([EpicsSignalRO(BUSY_PV, name="state")]) == "there is none"


def test_why_libca_cannot_be_had_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is a private one, and pyepics may find none: a reason, and no error of another kind."""
    from busy_callback_flyer import libca

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


def test_the_echo_of_a_put_is_not_heard() -> None:
    """A signal may tell its subscribers of what was asked for, whatever became of it."""

    class Echo(Signal):
        def put(self, value: int, **_: Any) -> None:
            self._run_subs(sub_type=self.SUB_VALUE, old_value=0, value=value, timestamp=time.time())

    class Deaf(BusyFlyer):
        busy = Component(Echo, value=0)
        tArr = xArr = yArr = None  # noqa: N815

    with pytest.raises(FlightRefused, match="no trace"):
        Deaf(name="deaf", events="ophyd", time_array=None).kickoff().wait(TIMEOUT)


@pytest.fixture
def listener() -> Listener:
    return Listener()


def test_a_closed_line_tells_nothing(listener: Listener) -> None:
    signal, worker = Signal(name="state", value=0), Worker("test")
    line = BusySignal(signal, worker, listener)
    assert line.wait_ready(TIMEOUT)
    signal.put(1)
    worker.wait(TIMEOUT)
    assert [listener.next()[0] for _ in range(2)] == ["connected", "says"]
    line.close()
    signal.put(0)
    worker.wait(TIMEOUT)
    assert listener.heard.empty()
    worker.stop(TIMEOUT)


# The traps of an EPICS signal


@pytest.fixture
def line(listener: Listener, controller: Controller) -> Iterator[BusySignal]:
    epics.caput(BUSY_PV, 0, wait=True, timeout=TIMEOUT)
    worker = Worker("test")
    line = BusySignal(EpicsSignal(BUSY_PV, name="state", string=True), worker, listener)
    assert line.wait_ready(TIMEOUT)
    assert listener.next()[0] == "connected"
    yield line
    line.close()
    worker.stop(TIMEOUT)


def says(listener: Listener, value: int) -> Reading:
    """The next news of this value; a new subscription may tell twice of what was before."""
    while True:
        kind, reading = listener.next()
        assert kind == "says"
        if reading.value == value:
            assert isinstance(reading, Reading)
            return reading


def test_only_the_record_is_heard_and_no_echo(line: BusySignal, listener: Listener, controller: Controller) -> None:
    """An echo bears the value that was asked for and the client's clock."""
    controller(duration=60)
    for value in (BUSY, DONE):
        line.put(value)
        reading = says(listener, value)
        assert look(BUSY_PV)[0] == value
        assert look(BUSY_PV)[1] == pytest.approx(reading.stamp, abs=2e-6)
    assert listener.heard.empty()


def test_a_read_brings_the_stamp_of_its_own_answer(line: BusySignal, controller: Controller) -> None:
    """ophyd keeps that of the latest event where a signal is monitored; 0 while 0 moves it without one."""
    answers: queue.Queue[Reading | None] = queue.Queue()
    line._signal.subscribe(lambda **_: None)
    epics.caput(BUSY_PV, 0, wait=True, timeout=TIMEOUT)
    line.read(answers.put)
    reading = answers.get(timeout=TIMEOUT)
    assert reading is not None
    assert look(BUSY_PV)[1] == pytest.approx(reading.stamp, abs=2e-6)


def test_requests_block_nobody(line: BusySignal, listener: Listener, controller: Controller) -> None:
    """They are made in the worker's thread, whoever asks."""
    controller(duration=60)
    for value in (BUSY, DONE):
        in_thread(partial(line.put, value))
        says(listener, value)


def test_a_second_put_callback_is_not_sent_while_one_is_pending(line: BusySignal, controller: Controller) -> None:
    controller(duration=60)
    answers: queue.Queue[tuple[int | None, str]] = queue.Queue()
    for _ in range(2):
        line.put_callback(BUSY, lambda status, text: answers.put((status, text)))
    status, text = answers.get(timeout=TIMEOUT)
    assert status == 160
    assert "never answered" in text
    line.put(DONE)
    assert answers.get(timeout=TIMEOUT) == (None, "")


@pytest.mark.parametrize(("record", "what"), [("duration", "it says"), ("fault", "it has 8 states")])
def test_what_is_no_binary_is_unusable(record: str, what: str, listener: Listener) -> None:
    worker = Worker("test")
    line = BusySignal(EpicsSignal(f"{PREFIX}{record}", name="wrong"), worker, listener)
    kind, problem = listener.next()
    assert kind == "unusable"
    assert problem == line.problem
    assert what in problem
    line.close()
    worker.stop(TIMEOUT)


def test_an_array_that_is_monitored_comes_whole(controller: Controller) -> None:
    """pyepics asks for no more elements than its latest event had."""
    pv = f"{PREFIX}x_array"
    epics.caput(pv, [1.0], wait=True, timeout=TIMEOUT)
    monitored = EpicsSignalRO(pv, name="monitored", auto_monitor=True)
    monitored.wait_for_connection(timeout=TIMEOUT)
    array = Waveform(pv, name="array")
    array.wait_for_connection(timeout=TIMEOUT)
    worker = Worker("test")
    line = ArraySignal(array.wave, worker, array.number_read)
    answers: queue.Queue[Any] = queue.Queue()
    for length in (3, 11, 2, 50):
        epics.caput(pv, list(range(length)), wait=True, timeout=TIMEOUT)
        line.fetch(answers.put)
        answer = answers.get(timeout=TIMEOUT)
        assert answer.values.tolist() == list(range(length))
        assert answer.stamp == pytest.approx(look(pv)[1], abs=2e-6)
    worker.stop(TIMEOUT)


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
