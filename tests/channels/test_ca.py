"""The channels' own behaviour, against the embedded IOC."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import epics
import numpy as np
import pytest
from busy_callback_flyer.channel import ArrayChannel, ArrayReading, BusyChannel
from busy_callback_flyer.flight import BUSY, DONE, PUT_DISCONNECTED, PUT_NORMAL, Reading
from busy_callback_flyer.libca import status_text

from ..conftest import PREFIX, look

TIMEOUT = 20.0
BUSY_PV = f"{PREFIX}mybusy"


class Listener:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard: queue.Queue[tuple[str, Any]] = queue.Queue()

    def connected(self, reading: Reading) -> None:
        self.heard.put(("connected", reading))

    def connection_lost(self) -> None:
        self.heard.put(("lost", None))

    def record_says(self, reading: Reading) -> None:
        self.heard.put(("says", reading))

    def unusable(self, problem: str) -> None:
        self.heard.put(("unusable", problem))

    def next(self) -> tuple[str, Any]:
        return self.heard.get(timeout=TIMEOUT)


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def channel(listener: Listener, controller: Callable[..., None]) -> Iterator[BusyChannel]:
    epics.caput(BUSY_PV, 0, wait=True, timeout=TIMEOUT)
    channel = BusyChannel(BUSY_PV, listener)
    assert channel.wait_ready(TIMEOUT)
    yield channel
    channel.close()


def in_thread(action: Callable[[], None]) -> None:
    """Run in a thread that Channel Access does not know."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert errors == []


def test_subscription_announces_itself_apart_from_events(channel: BusyChannel, listener: Listener) -> None:
    kind, reading = listener.next()
    assert kind == "connected"
    assert reading.value == DONE
    assert channel.reading == reading
    answered = threading.Event()
    channel.read(lambda _: answered.set())
    assert answered.wait(TIMEOUT)
    assert listener.heard.empty(), "it was told twice"


def test_a_read_asks_the_record(channel: BusyChannel, listener: Listener) -> None:
    """0 while 0 moves the stamp and posts nothing: what was heard last is not what it says."""
    listener.next()
    epics.caput(BUSY_PV, DONE, wait=True, timeout=TIMEOUT)
    readings: queue.Queue[Reading | None] = queue.Queue()
    channel.read(readings.put)
    answer = readings.get(timeout=TIMEOUT)
    assert answer is not None
    assert answer.stamp == pytest.approx(look(BUSY_PV)[1], abs=2e-6)


def test_flight_by_hand(channel: BusyChannel, listener: Listener, controller: Callable[..., None]) -> None:
    controller(duration=0.05)
    listener.next()
    answers: queue.Queue[tuple[int | None, str]] = queue.Queue()
    channel.put_callback(BUSY, lambda status, text: answers.put((status, text)))
    assert channel._putter.pending is not None
    kind, busy = listener.next()
    assert (kind, busy.value) == ("says", BUSY)
    kind, done = listener.next()
    assert (kind, done.value) == ("says", DONE)
    assert answers.get(timeout=TIMEOUT) == (PUT_NORMAL, "")
    assert channel._putter.pending is None
    assert busy.stamp < done.stamp
    # pyepics rounds stamps to microseconds
    assert look(BUSY_PV)[1] == pytest.approx(done.stamp, abs=2e-6)


def test_requests_from_a_thread_that_channel_access_does_not_know(
    channel: BusyChannel, listener: Listener, controller: Callable[..., None]
) -> None:
    """There, a bare libca says yes and sends nothing."""
    controller(duration=60)
    listener.next()
    readings: queue.Queue[Reading | None] = queue.Queue()
    in_thread(lambda: channel.put_callback(BUSY, lambda status, text: None))
    assert listener.next()[1].value == BUSY
    in_thread(lambda: channel.read(readings.put))
    answer = readings.get(timeout=TIMEOUT)
    assert answer is not None
    assert answer.value == BUSY
    in_thread(lambda: channel.put(DONE))
    assert listener.next()[1].value == DONE


def test_requests_from_a_thread_of_another_context(channel: BusyChannel, listener: Listener) -> None:
    listener.next()
    readings: queue.Queue[Reading | None] = queue.Queue()

    def elsewhere() -> None:
        epics.ca.create_context()
        before = epics.ca.current_context()
        channel.read(readings.put)
        assert epics.ca.current_context() == before, "the thread's own context is given back"
        epics.ca.context_destroy()

    in_thread(elsewhere)
    assert readings.get(timeout=TIMEOUT) is not None


def test_request_made_inside_a_callback_is_sent(channel: BusyChannel, listener: Listener) -> None:
    """There, libca waits for somebody's flush."""
    readings: queue.Queue[Reading | None] = queue.Queue()
    channel.read(lambda first: channel.read(readings.put))
    assert readings.get(timeout=TIMEOUT) is not None


