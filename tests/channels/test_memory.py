"""Channels in memory, and flights on them in any order of events."""

from __future__ import annotations

import doctest
from collections.abc import Callable, Iterator
from unittest.mock import Mock

import numpy as np
import pytest

from busy_callback_flyer.channels import memory
from busy_callback_flyer.channels.memory import MemoryArray, MemoryBusy, MemoryCount, MemoryRecord, MemoryValue
from busy_callback_flyer.engine.collector import ArraySpec, Collector, FlightData, ValueSpec
from busy_callback_flyer.engine.driver import FlightDriver
from busy_callback_flyer.engine.errors import FlightAborted, FlightError, FlightLost, FlightRefused
from busy_callback_flyer.engine.flight import Flight
from busy_callback_flyer.engine.freshness import Ground
from busy_callback_flyer.engine.options import Options
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

from .listening import TIMEOUT, Listener, never_mind


class Pilot:
    """Flies on a channel in memory."""

    def __init__(self, busy: MemoryBusy) -> None:
        self.driver = FlightDriver("ifly", busy.heard_by, Worker("tells failures"))
        self.observer = Mock()

    def launch(self, ground: Ground | None = None) -> Flight:
        flight = Flight(self.driver.channel.pv, Options(time_array=None))
        self.driver.launch(flight, self.observer, ground)
        return flight

    def error(self) -> FlightError:
        """Why it failed, when that is told."""
        self.driver.wait(TIMEOUT)
        self.observer.failed.assert_called_once_with()
        assert self.driver.flight is not None
        assert self.driver.flight.error is not None
        return self.driver.flight.error


MakePilot = Callable[[MemoryBusy], Pilot]


@pytest.fixture
def pilots() -> Iterator[MakePilot]:
    """Makes pilots, and lands them after the test."""
    made: list[Pilot] = []

    def make(busy: MemoryBusy) -> Pilot:
        made.append(Pilot(busy))
        return made[-1]

    yield make
    for pilot in made:
        pilot.driver.abort("the test is over")
        pilot.driver.close()


def test_the_examples_of_its_docstring() -> None:
    failed, tried = doctest.testmod(memory)
    assert tried > 20
    assert failed == 0


def test_they_satisfy_the_ports() -> None:
    busy: list[BusyChannel] = [MemoryBusy(), MemoryRecord()]
    array: ArrayChannel = MemoryArray([1.0])
    value: ValueChannel = MemoryValue(1)
    count: CountChannel = MemoryCount()
    assert [channel.ready for channel in busy] == [False, True]
    assert [channel.wait_ready(TIMEOUT) for channel in busy] == [False, True]
    assert array.ready
    assert value.pv == "value"
    assert count.latest is None


# A busy record


def test_a_listener_hears_what_the_script_says() -> None:
    listener = Listener()
    busy = MemoryBusy(listener, "soft")
    busy.post(BUSY, 1.0)  # not connected
    assert busy.reading is None
    busy.connect(DONE, 2.0)
    busy.change(BUSY, 3.0)
    assert busy.reading == Reading(DONE, 2.0)
    busy.post(BUSY, 4.0, severity=2, alarm="status 3")
    busy.poll()
    busy.lose()
    busy.refuse("soft is no busy record")
    busy.close()
    busy.post(DONE)
    alarming = Reading(BUSY, 4.0, 2, "status 3")
    assert [listener.next() for _ in range(5)] == [
        ("connected", Reading(DONE, 2.0)),
        ("says", alarming),
        ("read", alarming),
        ("lost", None),
        ("unusable", "soft is no busy record"),
    ]
    assert listener.heard.empty()


def test_requests_are_answered_in_any_order() -> None:
    busy, heard = MemoryBusy(), Mock()
    busy.connect(DONE, 1.0)
    busy.fence(heard.fence)
    busy.put_callback(BUSY, heard.put)
    busy.read(heard.first)
    busy.read(heard.second)
    busy.put(DONE, never_mind)
    assert busy.sent == ["fence", "put 1 with callback", "read", "read", "put 0"]
    assert [request.what for request in busy.waiting] == ["fence", "put", "read", "read"]
    busy.answer_read(which=1)
    busy.answer_put(Put.REFUSED, "not now")
    busy.fail_read()
    busy.pass_fence()
    assert [str(call) for call in heard.mock_calls] == [
        "call.second(Reading(value=0, stamp=1.0, severity=0, alarm=''))",
        f"call.put({Put.REFUSED!r}, 'not now')",
        "call.first(None)",
        "call.fence()",
    ]
    with pytest.raises(LookupError, match="busy: no read is waiting"):
        busy.answer_read()


