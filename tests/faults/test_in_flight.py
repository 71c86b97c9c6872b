"""What other clients, the record's own fields and a busy process do to a flight.

Each test ends with a flight that is flown as if nothing had been.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import epics
import numpy as np
import pytest
from ophyd import Component, EpicsSignalRO

from busy_callback_flyer import (
    BusyFlyer,
    BusyRecord,
    FlightAborted,
    FlightRefused,
    FlightTimeout,
    PollingFlyer,
    StaleArrayError,
)
from busy_callback_flyer.engine.ports import Reading
from busy_callback_flyer.ioc import EmbeddedIOC

from ..conftest import PREFIX, look
from ..ioc.client import RemoteClient
from .interruptions import known

BUSY_PV = f"{PREFIX}mybusy"
OWN_PV = f"{PREFIX}own"
TIMEOUT = 20.0  # generous: reached only where something is broken

Controller = Callable[..., None]
Make = Callable[..., BusyFlyer]
SetField = Callable[[str, Any], None]

by_events = pytest.mark.parametrize("way", ["direct", "ophyd"], indirect=True)
every_way = pytest.mark.parametrize("way", ["direct", "ophyd", "polling"], indirect=True)


@pytest.fixture
def way(request: pytest.FixtureRequest, make_flyer: Make) -> Make:
    """Makes flyers of one way to wait: for `record`, with or without the arrays."""

    def make(record: str = "mybusy", *, arrays: bool = True, **options: Any) -> BusyFlyer:
        base: type[BusyFlyer] = BusyFlyer
        if request.param == "polling":
            base = PollingFlyer
        else:
            options["events"] = request.param
        components: dict[str, Any] = {"busy": Component(BusyRecord, record, kind="config")}
        if not arrays:
            components |= dict.fromkeys(("tArr", "xArr", "yArr"))
            options["time_array"] = None
        return make_flyer(type("Flyer", (base,), components), **options)

    return make


@pytest.fixture
def set_field() -> Iterator[SetField]:
    """Sets fields of records, which get their former values back."""
    former: dict[str, Any] = {}

    def put(pv: str, value: Any) -> None:
        assert epics.caput(pv, value, wait=True, timeout=10) == 1

    def change(pv: str, value: Any) -> None:
        former.setdefault(pv, epics.caget(pv))
        put(pv, value)

    yield change
    for pv, value in former.items():
        put(pv, value)
    epics.caput(OWN_PV, 0)


@pytest.fixture
def make_client(ioc: EmbeddedIOC) -> Iterator[Callable[[], RemoteClient]]:
    """Makes clients in processes of their own; the record is Done when they are gone."""
    clients: list[RemoteClient] = []

    def make() -> RemoteClient:
        client = RemoteClient(ioc.client_environment)
        clients.append(client)
        client.wait_for_connection(BUSY_PV)
        client.wait_for_connection(f"{PREFIX}fence")
        return client

    yield make
    for client in clients:
        client.close()
    epics.caput(BUSY_PV, 0, wait=False)
    assert look(BUSY_PV)[0] == 0


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def in_flight(flyer: BusyFlyer) -> None:
    until(lambda: "busy" in flyer.timeline)


def controller_has_begun() -> None:
    """It has read the settings of the flight: they can be changed for the next."""
    until(lambda: str(epics.caget(f"{PREFIX}message")).startswith("flying"))


def forget_message() -> None:
    assert epics.caput(f"{PREFIX}message", "", wait=True, timeout=10) == 1


def stamps(flyer: BusyFlyer) -> tuple[float, float]:
    """Of the beginning and of Done; by signals, on a slow machine, Busy may go unseen: it begins with the put then."""
    begin, done = flyer.timeline.t0, flyer.timeline["done"].stamp
    if flyer.events != "ophyd":
        assert begin == flyer.timeline["busy"].stamp
    assert begin is not None
    assert done is not None
    return begin, done


def finished_with_its_latest_done(flyer: BusyFlyer) -> None:
    """The Done that it finished with is the record's latest, and no Busy came since."""
    value, stamp = look(BUSY_PV)
    assert value == 0
    assert stamp == pytest.approx(flyer.timeline["done"].stamp, abs=2e-6)


