"""Channels by ophyd's signals: the traps on the way."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import epics
import numpy as np
import pytest
from ophyd import Component, DerivedSignal, Device, EpicsSignal, EpicsSignalRO, Signal
from ophyd.signal import AttributeSignal
from ophyd.sim import FakeEpicsSignal, SynAxis, SynSignal
from ophyd.utils import DisconnectedError, ReadOnlyError

from busy_callback_flyer import Waveform
from busy_callback_flyer.channels.ca import library
from busy_callback_flyer.channels.choice import name_of, state_of, why_not_direct
from busy_callback_flyer.channels.signal_reader import Reader, join_channel_access
from busy_callback_flyer.channels.signals import SignalArray, SignalBusy, SignalCount, SignalValue
from busy_callback_flyer.engine.ports import (
    BUSY,
    DONE,
    ArrayChannel,
    ArrayReading,
    BusyChannel,
    CountChannel,
    Put,
    Reading,
    ValueChannel,
    ValueReading,
)
from busy_callback_flyer.engine.worker import Worker

from ..conftest import PREFIX, look
from .listening import TIMEOUT, Listener, in_thread, never_mind

BUSY_PV = f"{PREFIX}mybusy"

Controller = Callable[..., None]
Answers = queue.Queue[tuple[Put, str]]


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker("test", join_channel_access)
    yield worker
    worker.stop(TIMEOUT)


def put_callback(channel: SignalBusy, value: int, answers: Answers) -> None:
    channel.put_callback(value, lambda put, text: answers.put((put, text)))


def test_they_satisfy_the_ports(worker: Worker, listener: Listener) -> None:
    signal = Signal(name="state", value=0)
    busy: BusyChannel = SignalBusy(signal, worker, listener)
    array: ArrayChannel = SignalArray(signal, worker)
    value: ValueChannel = SignalValue(signal, worker)
    count: CountChannel = SignalCount(signal)
    assert busy.pv == array.pv == value.pv == "state"
    assert busy.needs_ground_read
    assert not busy.needs_fence
    assert busy.host is array.host is count.host is None


# Which way


def test_why_not_direct() -> None:
    assert why_not_direct([EpicsSignalRO(BUSY_PV, name="state")]) is None
    assert "soft is a Signal" in str(why_not_direct([Signal(name="soft")]))
    apart = EpicsSignal(BUSY_PV, f"{PREFIX}mytaxi", name="apart")
    assert "another PV" in str(why_not_direct([apart]))


def test_libca_that_cannot_be_had_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise library.Unavailable("there is none")

    monkeypatch.setattr(library, "library", fail)
    assert why_not_direct([EpicsSignalRO(BUSY_PV, name="state")]) == "there is none"


def test_the_signal_of_a_busy_record() -> None:
    signal = Signal(name="soft")
    assert state_of(signal) is signal
    assert name_of(signal) == "soft"
    with pytest.raises(TypeError, match="empty is a Device without `state`"):
        state_of(Device(name="empty"))


# Any signal


def test_a_closed_channel_tells_nothing(worker: Worker, listener: Listener) -> None:
    signal = Signal(name="state", value=0)
    channel = SignalBusy(signal, worker, listener)
    assert channel.wait_ready(TIMEOUT)
    signal.put(1)
    worker.wait(TIMEOUT)
    assert [listener.next()[0] for _ in range(2)] == ["connected", "says"]
    going_on = threading.Event()
    worker.do(lambda: channel.close() if going_on.wait(TIMEOUT) else None)
    signal.put(0)  # this news is under way while it is closed
    going_on.set()
    worker.wait(TIMEOUT)
    signal.put(1)
    worker.wait(TIMEOUT)
    assert listener.heard.empty()
    assert not channel.ready


def test_the_echo_of_a_put_is_not_heard(worker: Worker, listener: Listener) -> None:
    """A signal may tell its subscribers of what was asked for, whatever became of it."""

    class Echo(Signal):
        def put(self, value: int, **_: Any) -> None:
            self._run_subs(sub_type=self.SUB_VALUE, old_value=0, value=value, timestamp=time.time())

    channel = SignalBusy(Echo(name="deaf", value=0), worker, listener)
    answers: Answers = queue.Queue()
    put_callback(channel, BUSY, answers)
    assert answers.get(timeout=TIMEOUT) == (Put.UNTOLD, "")
    assert listener.next()[0] == "connected"
    worker.wait(TIMEOUT)
    assert listener.heard.empty()


def test_what_a_soft_signal_says_after_a_put_is_heard(worker: Worker, listener: Listener) -> None:
    channel = SignalBusy(Signal(name="state", value=0), worker, listener)
    channel.put(BUSY, never_mind)
    worker.wait(TIMEOUT)
    assert [listener.next()[0] for _ in range(2)] == ["connected", "says"]
    assert channel.reading is not None
    assert channel.reading.value == BUSY
    assert listener.heard.empty(), "it was told twice"


@pytest.mark.parametrize(
    ("says", "value"), [("Busy", BUSY), ("Done", DONE), ("0", DONE), (1.0, BUSY), (np.int16(1), BUSY)]
)
def test_values_of_signals_without_strings(says: Any, value: int, worker: Worker, listener: Listener) -> None:
    SignalBusy(Signal(name="state", value=says), worker, listener)
    kind, reading = listener.next()
    assert kind == "connected"
    assert reading.value == value


def test_the_strings_of_a_site_count(worker: Worker, listener: Listener) -> None:
    signal = FakeEpicsSignal("fake", name="state", string=True)
    signal.sim_set_enum_strs(("Taxi", "Fly"))
    signal.sim_put("Fly")
    SignalBusy(signal, worker, listener)
    kind, reading = listener.next()
    assert kind == "connected"
    assert reading.value == BUSY


@pytest.mark.parametrize("says", ["Maybe", 2, 0.5, None])
def test_a_signal_that_says_something_else_is_unusable(says: Any, worker: Worker, listener: Listener) -> None:
    channel = SignalBusy(Signal(name="state", value=says), worker, listener)
    kind, problem = listener.next()
    assert kind == "unusable"
    assert problem == channel.problem
    assert f"it says {says!r}" in problem
    assert channel.ready


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (TimeoutError("gone"), Put.LOST),
        (DisconnectedError("gone"), Put.LOST),
        (ReadOnlyError("no"), Put.REFUSED),
        (ValueError("no"), Put.REFUSED),
    ],
)
def test_what_a_put_raises_tells_what_became_of_it(
    error: Exception, outcome: Put, worker: Worker, listener: Listener
) -> None:
    class Broken(Signal):
        def put(self, value: int, **_: Any) -> None:
            raise error

    answers: Answers = queue.Queue()
    put_callback(SignalBusy(Broken(name="state", value=0), worker, listener), BUSY, answers)
    assert answers.get(timeout=TIMEOUT) == (outcome, str(error))


def test_a_stopped_worker_answers_all_the_same(listener: Listener) -> None:
    worker = Worker("test")
    worker.stop(TIMEOUT)
    channel = SignalBusy(Signal(name="state", value=0), worker, listener)
    answers: Answers = queue.Queue()
    put_callback(channel, BUSY, answers)
    assert answers.get_nowait() == (Put.LOST, "it was closed")
    readings: list[Reading | None] = []
    channel.read(readings.append)
    assert readings == [None]
    channel.close()


class Disconnecting(Signal):
    """Its connection is scripted."""

    def connect(self, up: bool) -> None:
        self._metadata["connected"] = up
        self._run_subs(sub_type=self.SUB_META, **self._metadata)


def test_a_loss_is_told_and_what_was_before_is_forgotten(worker: Worker, listener: Listener) -> None:
    signal = Disconnecting(name="state", value=0)
    channel = SignalBusy(signal, worker, listener)
    assert listener.next()[0] == "connected"
    signal.connect(False)
    assert listener.next() == ("lost", None)
    assert channel.reading is None
    assert not channel.ready
    answers: queue.Queue[Reading | None] = queue.Queue()
    channel.read(answers.put)
    assert answers.get(timeout=TIMEOUT) is None
    signal.connect(True)
    assert listener.next()[0] == "connected"
    assert channel.ready


def test_values_arrays_and_counts(worker: Worker) -> None:
    signal = Signal(name="soft", value=[1, 2, 3], timestamp=5.0)
    answers: queue.Queue[Any] = queue.Queue()
    array = SignalArray(signal, worker)
    array.fetch(answers.put)
    answer = answers.get(timeout=TIMEOUT)
    assert isinstance(answer, ArrayReading)
    assert answer.values.tolist() == [1, 2, 3]
    assert answer.stamp == 5.0
    assert array.size == 3
    assert array.wait_ready(TIMEOUT)
    SignalValue(signal, worker).fetch(answers.put)
    assert answers.get(timeout=TIMEOUT) == ValueReading([1, 2, 3], 5.0)
    number = Signal(name="number", value=0)
    count = SignalCount(number)
    for value in (3, 4):
        number.put(value, timestamp=value - 2.0)
    count.close()
    number.put(5, timestamp=3.0)
    assert (count.first, count.latest) == (ValueReading(3, 1.0), ValueReading(4, 2.0))


def test_an_array_of_something_else_is_a_problem(worker: Worker) -> None:
    array = SignalArray(Signal(name="soft", value=["a"]), worker)
    answers: queue.Queue[Any] = queue.Queue()
    array.fetch(answers.put)
    assert answers.get(timeout=TIMEOUT) == array.problem
    assert "numbers are needed" in str(array.problem)
    assert array.wait_ready(TIMEOUT), "there is nothing to wait for"


# The traps of an EPICS signal


@pytest.fixture
def channel(listener: Listener, worker: Worker, controller: Controller) -> Iterator[SignalBusy]:
    epics.caput(BUSY_PV, 0, wait=True, timeout=TIMEOUT)
    channel = SignalBusy(EpicsSignal(BUSY_PV, name="state", string=True), worker, listener)
    assert channel.wait_ready(TIMEOUT)
    assert listener.next()[0] == "connected"
    yield channel
    channel.close()


def says(listener: Listener, value: int) -> Reading:
    """The next news of this value; a new subscription may tell twice of what was before."""
    while True:
        kind, reading = listener.next()
        assert kind == "says"
        if reading.value == value:
            assert isinstance(reading, Reading)
            return reading


def test_only_the_record_is_heard_and_no_echo(channel: SignalBusy, listener: Listener, controller: Controller) -> None:
    """An echo bears the value that was asked for and the client's clock."""
    controller(duration=60)
    for value in (BUSY, DONE):
        channel.put(value, never_mind)
        reading = says(listener, value)
        assert look(BUSY_PV)[0] == value
        assert look(BUSY_PV)[1] == pytest.approx(reading.stamp, abs=2e-6)
    assert listener.heard.empty()


