"""The polling channel: a scripted signal answers its polls, one by one."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import epics
import pytest
from ophyd import EpicsSignal, Signal

from busy_callback_flyer.channels.polling import PollingBusy
from busy_callback_flyer.engine.ports import BUSY, DONE, BusyChannel, Put, Reading

from ..conftest import PREFIX, look
from .listening import TIMEOUT, Listener, never_mind

BUSY_PV = f"{PREFIX}mybusy"

Controller = Callable[..., None]


class Scripted(Signal):
    """Each of its reads waits for the test's answer."""

    def __init__(self, **kwargs: Any) -> None:
        self.began: queue.Queue[None] = queue.Queue()
        self.answers: queue.Queue[tuple[Any, float] | Exception] = queue.Queue()
        self.puts: list[int] = []
        self.put_raises: Exception | None = None
        super().__init__(**kwargs)

    def get(self, **_: Any) -> Any:
        self.began.put(None)
        answer = self.answers.get(timeout=TIMEOUT)
        if isinstance(answer, Exception):
            raise answer
        value, self._metadata["timestamp"] = answer
        return value

    def put(self, value: int, **_: Any) -> None:
        self.puts.append(value)
        if self.put_raises is not None:
            raise self.put_raises

    def connect(self, up: bool) -> None:
        self._metadata["connected"] = up

    def poll(self, value: Any = DONE, stamp: float = 1.0) -> None:
        """Answer the poll under way, or the next."""
        self.wait_begun()
        self.answers.put((value, stamp))

    def fail(self) -> None:
        self.wait_begun()
        self.answers.put(TimeoutError("no answer"))

    def wait_begun(self) -> None:
        self.began.get(timeout=TIMEOUT)


@pytest.fixture
def signal() -> Scripted:
    return Scripted(name="state")


@pytest.fixture
def listener() -> Listener:
    return Listener()


class Flight:
    """As much of a flight as the channel sees."""

    over = False

    def flying(self) -> bool:
        return not self.over


@pytest.fixture
def flight() -> Flight:
    return Flight()


@pytest.fixture
def channel(signal: Scripted, listener: Listener) -> Iterator[PollingBusy]:
    channel = PollingBusy(signal, listener, lambda: 0.0)
    yield channel
    channel.close()
    signal.answers.put(TimeoutError("the test is over"))


def test_it_satisfies_the_port(channel: PollingBusy) -> None:
    busy: BusyChannel = channel
    assert busy.pv == "state"
    assert busy.ready
    assert busy.wait_ready(0.0)
    assert busy.host is busy.problem is None
    assert busy.reading is None
    assert not busy.needs_fence
    assert not busy.needs_ground_read


def test_polls_as_long_as_a_flight_lasts(channel: PollingBusy, signal: Scripted, listener: Listener) -> None:
    for stamp in (1.0, 2.0):
        flight = Flight()
        channel.begin(flight.flying)
        assert channel.reading is None
        signal.poll(DONE, stamp)
        assert listener.next() == ("connected", Reading(DONE, stamp))
        signal.wait_begun()
        assert channel.reading == Reading(DONE, stamp)
        signal.answers.put((BUSY, stamp))
        assert listener.next() == ("read", Reading(BUSY, stamp))
        signal.wait_begun()
        flight.over = True
        signal.answers.put((DONE, stamp))  # this poll began in the flight and ends after it
        channel._worker.wait(TIMEOUT)
        assert listener.heard.empty()
        assert signal.began.empty()
        assert channel.reading is None


def test_a_flight_begins_with_a_fresh_poll(channel: PollingBusy, signal: Scripted, listener: Listener) -> None:
    channel.begin(Flight().flying)
    signal.wait_begun()
    channel.begin(Flight().flying)
    signal.answers.put((BUSY, 1.0))  # of the earlier flight
    signal.poll(DONE, 2.0)
    assert listener.next() == ("connected", Reading(DONE, 2.0))


def test_a_loss_is_told_once(channel: PollingBusy, signal: Scripted, listener: Listener) -> None:
    channel.begin(Flight().flying)
    signal.fail()  # it was never there
    signal.poll()
    assert listener.next()[0] == "connected"
    signal.fail()
    signal.fail()
    signal.poll(BUSY, 2.0)
    assert [listener.next() for _ in range(2)] == [("lost", None), ("connected", Reading(BUSY, 2.0))]