def told_by_its_own_line(flyer: BusyFlyer) -> Reading:
    """What the record says after all that the flyer has put until now."""
    answers: list[Reading | None] = []
    until(lambda: flyer._wiring.driver.channel.ready)
    flyer._wiring.driver.channel.read(answers.append)
    until(lambda: answers)
    (reading,) = answers
    assert reading is not None
    return reading


def collects(flyer: BusyFlyer, x: list[float]) -> None:
    flyer.complete().wait(TIMEOUT)
    (page,) = flyer.collect_pages()
    assert set(page["data"]) == {"ifly_tArr", "ifly_xArr", "ifly_yArr"}
    assert page["data"]["ifly_xArr"] == pytest.approx(x)
    assert list(flyer.collect_pages()) == []


def flies(flyer: BusyFlyer, controller: Controller) -> None:
    """A flight of the pseudo-controller, unlike any other here."""
    controller(npts=7, duration=0.02, start=2, stop=3)
    flyer.kickoff().wait(TIMEOUT)
    assert look(BUSY_PV)[0] == 0
    collects(flyer, list(np.linspace(2, 3, 7)))


def flies_by_hand(flyer: BusyFlyer) -> None:
    """A flight on the record that no controller acts on."""
    status = flyer.kickoff()
    in_flight(flyer)
    for array, values in (("t", [1.0, 2.0, 3.0]), ("x", [4.0, 5.0, 6.0]), ("y", [7.0, 8.0, 9.0])):
        assert epics.caput(f"{PREFIX}{array}_array", np.array(values), wait=True, timeout=10) == 1
    assert not status.done
    epics.caput(OWN_PV, 0)
    status.wait(TIMEOUT)
    assert look(OWN_PV)[0] == 0
    collects(flyer, [4.0, 5.0, 6.0])


# Other clients


@every_way
def test_reset_by_another_client(way: Make, controller: Controller) -> None:
    """The record says Done, so the flight is finished; arrays of an earlier one are not passed off as its."""
    flyer = way()
    flies(flyer, controller)
    controller(duration=60)
    status = flyer.kickoff()
    in_flight(flyer)
    epics.caput(BUSY_PV, 0)
    status.wait(TIMEOUT)
    with pytest.raises(StaleArrayError, match=f"{PREFIX}x_array"):
        flyer.complete().wait(TIMEOUT)
    with pytest.raises(StaleArrayError):
        list(flyer.collect_pages())
    assert look(BUSY_PV)[0] == 0
    flies(flyer, controller)


@by_events
def test_another_clients_flight_queued_behind(
    way: Make, controller: Controller, make_client: Callable[[], RemoteClient]
) -> None:
    """Ours is over with its own Done, while the other's goes on."""
    other, flyer = make_client(), way()
    controller(npts=5, duration=0.5)
    forget_message()
    status = flyer.kickoff()
    in_flight(flyer)
    controller_has_begun()
    controller(duration=60)
    other.put_callback(BUSY_PV, 1)
    assert not other.returned(BUSY_PV)
    status.wait(TIMEOUT)
    value, stamp = look(BUSY_PV)
    busy, done = stamps(flyer)
    assert value == 1, "waited for the other's flight"
    assert busy + 0.5 <= done <= stamp
    collects(flyer, list(np.linspace(-5, 5, 5)))
    assert look(BUSY_PV) == (1, stamp), "the other's flight was touched"
    epics.caput(BUSY_PV, 0)
    other.wait_until_returned(BUSY_PV)
    flies(flyer, controller)


@by_events
def test_another_clients_flight_queued_ahead(
    way: Make, controller: Controller, make_client: Callable[[], RemoteClient]
) -> None:
    """Its Busy and Done come after our put, and are not ours."""
    first, second, flyer = make_client(), make_client(), way(when_busy="wait")
    controller(duration=60)
    forget_message()
    first.put_callback(BUSY_PV, 1)
    assert not first.returned(BUSY_PV)
    controller_has_begun()
    second.put_callback(BUSY_PV, 1)
    assert not second.returned(BUSY_PV)
    second.watch(BUSY_PV)
    controller(npts=5, duration=0.3)
    until(lambda: known(flyer) == 1)
    status = flyer.kickoff()
    epics.caput(BUSY_PV, 0)  # the first's is over
    status.wait(TIMEOUT)
    finished_with_its_latest_done(flyer)
    busy, done = stamps(flyer)
    assert busy + 0.3 <= done
    assert second.events(BUSY_PV) == [0, 1, 0, 1, 0]
    collects(flyer, list(np.linspace(-5, 5, 5)))
    flies(flyer, controller)