def test_a_read_brings_the_stamp_of_its_own_answer(channel: SignalBusy, controller: Controller) -> None:
    """ophyd keeps that of the latest event where a signal is monitored; 0 while 0 moves it without one."""
    answers: queue.Queue[Reading | None] = queue.Queue()
    channel._signal.subscribe(lambda **_: None)
    epics.caput(BUSY_PV, 0, wait=True, timeout=TIMEOUT)
    channel.read(answers.put)
    reading = answers.get(timeout=TIMEOUT)
    assert reading is not None
    assert look(BUSY_PV)[1] == pytest.approx(reading.stamp, abs=2e-6)


def test_requests_block_nobody(channel: SignalBusy, listener: Listener, controller: Controller) -> None:
    """They are made in the worker's thread, whoever asks."""
    controller(duration=60)
    for value in (BUSY, DONE):
        in_thread(partial(channel.put, value, never_mind))
        says(listener, value)


def test_who_may_wait(channel: SignalBusy, worker: Worker) -> None:
    assert channel.may_wait
    said: queue.Queue[bool] = queue.Queue()
    worker.do(lambda: said.put(channel.may_wait))
    assert not said.get(timeout=TIMEOUT)


def test_a_second_put_callback_is_not_sent_while_one_is_pending(channel: SignalBusy, controller: Controller) -> None:
    controller(duration=60)
    answers: Answers = queue.Queue()
    for _ in range(2):
        put_callback(channel, BUSY, answers)
    outcome, text = answers.get(timeout=TIMEOUT)
    assert outcome is Put.REFUSED
    assert "never answered" in text
    channel.put(DONE, never_mind)
    assert answers.get(timeout=TIMEOUT) == (Put.UNTOLD, "")


