"""The channels' own behaviour, against the embedded IOC."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

import epics
import numpy as np
import pytest

from busy_callback_flyer.channels.ca import CAArray, CABusy
from busy_callback_flyer.channels.ca.library import DISCONNECTED, NORMAL, status_text
from busy_callback_flyer.engine.ports import BUSY, DONE, ArrayReading, Put, Reading

from ..conftest import PREFIX, look
from .listening import Listener, in_thread, never_mind

TIMEOUT = 20.0
BUSY_PV = f"{PREFIX}mybusy"


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def channel(listener: Listener, controller: Callable[..., None]) -> Iterator[CABusy]:
    epics.caput(BUSY_PV, 0, wait=True, timeout=TIMEOUT)
    channel = CABusy(BUSY_PV, listener)
    assert channel.wait_ready(TIMEOUT)
    yield channel
    channel.close()


def test_subscription_announces_itself_apart_from_events(channel: CABusy, listener: Listener) -> None:
    kind, reading = listener.next()
    assert kind == "connected"
    assert reading.value == DONE
    assert channel.reading == reading
    answered = threading.Event()
    channel.read(lambda _: answered.set())
    assert answered.wait(TIMEOUT)
    assert listener.heard.empty(), "it was told twice"


def test_a_read_asks_the_record(channel: CABusy, listener: Listener) -> None:
    """0 while 0 moves the stamp and posts nothing: what was heard last is not what it says."""
    listener.next()
    epics.caput(BUSY_PV, DONE, wait=True, timeout=TIMEOUT)
    readings: queue.Queue[Reading | None] = queue.Queue()
    channel.read(readings.put)
    answer = readings.get(timeout=TIMEOUT)
    assert answer is not None
    assert answer.stamp == pytest.approx(look(BUSY_PV)[1], abs=2e-6)


def test_flight_by_hand(channel: CABusy, listener: Listener, controller: Callable[..., None]) -> None:
    controller(duration=0.05)
    listener.next()
    answers: queue.Queue[tuple[Put, str]] = queue.Queue()
    channel.put_callback(BUSY, lambda put, text: answers.put((put, text)))
    kind, busy = listener.next()
    assert (kind, busy.value) == ("says", BUSY)
    kind, done = listener.next()
    assert (kind, done.value) == ("says", DONE)
    assert answers.get(timeout=TIMEOUT) == (Put.SERVED, "")
    assert busy.stamp < done.stamp
    # pyepics rounds stamps to microseconds
    assert look(BUSY_PV)[1] == pytest.approx(done.stamp, abs=2e-6)


def test_requests_from_a_thread_that_channel_access_does_not_know(
    channel: CABusy, listener: Listener, controller: Callable[..., None]
) -> None:
    """There, a bare libca says yes and sends nothing."""
    controller(duration=60)
    listener.next()
    readings: queue.Queue[Reading | None] = queue.Queue()
    in_thread(lambda: channel.put_callback(BUSY, lambda put, text: None))
    assert listener.next()[1].value == BUSY
    in_thread(lambda: channel.read(readings.put))
    answer = readings.get(timeout=TIMEOUT)
    assert answer is not None
    assert answer.value == BUSY
    in_thread(lambda: channel.put(DONE, never_mind))
    assert listener.next()[1].value == DONE


def test_requests_from_a_thread_of_another_context(channel: CABusy, listener: Listener) -> None:
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


def test_request_made_inside_a_callback_is_sent(channel: CABusy, listener: Listener) -> None:
    """There, libca waits for somebody's flush."""
    readings: queue.Queue[Reading | None] = queue.Queue()
    channel.read(lambda first: channel.read(readings.put))
    assert readings.get(timeout=TIMEOUT) is not None


def test_exception_in_a_handler_is_logged(channel: CABusy, caplog: pytest.LogCaptureFixture) -> None:
    def fail(reading: Reading | None) -> None:
        raise RuntimeError("this handler is broken")

    readings: queue.Queue[Reading | None] = queue.Queue()
    channel.read(fail)
    channel.read(readings.put)
    assert readings.get(timeout=TIMEOUT) is not None
    assert "this handler is broken" in caplog.text