@pytest.mark.parametrize("end", [MemoryBusy.lose, MemoryBusy.close])
def test_what_was_asked_is_answered_at_the_end(end: Mock) -> None:
    busy, heard = MemoryBusy(), Mock()
    busy.connect()
    busy.put_callback(BUSY, heard.put)
    busy.read(heard.read)
    end(busy)
    heard.put.assert_called_once_with(Put.LOST, "its connection went")
    heard.read.assert_called_once_with(None)
    assert busy.waiting == []
    assert busy.reading is None
    assert not busy.ready


def test_a_put_is_taken_back_before_what_comes_then() -> None:
    busy, heard = MemoryBusy(), Mock()
    busy.put_callback(BUSY, heard.put)
    busy.take_back(heard.then)
    busy.take_back(heard.again)
    assert [name for name, _, _ in heard.mock_calls] == ["put", "then", "again"]
    assert busy.sent == ["put 1 with callback", "take back"]


def test_a_record_posts_changes_only() -> None:
    listener = Listener()
    record = MemoryRecord(listener=listener)
    before = record.record
    record.put(DONE, never_mind)
    record.put(BUSY, never_mind)
    record.put(BUSY, never_mind)
    record.put(DONE, never_mind)
    assert [listener.next()[1].value for _ in range(3)] == [DONE, BUSY, DONE]
    assert listener.heard.empty()
    assert record.record.stamp > before.stamp


# Flights


def test_callback_and_done_in_either_order(pilots: MakePilot) -> None:
    for callback_first in (True, False):
        busy = MemoryBusy()
        busy.connect()
        flight = pilots(busy).launch()
        busy.post(BUSY)
        if callback_first:
            busy.answer_put()
        assert not flight.over
        busy.post(DONE)
        if not callback_first:
            assert not flight.over
            busy.answer_put()
        assert flight.finished


def test_a_read_decides_where_busy_was_not_seen(pilots: MakePilot) -> None:
    busy = MemoryBusy()
    busy.connect()
    flight = pilots(busy).launch()
    busy.change(DONE)
    busy.answer_put()
    assert not flight.over
    busy.answer_read()
    assert flight.finished


def test_a_fence_comes_before_the_put(pilots: MakePilot) -> None:
    busy = MemoryBusy()
    busy.needs_fence = True
    busy.connect()
    pilots(busy).launch()
    assert busy.sent == ["fence"]
    busy.pass_fence()
    assert busy.sent == ["fence", "put 1 with callback"]


def test_a_channel_that_cannot_tell_what_became_of_the_put(pilots: MakePilot) -> None:
    busy = MemoryBusy()
    busy.needs_ground_read = True
    busy.connect()
    pilot = pilots(busy)
    pilot.launch()
    assert busy.sent == ["read", "put 1 with callback"]
    busy.answer_read()
    busy.answer_put(Put.UNTOLD)
    busy.answer_read()
    with pytest.raises(FlightRefused, match="no trace"):
        raise pilot.error()


def test_a_channel_that_polls(pilots: MakePilot) -> None:
    busy = MemoryBusy()
    pilot = pilots(busy)
    flight = pilot.launch()
    assert busy.flying()
    busy.connect()
    busy.answer_put(Put.SENT)
    busy.change(BUSY)
    busy.answer_read()
    assert not flight.over
    busy.change(DONE)
    busy.poll()
    assert flight.finished
    assert not busy.flying()


def test_a_flight_goes_on_where_the_record_comes_back_as_it_was(pilots: MakePilot) -> None:
    busy = MemoryBusy()
    busy.connect()
    pilot = pilots(busy)
    flight = pilot.launch()
    busy.post(BUSY, 2e9)
    busy.lose()
    assert not flight.over
    busy.connect(BUSY, 2e9)
    busy.post(DONE)
    busy.answer_read()
    assert flight.finished