@pytest.mark.parametrize("end", [SignalBusy.close, partial(SignalBusy._metadata_changed, connected=False)])
def test_a_put_callback_is_lost_with_its_channel_and_with_its_connection(
    end: Callable[[SignalBusy], None], channel: SignalBusy, worker: Worker, controller: Controller
) -> None:
    controller(duration=60)
    answers: Answers = queue.Queue()
    put_callback(channel, BUSY, answers)
    worker.wait(TIMEOUT)
    end(channel)
    assert answers.get(timeout=TIMEOUT)[0] is Put.LOST
    epics.caput(BUSY_PV, 0, timeout=TIMEOUT)
    look(BUSY_PV)
    worker.wait(TIMEOUT)
    assert answers.empty(), "it was told twice"


def test_an_illegal_value_is_told_as_it_is(channel: SignalBusy, listener: Listener, controller: Controller) -> None:
    controller(duration=60)
    channel.put(BUSY, never_mind)
    says(listener, BUSY)
    epics.caput(f"{BUSY_PV}.VAL", 2, timeout=TIMEOUT)
    says(listener, 2)
    channel.put(DONE, never_mind)
    says(listener, DONE)
    assert channel.problem is None


@pytest.mark.parametrize(("record", "what"), [("duration", "it says"), ("fault", "it has 8 states")])
def test_what_is_no_binary_is_unusable(record: str, what: str, worker: Worker, listener: Listener) -> None:
    channel = SignalBusy(EpicsSignal(f"{PREFIX}{record}", name="wrong"), worker, listener)
    kind, problem = listener.next()
    assert kind == "unusable"
    assert problem == channel.problem
    assert what in problem
    channel.close()