@by_events
def test_two_flyers_and_the_second_is_refused(way: Make, controller: Controller) -> None:
    first, second = way(), way(when_busy="fail")
    controller(npts=5, duration=0.5)
    status = first.kickoff()
    in_flight(first)
    until(lambda: known(second) == 1)
    with pytest.raises(FlightRefused, match=f"{BUSY_PV}.*when_busy='fail'"):
        second.kickoff().wait(TIMEOUT)
    second.stop()
    status.wait(TIMEOUT)
    busy, done = stamps(first)
    assert busy + 0.5 <= done, "the second ended the first's flight"
    collects(first, list(np.linspace(-5, 5, 5)))
    flies(second, controller)


@by_events
def test_two_flyers_one_after_the_other(way: Make, controller: Controller) -> None:
    first, second = way(), way(when_busy="wait")
    controller(npts=5, duration=0.3)
    status = first.kickoff()
    in_flight(first)
    until(lambda: known(second) == 1)
    waiting = second.kickoff()
    status.wait(TIMEOUT)
    waiting.wait(TIMEOUT)
    (busy_1, done_1), (busy_2, done_2) = stamps(first), stamps(second)
    assert busy_1 + 0.3 <= done_1 <= busy_2
    assert busy_2 + 0.3 <= done_2
    assert look(BUSY_PV)[0] == 0
    for flyer in (first, second):
        collects(flyer, list(np.linspace(-5, 5, 5)))
        flies(flyer, controller)


@pytest.mark.parametrize("way", ["direct"], indirect=True)  # by ophyd's signals it cannot be had
def test_stopped_while_queued_behind_another_clients_flight(way: Make, controller: Controller) -> None:
    """Our put is taken back: it does not start with the Done that ends the other's."""
    other, flyer = way(), way()
    controller(duration=60)
    for _ in range(10):
        status = other.kickoff()
        in_flight(other)
        until(lambda: known(flyer) == 1)
        channel: Any = flyer._wiring.driver.channel
        channel.reading = channel.reading._replace(value=0)  # as if the news of the other's flight were under way
        stopped = flyer.kickoff()
        until(lambda: "put" in flyer.timeline)
        flyer.stop()
        with pytest.raises(FlightAborted, match=BUSY_PV):
            stopped.wait(TIMEOUT)
        status.wait(TIMEOUT)
        finished_with_its_latest_done(other)
        until(lambda: flyer._wiring.driver.channel.ready)
        assert told_by_its_own_line(flyer).value == 0
    flies(flyer, controller)


# The record's own fields


@every_way
def test_record_that_clears_itself_while_it_processes(way: Make) -> None:
    """It posts no event at all; a read decides."""
    flyer = way("inward", arrays=False)
    for _ in range(3):
        flyer.kickoff().wait(TIMEOUT)
        flyer.complete().wait(TIMEOUT)
        assert look(f"{PREFIX}inward")[0] == 0


@every_way
def test_record_that_resets_itself_after_a_while(way: Make) -> None:
    flyer = way("high", arrays=False)
    for _ in range(2):
        flyer.kickoff().wait(TIMEOUT)
        busy, done = stamps(flyer)
        assert done - busy >= 0.19, "finished before its Done"  # HIGH is counted in ticks
        assert look(f"{PREFIX}high")[0] == 0


@every_way
@pytest.mark.parametrize("severity", ["NO_ALARM", "MINOR"])
def test_disabled_record_is_never_done(way: Make, set_field: SetField, controller: Controller, severity: str) -> None:
    """With DISA the put-callback is back at once, and the record is Busy until somebody writes Done."""
    flyer = way("own", flight_timeout=0.5, start_timeout=1.0)
    set_field(f"{OWN_PV}.DISS", severity)
    set_field(f"{OWN_PV}.DISA", 1)
    for awaited in (r"flight_timeout=0\.5 s", ""):  # it is never told of the Done that is written then
        with pytest.raises(FlightTimeout, match=rf"{OWN_PV}.*{awaited}.* DISABLE .*DISA = DISV"):
            flyer.kickoff().wait(TIMEOUT)
        assert list(flyer.collect_pages()) == []
        until(lambda: look(OWN_PV)[0] == 0)
    set_field(f"{OWN_PV}.DISA", 0)
    flyer.flight_timeout = TIMEOUT
    flies_by_hand(flyer)