def test_a_flight_is_lost_where_the_record_comes_back_done(pilots: MakePilot) -> None:
    busy = MemoryBusy()
    busy.connect()
    pilot = pilots(busy)
    pilot.launch()
    busy.post(BUSY)
    busy.lose()
    busy.connect(DONE)
    assert isinstance(pilot.error(), FlightLost)


def test_an_abort_takes_the_put_back_and_writes_done(pilots: MakePilot) -> None:
    record = MemoryRecord()
    pilot = pilots(record)
    pilot.launch()
    pilot.driver.abort("enough")
    assert isinstance(pilot.error(), FlightAborted)
    assert record.sent == ["put 1 with callback", "take back", "put 0"]
    assert record.record.value == DONE


def test_a_controller_flies_by_itself(pilots: MakePilot) -> None:
    x = MemoryArray([0.0])

    def scan() -> None:
        x.write([1.0, 2.0])
        record.done()

    record = MemoryRecord(scan)
    pilot = pilots(record)
    for _ in range(3):
        assert pilot.launch().finished
    assert pilot.observer.finished.call_count == 3


# Arrays, values, counts


def test_arrays_that_are_held_come_in_any_order(pilots: MakePilot) -> None:
    record = MemoryRecord()
    x, y = (MemoryArray([0], name, held=True) for name in "xy")
    value = MemoryValue("a text", held=True)
    collector = Collector("ifly", [ArraySpec("x", "ifly_x", x), ArraySpec("y", "ifly_y", y)], record)
    values = [ValueSpec("sample", "ifly_sample", value)]
    ground = collector.ground(None, values)
    flight = pilots(record).launch(ground)
    x.write([1, 2])
    y.write([3, 4])
    record.done()
    landed: list[FlightData | Exception] = []
    collector.fetch(flight, ground, values, landed.append)
    for channel in (y, value, x):
        assert landed == []
        channel.answer()
    (data,) = landed
    assert isinstance(data, FlightData)
    (page,) = collector.pages(data, flight.timeline, flight.options)
    assert page["data"] == {"ifly_x": [1, 2], "ifly_y": [3, 4], "ifly_sample": ["a text"] * 2}
    assert set(collector.describe(flight.options, values)) == set(page["data"])


def test_an_array_fails_and_goes() -> None:
    array, heard = MemoryArray([1, 2], stamp=5.0, description={"units": "mm"}), Mock()
    array.fetch(heard)
    (answer,) = heard.call_args.args
    assert isinstance(answer, ArrayReading)
    assert answer.values.tolist() == [1, 2]
    assert answer.stamp == 5.0
    assert array.description == {"source": "MEM:array", "units": "mm"}
    assert array.dtype == np.array([1, 2]).dtype
    array.held = True
    array.fetch(heard)
    array.fail("too late")
    heard.assert_called_with("too late")
    array.fetch(heard)
    array.lose()
    heard.assert_called_with("it is not connected")
    assert array.dtype is None
    array.fetch(heard)
    assert array.waiting == []
    array.connect()
    array.write(3.5, 6.0)
    array.held = False
    array.fetch(heard)
    (answer,) = heard.call_args.args
    assert (answer.values.tolist(), answer.stamp) == ([3], 6.0)


@pytest.mark.parametrize(("value", "dtype"), [("a", "string"), (1, "integer"), (1.5, "number")])
def test_a_value_describes_itself(value: object, dtype: str) -> None:
    channel, heard = MemoryValue(value, stamp=1.0), Mock()
    assert channel.description == {"source": "MEM:value", "dtype": dtype, "shape": []}
    channel.fetch(heard)
    heard.assert_called_once_with(ValueReading(value, 1.0))
    channel.write(value, 2.0)
    channel.fetch(heard)
    heard.assert_called_with(ValueReading(value, 2.0))


def test_a_count() -> None:
    count = MemoryCount()
    for value in (3, 4):
        count.post(value, float(value))
    count.close()
    count.post(5)
    assert (count.first, count.latest) == (ValueReading(3, 3.0), ValueReading(4, 4.0))