def test_an_array_that_is_monitored_comes_whole(worker: Worker, controller: Controller) -> None:
    """pyepics asks for no more elements than its latest event had."""
    pv = f"{PREFIX}x_array"
    epics.caput(pv, [1.0], wait=True, timeout=TIMEOUT)
    monitored = EpicsSignalRO(pv, name="monitored", auto_monitor=True)
    monitored.wait_for_connection(timeout=TIMEOUT)
    array = Waveform(pv, name="array")
    array.wait_for_connection(timeout=TIMEOUT)
    channel = SignalArray(array.wave, worker, array.number_read)
    answers: queue.Queue[Any] = queue.Queue()
    for length in (3, 11, 2, 50, 1):
        epics.caput(pv, list(range(length)), wait=True, timeout=TIMEOUT)
        channel.fetch(answers.put)
        answer = answers.get(timeout=TIMEOUT)
        assert answer.values.tolist() == list(range(length))
        assert answer.values.dtype == np.float64
        assert answer.stamp == pytest.approx(look(pv)[1], abs=2e-6)
    assert channel.size > 50
    assert channel.host is not None


# A signal's own reading


class Kelvin(EpicsSignalRO):
    def get(self, **kwargs: Any) -> Any:
        return super().get(**kwargs) + 273.15


class Stubborn(EpicsSignalRO):
    def get(self) -> Any:
        return super().get() - 1


class InMetres(EpicsSignalRO):
    def read(self) -> dict[str, Any]:
        reading: dict[str, Any] = super().read()
        reading[self.name]["value"] /= 1000
        return reading


class Sevens(Signal):
    def get(self) -> Any:
        return 7.5


class Halves(DerivedSignal):
    def inverse(self, value: float) -> float:
        return value / 2


class Readings(Device):
    """Signals that read in their own way, most of them of one PV, and some monitored."""

    kelvin = Component(Kelvin, "position")
    monitored = Component(Kelvin, "position", auto_monitor=True)
    stubborn = Component(Stubborn, "position", auto_monitor=True)
    metres = Component(InMetres, "position", auto_monitor=True)
    raw = Component(EpicsSignalRO, "position", auto_monitor=True)
    half = Component(Halves, derived_from="raw")
    soft = Component(Sevens)
    prefixed = Component(AttributeSignal, attr="prefix")
    synthetic = Component(SynSignal, func=lambda: 3)
    axis = Component(SynAxis)