@every_way
def test_what_is_neither_busy_nor_done_ends_no_flight(way: Make, controller: Controller) -> None:
    """Another client writes 2, which the record says, and holds its put-callback."""
    flyer = way("own", flight_timeout=1.0)
    for neither in (2, 3):
        status = flyer.kickoff()
        in_flight(flyer)
        epics.caput(OWN_PV, neither)
        with pytest.raises(FlightTimeout, match=f"last seen: {neither}, neither Busy nor Done") as failure:
            status.wait(TIMEOUT)
        assert "no busy record" not in str(failure.value)
        assert list(flyer.collect_pages()) == []
        until(lambda: look(OWN_PV)[0] == 0)
    flyer.flight_timeout = TIMEOUT
    flies_by_hand(flyer)


@every_way
def test_a_record_that_is_neither_at_kickoff(way: Make, controller: Controller) -> None:
    """It is not called Busy, nor taken for Done."""
    flyer = way("own", flight_timeout=TIMEOUT, when_busy="fail")
    epics.caput(OWN_PV, 2)
    assert look(OWN_PV)[0] == 2
    channel = flyer._wiring.driver.channel
    until(lambda: channel.reading is None or channel.reading.value == 2)  # its event has come; polling asks at kickoff
    with pytest.raises(
        FlightRefused, match="when_busy='fail', and the record is already 2, neither Busy nor Done: wait"
    ):
        flyer.kickoff().wait(TIMEOUT)
    assert look(OWN_PV)[0] == 2
    flyer.when_busy = "reset"
    flies_by_hand(flyer)


@every_way
def test_record_that_refuses_puts(way: Make, set_field: SetField, controller: Controller) -> None:
    flyer = way()
    flies(flyer, controller)
    before = look(BUSY_PV)
    set_field(f"{BUSY_PV}.DISP", 1)
    with pytest.raises(FlightRefused, match=f"{BUSY_PV}.*DISP"):
        flyer.kickoff().wait(TIMEOUT)
    assert list(flyer.collect_pages()) == []
    assert look(BUSY_PV) == before
    set_field(f"{BUSY_PV}.DISP", 0)
    flies(flyer, controller)


@every_way
@pytest.mark.parametrize("moment", ["before the flyer is made", "before its first flight", "between its flights"])
def test_states_of_other_names(way: Make, set_field: SetField, controller: Controller, moment: str) -> None:
    def rename() -> None:
        set_field(f"{BUSY_PV}.ZNAM", "Taxi")
        set_field(f"{BUSY_PV}.ONAM", "Fly")

    if moment == "before the flyer is made":
        rename()
    flyer = way()
    if moment == "before its first flight":
        rename()
    flies(flyer, controller)
    if moment == "between its flights":
        rename()
    flies(flyer, controller)


# Late news


@by_events
def test_late_done_of_a_controller_falls_into_the_settling(way: Make, controller: Controller) -> None:
    """It is deaf to the reset of its flight, and writes Done when that would have ended."""
    first, second = way(), way(reset_settle=1.0)
    flies(first, controller)
    controller(duration=0.4, fault=7)
    forget_message()
    reset = first.kickoff()
    in_flight(first)
    controller_has_begun()
    controller(npts=5, duration=0.6)
    until(lambda: known(second) == 1)
    status = second.kickoff()
    reset.wait(TIMEOUT)
    with pytest.raises(StaleArrayError):
        first.complete().wait(TIMEOUT)
    status.wait(TIMEOUT)
    busy, done = stamps(second)
    assert stamps(first)[1] <= busy
    assert busy + 0.6 <= done, "finished with the late Done"
    assert look(BUSY_PV)[0] == 0
    collects(second, list(np.linspace(-5, 5, 5)))
    flies(second, controller)