def test_who_waits_for_an_answer_of_a_closed_channel_learns_it(
    channel: CABusy, listener: Listener, controller: Callable[..., None]
) -> None:
    controller(duration=60)
    listener.next()
    puts: queue.Queue[tuple[Put, str]] = queue.Queue()
    readings: queue.Queue[Reading | None] = queue.Queue()
    channel.put_callback(BUSY, lambda put, text: puts.put((put, text)))
    assert listener.next()[1].value == BUSY
    channel.close()
    put, text = puts.get(timeout=TIMEOUT)
    assert put == Put.LOST
    assert text
    channel.put_callback(BUSY, lambda put, text: puts.put((put, text)))
    assert puts.get(timeout=TIMEOUT)[0] == Put.LOST
    channel.read(readings.put)
    assert readings.get(timeout=TIMEOUT) is None
    channel.put(DONE, never_mind)
    assert look(BUSY_PV)[0] == BUSY
    epics.caput(BUSY_PV, DONE)


def test_a_put_that_is_taken_back_starts_no_flight(
    channel: CABusy, listener: Listener, controller: Callable[..., None]
) -> None:
    """It is queued in the IOC behind another's; the Done that ends that one would start it."""
    controller(duration=60)
    other = CABusy(BUSY_PV, Listener())
    assert other.wait_ready(TIMEOUT)
    listener.next()
    other.put_callback(BUSY, lambda put, text: None)
    assert listener.next()[1].value == BUSY
    answers: queue.Queue[Put] = queue.Queue()
    channel.put_callback(BUSY, lambda put, text: answers.put(put))
    taken_back: queue.Queue[threading.Thread] = queue.Queue()
    channel.take_back(lambda: taken_back.put(threading.current_thread()))
    channel.put(DONE, never_mind)
    assert answers.get(timeout=TIMEOUT) == Put.LOST
    assert taken_back.get(timeout=TIMEOUT) is not threading.current_thread(), "it had to wait for libca"
    while listener.next()[1].value == BUSY:
        pass  # it is connected anew, before or after that Done
    assert channel.wait_ready(TIMEOUT)
    assert look(BUSY_PV)[0] == DONE
    channel.put_callback(BUSY, lambda put, text: answers.put(put))
    assert listener.next()[1].value == BUSY
    channel.put(DONE, never_mind)
    assert answers.get(timeout=TIMEOUT) == Put.SERVED
    other.close()


def test_where_no_put_is_pending_there_is_nothing_to_wait_for(channel: CABusy) -> None:
    called: list[threading.Thread] = []
    channel.take_back(lambda: called.append(threading.current_thread()))
    assert called == [threading.current_thread()]
    assert channel.ready


def test_closed_channel_is_silent(channel: CABusy, listener: Listener) -> None:
    listener.next()
    channel.close()
    channel.close()
    epics.caput(BUSY_PV, 1, wait=True, timeout=TIMEOUT)
    assert listener.heard.empty()


def test_two_channels_to_one_record(channel: CABusy, listener: Listener) -> None:
    other = Listener()
    second = CABusy(BUSY_PV, other)
    assert listener.next()[0] == other.next()[0] == "connected"
    channel.put(BUSY, never_mind)
    assert listener.next()[1].value == other.next()[1].value == BUSY
    second.close()
    assert listener.next()[1].value == DONE, "the first still hears"


@pytest.mark.parametrize(("record", "what"), [("duration", "it is a DOUBLE"), ("fault", "it has 8 states")])
def test_what_is_no_binary_is_unusable(record: str, what: str, listener: Listener) -> None:
    channel = CABusy(f"{PREFIX}{record}", listener)
    kind, problem = listener.next()
    assert kind == "unusable"
    assert problem == channel.problem
    assert what in problem
    channel.close()


def test_array_is_a_snapshot_of_nord_elements(controller: Callable[..., None]) -> None:
    channel = CAArray(f"{PREFIX}x_array")
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
    channel = CAArray(f"{PREFIX}nowhere")
    answers: queue.Queue[ArrayReading | str] = queue.Queue()
    channel.fetch(answers.put)
    assert answers.get(timeout=TIMEOUT) == "it is not connected"
    channel.close()


def test_status_text() -> None:
    assert "Normal" in status_text(NORMAL)
    assert "disconnect" in status_text(DISCONNECTED)
