"""Integers that are 0 or 1 in place of a busy record, such as sscan's EXSC: each way to one."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from typing import Any

import epics
import pytest
from ophyd import EpicsSignal

from busy_callback_flyer.channels.ca import CABusy
from busy_callback_flyer.channels.polling import PollingBusy
from busy_callback_flyer.channels.signal_reader import join_channel_access
from busy_callback_flyer.channels.signals import SignalBusy
from busy_callback_flyer.engine.ports import BUSY, DONE, Put, Reading
from busy_callback_flyer.engine.worker import Worker

from ..conftest import PREFIX
from .listening import TIMEOUT, Listener, never_mind

TYPES = ["short", "long", "char"]

Open = Callable[[str], Any]


def put(record: str, value: float) -> None:
    assert epics.caput(f"{PREFIX}{record}", value, wait=True, timeout=TIMEOUT) == 1


def signal(record: str) -> EpicsSignal:
    return EpicsSignal(f"{PREFIX}{record}", name="state", string=True)  # as BusyRecord has it


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture(params=["direct", "ophyd"])
def channel_to(request: pytest.FixtureRequest, listener: Listener) -> Iterator[Open]:
    """Opens a channel that listens."""
    worker = Worker("test", join_channel_access)
    opened: list[Any] = []

    def open_channel(record: str) -> Any:
        direct = request.param == "direct"
        opened.append(CABusy(f"{PREFIX}{record}", listener) if direct else SignalBusy(signal(record), worker, listener))
        return opened[-1]

    yield open_channel
    for channel in opened:
        channel.close()
    worker.stop(TIMEOUT)


def hear(listener: Listener, value: int, *, kind: str = "says") -> None:
    """Wait for this value; what was put before may be told late."""
    said, reading = listener.next()
    while (said, reading.value) != (kind, value):
        said, reading = listener.next()


@pytest.mark.parametrize("kind", TYPES)
def test_an_integer_serves(channel_to: Open, listener: Listener, kind: str) -> None:
    record = f"flag_{kind}"
    put(record, DONE)
    channel = channel_to(record)
    what, reading = listener.next()
    assert (what, reading.value) == ("connected", DONE)
    assert channel.problem is None
    answers: queue.Queue[Put] = queue.Queue()
    channel.put_callback(BUSY, lambda outcome, text: answers.put(outcome))
    hear(listener, BUSY)
    assert answers.get(timeout=TIMEOUT) in (Put.SERVED, Put.UNTOLD)
    readings: queue.Queue[Reading | None] = queue.Queue()
    channel.read(readings.put)
    answer = readings.get(timeout=TIMEOUT)
    assert answer is not None
    assert answer.value == BUSY
    channel.put(DONE, never_mind)
    hear(listener, DONE)


@pytest.mark.parametrize(
    ("kind", "value"),
    [("short", 2), ("short", -1), ("short", 256), ("long", -1), ("long", 65536), ("long", 65537), ("char", 255)],
)
def test_another_value_is_told_as_it_is(channel_to: Open, listener: Listener, kind: str, value: int) -> None:
    """As 16 bits without sign, 65536 would be Done, and 65537 Busy."""
    record = f"flag_{kind}"
    put(record, BUSY)
    channel_to(record)
    assert listener.next()[1].value == BUSY
    put(record, value)
    hear(listener, value)
    put(record, DONE)
    hear(listener, DONE)


def test_what_says_something_else_at_first_is_none_until_it_says_0_or_1(channel_to: Open, listener: Listener) -> None:
    """A setting is not to be written Done to."""
    put("flag_long", 11)
    channel = channel_to("flag_long")
    kind, problem = listener.next()
    assert kind == "unusable"
    assert problem == channel.problem
    assert f"{PREFIX}flag_long is no busy record: it says 11" in problem
    assert "an integer that is 0 or 1" in problem
    put("flag_long", DONE)
    while kind == "unusable":  # each of its events
        kind, reading = listener.next()
    assert (kind, reading.value) == ("connected", DONE)
    assert channel.problem is None
    put("flag_long", 11)
    hear(listener, 11)  # it is known by now


@pytest.mark.parametrize("record", ["ftvl_long", "ftvl_char", "flag_float"])
def test_neither_arrays_nor_floats_serve(channel_to: Open, listener: Listener, record: str) -> None:
    channel = channel_to(record)
    kind, problem = listener.next()
    assert kind == "unusable"
    assert problem == channel.problem
    assert f"{PREFIX}{record} is no busy record" in problem


@pytest.mark.parametrize("kind", TYPES)
def test_an_integer_is_polled(listener: Listener, kind: str) -> None:
    record = f"flag_{kind}"
    put(record, DONE)
    channel = PollingBusy(signal(record), listener, lambda: 0.001)
    assert channel.wait_ready(TIMEOUT)
    assert channel.problem is None
    channel.begin(lambda: True)
    assert listener.next()[1].value == DONE
    answers: queue.Queue[Put] = queue.Queue()
    channel.put_callback(BUSY, lambda outcome, text: answers.put(outcome))
    assert answers.get(timeout=TIMEOUT) is Put.SENT
    hear(listener, BUSY, kind="read")
    put(record, 2)
    hear(listener, 2, kind="read")
    channel.close()


@pytest.mark.parametrize("record", ["ftvl_long", "flag_float"])
def test_what_is_no_flag_is_known_before_a_poll(listener: Listener, record: str) -> None:
    channel = PollingBusy(signal(record), listener, lambda: 0.05)
    assert channel.wait_ready(TIMEOUT)
    assert f"{PREFIX}{record} is no busy record" in str(channel.problem)
    channel.close()