def fetched(signal: Signal, worker: Worker) -> ValueReading:
    answers: queue.Queue[Any] = queue.Queue()
    SignalValue(signal, worker).fetch(answers.put)
    answer = answers.get(timeout=TIMEOUT)
    assert isinstance(answer, ValueReading), answer
    return answer


def test_a_value_is_what_the_signal_reads(worker: Worker, controller: Controller) -> None:
    """However its class reads; by EPICS it is asked for at once, whatever a monitor has brought by then."""
    device = Readings(PREFIX, name="device")
    device.wait_for_connection(timeout=TIMEOUT)
    device.axis.set(2.0).wait(TIMEOUT)
    soft = {"soft": 7.5, "prefixed": PREFIX, "synthetic": 3, "axis.readback": 2.0, "axis.setpoint": 2.0}
    for attr, value in soft.items():
        signal = getattr(device, attr)
        assert fetched(signal, worker) == ValueReading(value, signal.timestamp)
        assert signal.read()[signal.name]["value"] == value
    for position in range(10):
        assert epics.caput(f"{PREFIX}position", position, wait=True, timeout=TIMEOUT) == 1
        by_pv = {"kelvin": position + 273.15, "monitored": position + 273.15, "stubborn": position - 1}
        by_pv |= {"metres": position / 1000, "half": position / 2, "raw": position}
        said = {attr: fetched(getattr(device, attr), worker) for attr in by_pv}
        assert {attr: reading.value for attr, reading in said.items()} == by_pv
        stamp = look(f"{PREFIX}position")[1]
        assert [said[attr].stamp for attr in ("kelvin", "raw")] == pytest.approx([stamp] * 2, abs=2e-6)


def test_a_signal_that_is_asked_afresh_is_monitored_as_before(worker: Worker, controller: Controller) -> None:
    signal = Kelvin(f"{PREFIX}position", name="kelvin", auto_monitor=True)
    signal.wait_for_connection(timeout=TIMEOUT)
    heard: queue.Queue[float] = queue.Queue()
    signal.subscribe(lambda value, **_: heard.put(value), run=False)
    for position in (81.0, 82.0):
        epics.caput(f"{PREFIX}position", position, wait=True, timeout=TIMEOUT)
        while heard.get(timeout=TIMEOUT) != position:
            pass
        assert fetched(signal, worker).value == position + 273.15
        assert signal.get() == position + 273.15
    assert signal._auto_monitor


def test_a_signal_keeps_its_own_timeouts(worker: Worker, controller: Controller) -> None:
    """Also where it is monitored, and another one reads its PV."""
    signal = EpicsSignalRO(f"{PREFIX}position", name="slow", auto_monitor=True, timeout=7.5, connection_timeout=8.5)
    signal.wait_for_connection(timeout=TIMEOUT)
    reader = Reader(signal)
    reader.get()
    assert reader._afresh is not None
    assert (reader._afresh.timeout, reader._afresh.connection_timeout) == (7.5, 8.5)


def test_an_array_is_what_the_signal_reads(worker: Worker, controller: Controller) -> None:
    """A scaled one of integers is none of integers, and its length is its own."""

    class Scaled(EpicsSignalRO):
        def get(self, **kwargs: Any) -> Any:
            return 0.5 * np.asarray(super().get(**kwargs))[:2]

    class Scaling(Waveform):
        wave = Component(Scaled, "")

    assert epics.caput(f"{PREFIX}ftvl_long", [1, 2, 3], wait=True, timeout=TIMEOUT) == 1
    waveform = Scaling(f"{PREFIX}ftvl_long", name="scaling")
    waveform.wait_for_connection(timeout=TIMEOUT)
    array = SignalArray(waveform.wave, worker, waveform.number_read)
    answers: queue.Queue[Any] = queue.Queue()
    array.fetch(answers.put)
    answer = answers.get(timeout=TIMEOUT)
    assert answer.values.tolist() == [0.5, 1.0]
    assert answer.stamp == pytest.approx(look(f"{PREFIX}ftvl_long")[1], abs=2e-6)
    assert array.dtype == np.float64