@by_events
def test_late_done_of_a_controller_between_two_flights(way: Make, controller: Controller) -> None:
    flyer = way()
    controller(duration=1.5, fault=7)
    forget_message()
    status = flyer.kickoff()
    in_flight(flyer)
    controller_has_begun()
    flyer.stop()
    with pytest.raises(FlightAborted, match=BUSY_PV):
        status.wait(TIMEOUT)
    stopped_at = look(BUSY_PV)[1]
    until(lambda: str(epics.caget(f"{PREFIX}message")).startswith("flew"))
    until(lambda: look(BUSY_PV)[1] != stopped_at)  # that Done is no event, but a stamp
    assert look(BUSY_PV)[0] == 0
    flies(flyer, controller)


@every_way
def test_done_event_of_a_stopped_flight(way: Make, controller: Controller) -> None:
    """The next flight, kicked off before it came, is not finished by it."""
    flyer = way(reset_settle=0)
    controller(npts=5, duration=0.2)
    for _ in range(10):
        stopped = flyer.kickoff()
        in_flight(flyer)
        flyer.stop()
        status = flyer.kickoff()
        with pytest.raises(FlightAborted, match=BUSY_PV):
            stopped.wait(TIMEOUT)
        status.wait(TIMEOUT)
        busy, done = stamps(flyer)
        assert busy + 0.2 <= done, "finished with the Done of the stopped flight"
        finished_with_its_latest_done(flyer)
        collects(flyer, list(np.linspace(-5, 5, 5)))


# The process around it


@pytest.fixture
def slow_subscriber(ioc: EmbeddedIOC) -> Iterator[threading.Event]:
    """A subscriber of another PV that does not return from its callback until the event is set."""
    called, released = threading.Event(), threading.Event()

    def block(**_: Any) -> None:
        called.set()
        released.wait()

    ticks = EpicsSignalRO(f"{PREFIX}ticks", name="ticks", auto_monitor=True)
    ticks.wait_for_connection(timeout=10)
    ticks.subscribe(block, run=False)
    assert called.wait(TIMEOUT)
    yield released
    released.set()
    ticks.unsubscribe_all()


@by_events
def test_slow_subscriber_of_another_pv(way: Make, controller: Controller, request: pytest.FixtureRequest) -> None:
    """Straight from libca a flight does not wait for it; by ophyd's events it may."""
    flyer = way()
    released: threading.Event = request.getfixturevalue("slow_subscriber")
    controller(npts=5, duration=0.1)
    status = flyer.kickoff()
    if flyer.events == "ophyd":
        released.set()
    status.wait(TIMEOUT)
    collects(flyer, list(np.linspace(-5, 5, 5)))
    assert released.is_set() == (flyer.events == "ophyd")
    released.set()
    flies(flyer, controller)


@by_events
def test_thread_that_holds_the_interpreter(way: Make, controller: Controller) -> None:
    flyer = way()
    controller(npts=3, duration=0.01)
    enough = threading.Event()
    ends: set[float | None] = set()

    def hold() -> None:
        while not enough.is_set():
            sum(range(1000))

    hog = threading.Thread(target=hold)
    hog.start()
    try:
        for _ in range(20):
            flyer.kickoff().wait(TIMEOUT)
            finished_with_its_latest_done(flyer)
            done = flyer.timeline["done"].stamp
            assert done not in ends, "finished with an earlier Done"
            ends.add(done)
            collects(flyer, [-5, 0, 5])
    finally:
        enough.set()
        hog.join()
    flies(flyer, controller)


@by_events
def test_stopped_as_it_takes_off(way: Make, controller: Controller) -> None:
    """Whoever is first, the flyer's Busy or the Done of stop(): no put of Busy comes after the Done."""
    settle = 0.02
    flyer = way(reset_settle=settle)
    moments = random.Random(1)
    controller(duration=60)
    for _ in range(60):
        epics.caput(BUSY_PV, 1)
        until(lambda: known(flyer) == 1)
        status = flyer.kickoff()
        stopper = threading.Timer(settle * moments.uniform(0.9, 1.3), flyer.stop)
        stopper.start()
        with pytest.raises(FlightAborted, match=BUSY_PV):
            status.wait(TIMEOUT)
        stopper.join()
        assert told_by_its_own_line(flyer).value == 0
        assert list(flyer.collect_pages()) == []
    flies(flyer, controller)