def test_a_signal_that_is_not_connected_is_not_waited_for(signal: Scripted, listener: Listener) -> None:
    signal.connect(False)
    polled: queue.Queue[None] = queue.Queue()

    def interval() -> float:
        polled.put(None)
        return 0.0

    channel = PollingBusy(signal, listener, interval)
    channel.begin(Flight().flying)
    for _ in range(2):
        polled.get(timeout=TIMEOUT)
    assert listener.heard.empty()
    assert not channel.ready
    answers: list[tuple[Put, str]] = []
    problems: list[str | None] = []
    channel.put(DONE, problems.append)
    channel.put_callback(BUSY, lambda *answer: answers.append(answer))
    assert answers == [(Put.LOST, "state is not connected")]
    assert problems == ["state is not connected"]
    assert signal.puts == []
    channel.close()


def test_reads_are_answered_by_a_poll_that_began_later(
    channel: PollingBusy, signal: Scripted, listener: Listener
) -> None:
    channel.begin(Flight().flying)
    signal.poll()
    assert listener.next()[0] == "connected"
    signal.wait_begun()
    answers: queue.Queue[Reading | None] = queue.Queue()
    channel.read(answers.put)
    channel.read(answers.put)
    signal.answers.put((BUSY, 2.0))  # it began before, and counts for nothing
    signal.wait_begun()
    assert answers.empty()
    signal.answers.put((DONE, 3.0))
    assert [answers.get(timeout=TIMEOUT) for _ in range(2)] == [Reading(DONE, 3.0)] * 2
    signal.poll(DONE, 4.0)
    assert listener.next() == ("read", Reading(DONE, 4.0))


def test_a_read_in_a_loss_is_answered(channel: PollingBusy, signal: Scripted, listener: Listener) -> None:
    channel.begin(Flight().flying)
    signal.poll()
    assert listener.next()[0] == "connected"
    signal.wait_begun()
    answers: queue.Queue[Reading | None] = queue.Queue()
    channel.read(answers.put)
    signal.answers.put(TimeoutError("no answer"))
    assert listener.next()[0] == "lost"
    signal.fail()
    assert answers.get(timeout=TIMEOUT) is None


@pytest.mark.parametrize(
    "put",
    [
        lambda channel, value: channel.put(value, never_mind),
        lambda channel, value: channel.put_callback(value, lambda *_: None),
    ],
    ids=["put", "put-callback"],
)
def test_a_poll_that_began_before_a_put_is_not_later(
    put: Callable[[PollingBusy, int], None], channel: PollingBusy, signal: Scripted, listener: Listener
) -> None:
    channel.begin(Flight().flying)
    signal.poll()
    assert listener.next()[0] == "connected"
    signal.wait_begun()
    put(channel, BUSY)
    signal.answers.put((DONE, 2.0))
    signal.poll(BUSY, 3.0)
    assert listener.next() == ("read", Reading(BUSY, 3.0))
    assert signal.puts == [BUSY]


def test_reads_between_flights(channel: PollingBusy, signal: Scripted, listener: Listener) -> None:
    answers: queue.Queue[Reading | None] = queue.Queue()
    channel.read(answers.put)
    signal.poll(DONE, 5.0)
    assert answers.get(timeout=TIMEOUT) == Reading(DONE, 5.0)
    channel.read(answers.put)
    signal.fail()
    assert answers.get(timeout=TIMEOUT) is None
    assert channel.reading is None
    assert listener.heard.empty()


def test_a_read_that_the_flight_leaves_is_answered(
    channel: PollingBusy, signal: Scripted, listener: Listener, flight: Flight
) -> None:
    channel.begin(flight.flying)
    signal.wait_begun()
    answers: queue.Queue[Reading | None] = queue.Queue()
    channel.read(answers.put)
    flight.over = True
    signal.answers.put((BUSY, 1.0))
    signal.poll(DONE, 2.0)
    assert answers.get(timeout=TIMEOUT) == Reading(DONE, 2.0)
    assert listener.heard.empty()