def test_exception_in_a_handler_is_logged(channel: BusyChannel, caplog: pytest.LogCaptureFixture) -> None:
    def fail(reading: Reading | None) -> None:
        raise RuntimeError("this handler is broken")

    readings: queue.Queue[Reading | None] = queue.Queue()
    channel.read(fail)
    channel.read(readings.put)
    assert readings.get(timeout=TIMEOUT) is not None
    assert "this handler is broken" in caplog.text


def test_who_waits_for_an_answer_of_a_closed_channel_learns_it(
    channel: BusyChannel, listener: Listener, controller: Callable[..., None]
) -> None:
    controller(duration=60)
    listener.next()
    puts: queue.Queue[tuple[int | None, str]] = queue.Queue()
    readings: queue.Queue[Reading | None] = queue.Queue()
    channel.put_callback(BUSY, lambda status, text: puts.put((status, text)))
    assert listener.next()[1].value == BUSY
    channel.close()
    status, text = puts.get(timeout=TIMEOUT)
    assert status == PUT_DISCONNECTED
    assert text
    channel.put_callback(BUSY, lambda status, text: puts.put((status, text)))
    assert puts.get(timeout=TIMEOUT)[0] == PUT_DISCONNECTED
    channel.read(readings.put)
    assert readings.get(timeout=TIMEOUT) is None
    channel.put(DONE)
    assert look(BUSY_PV)[0] == BUSY
    epics.caput(BUSY_PV, DONE)


def test_a_put_that_is_taken_back_starts_no_flight(
    channel: BusyChannel, listener: Listener, controller: Callable[..., None]
) -> None:
    """It is queued in the IOC behind another's; the Done that ends that one would start it."""
    controller(duration=60)
    other = BusyChannel(BUSY_PV, Listener())
    assert other.wait_ready(TIMEOUT)
    listener.next()
    other.put_callback(BUSY, lambda status, text: None)
    assert listener.next()[1].value == BUSY
    answers: queue.Queue[int | None] = queue.Queue()
    channel.put_callback(BUSY, lambda status, text: answers.put(status))
    channel.forget_put()
    assert answers.get(timeout=TIMEOUT) == PUT_DISCONNECTED
    channel.put(DONE)
    while listener.next()[1].value == BUSY:
        pass  # it is connected anew, before or after that Done
    assert channel.wait_ready(TIMEOUT)
    assert look(BUSY_PV)[0] == DONE
    channel.put_callback(BUSY, lambda status, text: answers.put(status))
    assert listener.next()[1].value == BUSY
    channel.put(DONE)
    assert answers.get(timeout=TIMEOUT) == PUT_NORMAL
    other.close()


def test_closed_channel_is_silent(channel: BusyChannel, listener: Listener) -> None:
    listener.next()
    channel.close()
    channel.close()
    epics.caput(BUSY_PV, 1, wait=True, timeout=TIMEOUT)
    assert listener.heard.empty()


def test_two_channels_to_one_record(channel: BusyChannel, listener: Listener) -> None:
    other = Listener()
    second = BusyChannel(BUSY_PV, other)
    assert listener.next()[0] == other.next()[0] == "connected"
    channel.put(BUSY)
    assert listener.next()[1].value == other.next()[1].value == BUSY
    second.close()
    assert listener.next()[1].value == DONE, "the first still hears"


@pytest.mark.parametrize(("record", "what"), [("duration", "it is a DOUBLE"), ("fault", "it has 8 states")])
def test_what_is_no_binary_is_unusable(record: str, what: str, listener: Listener) -> None:
    channel = BusyChannel(f"{PREFIX}{record}", listener)
    kind, problem = listener.next()
    assert kind == "unusable"
    assert problem == channel.problem
    assert what in problem
    channel.close()


def test_array_is_a_snapshot_of_nord_elements(controller: Callable[..., None]) -> None:
    channel = ArrayChannel(f"{PREFIX}x_array")
    assert channel.wait_ready(TIMEOUT)
    assert (channel.dtype, channel.size) == (np.dtype(np.float64), 256)
    answers: queue.Queue[ArrayReading | str] = queue.Queue()
    epics.caput(f"{PREFIX}x_array", [1.0, 2.0, 3.0], wait=True, timeout=TIMEOUT)
    channel.fetch(answers.put)
    answer = answers.get(timeout=TIMEOUT)
    assert isinstance(answer, ArrayReading)
    epics.caput(f"{PREFIX}x_array", [4.0], wait=True, timeout=TIMEOUT)
    assert answer.values.tolist() == [1.0, 2.0, 3.0]
    assert answer.stamp < look(f"{PREFIX}x_array")[1]
    channel.close()


def test_array_that_is_not_there_says_so() -> None:
    channel = ArrayChannel(f"{PREFIX}nowhere")
    answers: queue.Queue[ArrayReading | str] = queue.Queue()
    channel.fetch(answers.put)
    assert answers.get(timeout=TIMEOUT) == "it is not connected"
    channel.close()


def test_status_text() -> None:
    assert "Normal" in status_text(PUT_NORMAL)
    assert "disconnect" in status_text(192)