def test_a_read_after_the_flight_does_not_wait_for_the_next_poll(
    signal: Scripted, listener: Listener, flight: Flight
) -> None:
    waiting = threading.Event()

    def interval() -> float:
        waiting.set()
        return 1e6

    channel = PollingBusy(signal, listener, interval)
    channel.begin(flight.flying)
    signal.poll()
    assert waiting.wait(TIMEOUT)
    flight.over = True
    answers: queue.Queue[Reading | None] = queue.Queue()
    channel.read(answers.put)
    signal.poll(DONE, 2.0)
    assert answers.get(timeout=TIMEOUT) == Reading(DONE, 2.0)
    channel.close()


def test_reads_of_a_closed_channel(channel: PollingBusy, signal: Scripted) -> None:
    channel.begin(Flight().flying)
    signal.wait_begun()
    answers: list[Reading | None] = []
    channel.read(answers.append)
    channel.close()
    channel.read(answers.append)
    channel.begin(Flight().flying)
    assert answers == [None, None]


def test_puts_are_sent_at_once(channel: PollingBusy, signal: Scripted) -> None:
    answers: list[tuple[Put, str]] = []
    problems: list[str | None] = []
    channel.put_callback(BUSY, lambda *answer: answers.append(answer))
    channel.put(DONE, never_mind)
    signal.put_raises = ValueError("not so")
    channel.put_callback(BUSY, lambda *answer: answers.append(answer))
    channel.put(DONE, problems.append)
    assert signal.puts == [BUSY, DONE] * 2
    assert answers == [(Put.SENT, ""), (Put.REFUSED, "not so")]
    assert problems == ["not so"]


def test_what_is_no_busy_record(channel: PollingBusy, signal: Scripted, listener: Listener) -> None:
    channel.begin(Flight().flying)
    signal.poll("Maybe")
    kind, problem = listener.next()
    assert kind == "unusable"
    assert problem == channel.problem
    assert "it says 'Maybe'" in problem


@pytest.mark.parametrize(("record", "states"), [("duration", 0), ("fault", 8)])
def test_what_is_no_binary_is_known_before_a_poll(record: str, states: int, listener: Listener) -> None:
    channel = PollingBusy(EpicsSignal(f"{PREFIX}{record}", name="wrong"), listener, lambda: 0.05)
    assert channel.wait_ready(TIMEOUT)
    assert f"{PREFIX}{record} is no busy record: it has {states} states" in str(channel.problem)
    channel.close()


def test_polls_a_record(listener: Listener, controller: Controller) -> None:
    controller(duration=60)
    epics.caput(BUSY_PV, 0, wait=True, timeout=TIMEOUT)
    channel = PollingBusy(EpicsSignal(BUSY_PV, name="state", string=True), listener, lambda: 0.001)
    assert channel.wait_ready(TIMEOUT)
    assert channel.problem is None
    assert channel.host is not None
    channel.begin(Flight().flying)
    kind, reading = listener.next()
    assert (kind, reading.value) == ("connected", DONE)
    for value in (BUSY, DONE):
        answers: queue.Queue[Any] = queue.Queue()
        channel.put_callback(value, lambda *answer, answers=answers: answers.put(answer))
        assert answers.get(timeout=TIMEOUT) == (Put.SENT, "")
        channel.read(answers.put)
        reading = answers.get(timeout=TIMEOUT)
        assert reading.value == value
        assert look(BUSY_PV)[1] == pytest.approx(reading.stamp, abs=2e-6)
    channel.close()


AT_EXIT = """
import threading
import weakref

from ophyd import Signal
from busy_callback_flyer.channels.polling import PollingBusy

class Listener:
    polled = threading.Event()
    def connected(self, reading): pass
    def record_read(self, reading): self.polled.set()

signal = Signal(name="state", value=0)
weakref.finalize(signal, lambda: print([thread.name for thread in threading.enumerate() if "polls" in thread.name]))
channel = PollingBusy(signal, Listener(), lambda: 0.0)
channel.begin(lambda: True)
assert Listener.polled.wait(20)
"""


def test_nobody_polls_when_ophyd_releases_its_pvs() -> None:
    """ophyd does so by a finalizer of each signal when the interpreter exits, and pyepics crashes in a read."""
    done = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
