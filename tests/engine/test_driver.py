"""A driver between a flight and its channel: what is carried out, in which order, and who is told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from busy_callback_flyer.channels.memory import MemoryBusy
from busy_callback_flyer.engine import driver as driver_module
from busy_callback_flyer.engine.driver import FlightDriver
from busy_callback_flyer.engine.errors import FlightAborted
from busy_callback_flyer.engine.flight import CALLBACK_GRACE, Flight
from busy_callback_flyer.engine.options import Options
from busy_callback_flyer.engine.ports import BUSY, DONE, Put
from busy_callback_flyer.engine.worker import Worker

TIMEOUT = 20.0


class Observer:
    """Notes what it hears, and in which thread."""

    def __init__(self, log: list[str], name: str = "") -> None:
        self.told = threading.Event()
        self.thread: threading.Thread | None = None
        self._log = log
        self._name = name

    def began(self) -> None:
        self._log.append(f"{self._name}began")

    def finished(self) -> None:
        self._hear("finished")

    def failed(self) -> None:
        self._hear("failed")

    def _hear(self, what: str) -> None:
        self.thread = threading.current_thread()
        self._log.append(f"{self._name}{what}")
        self.told.set()


class Site:
    """A driver at a record in memory."""

    def __init__(self, teller: Worker, *, needs_fence: bool = False) -> None:
        self.busy = MemoryBusy()
        self.busy.needs_fence = needs_fence
        self.driver = FlightDriver("ifly", self.busy.heard_by, teller)
        self.busy.connect()
        self.log = self.busy.sent

    def launch(self, name: str = "", **options: Any) -> tuple[Flight, Observer]:
        flight, observer = Flight("busy", Options(**options)), Observer(self.log, name)
        self.driver.launch(flight, observer)
        return flight, observer


@pytest.fixture
def site(teller: Worker) -> Site:
    return Site(teller)


@pytest.mark.parametrize("first", ["callback", "done"])
def test_the_second_of_the_two_decides_in_its_own_thread(site: Site, first: str) -> None:
    flight, observer = site.launch()
    site.busy.post(BUSY)
    news: list[Callable[[], None]] = [site.busy.answer_put, lambda: site.busy.post(DONE)]
    for tell in news if first == "callback" else reversed(news):
        assert not observer.told.is_set()
        tell()
    assert flight.finished
    assert observer.thread is threading.current_thread()
    assert site.log == ["put 1 with callback", "began", "finished"]
    assert site.driver._alarm._due is None, "nothing is awaited any more"


def test_a_verdict_is_told_after_the_orders_that_were_given_with_it(site: Site) -> None:
    flight, observer = site.launch()
    site.busy.post(BUSY)
    site.driver.abort("enough")
    assert observer.told.wait(TIMEOUT)
    assert isinstance(flight.error, FlightAborted)
    assert site.log == ["put 1 with callback", "began", "take back", "put 0", "failed"]


def test_a_failure_is_not_told_in_the_thread_that_brought_it(site: Site, teller: Worker) -> None:
    """What the user's callbacks do there would hold up the deadlines of all flyers."""
    _, observer = site.launch()
    site.busy.answer_put(Put.REFUSED, "DISP")
    site.driver.wait(TIMEOUT)
    assert observer.told.is_set(), "wait() waits for that, too"
    assert observer.thread is not None
    assert observer.thread.name == "teller"


def test_orders_behind_a_put_that_is_taken_back_elsewhere_wait_for_it(site: Site, monkeypatch: Any) -> None:
    """So do those of the next flight: its put goes out behind the Done of the one before."""
    site.launch("1 ", reset_settle=0.0)
    site.busy.post(BUSY)
    going_on: list[Callable[[], None]] = []
    monkeypatch.setattr(site.busy, "take_back", going_on.append)
    site.driver.abort("enough")
    second, _ = site.launch("2 ", reset_settle=0.0)
    assert site.log == ["put 1 with callback", "1 began"]
    going_on[0]()  # carries the orders of the first out
    site.driver.wait(TIMEOUT)
    site.busy.post(DONE)
    going_on[1]()  # begins the second
    assert site.log == ["put 1 with callback", "1 began", "put 0", "1 failed", "put 1 with callback"]
    assert not second.over


def test_an_answer_to_an_earlier_flight_is_no_news(site: Site) -> None:
    answers = []
    put_callback = site.busy.put_callback
    site.busy.put_callback = lambda value, answer: (answers.append(answer), put_callback(value, answer))  # type: ignore
    site.launch(on_timeout="leave")
    site.driver.abort("enough")
    site.driver.wait(TIMEOUT)
    flight, observer = site.launch(reset_settle=0.0)
    site.busy.post(BUSY)
    site.busy.post(DONE)
    answers[0](Put.SERVED, "")
    assert not flight.over
    answers[1](Put.SERVED, "")
    assert flight.finished
    assert observer.told.is_set()


def test_one_flight_at_a_time(site: Site) -> None:
    site.launch()
    with pytest.raises(RuntimeError, match="ifly was kicked off by another thread"):
        site.launch()


@pytest.mark.parametrize("late", [False, True])
def test_a_done_without_callback_is_read_in_time(site: Site, monkeypatch: Any, late: bool) -> None:
    """Whether it was stored, as a deadline was about to ring, or had to set one."""
    now = [100.0]
    monkeypatch.setattr(f"{driver_module.__name__}.time.monotonic", lambda: now[0])
    rings: list[float | None] = []
    monkeypatch.setattr(site.driver._alarm, "set", rings.append)
    flight, _ = site.launch()
    assert rings == [100.0 + CALLBACK_GRACE], "armed with the put"
    site.busy.post(BUSY)
    if late:
        now[0] += 1
        site.driver._tell(flight, Flight.deadline)  # the one that was armed
    rings.clear()
    site.busy.post(DONE)
    due = now[0] + CALLBACK_GRACE
    assert rings == ([due] if late else [])
    now[0] = due
    site.driver._tell(flight, Flight.deadline)
    assert site.busy.sent[-1] == "read"
    site.busy.answer_read()
    assert flight.finished


def test_a_fence_comes_before_the_put_and_its_put_not_after_an_abort(teller: Worker) -> None:
    site = Site(teller, needs_fence=True)
    site.launch()
    site.driver.abort("enough")
    site.busy.pass_fence()
    site.driver.wait(TIMEOUT)
    assert site.log == ["fence", "failed"], "nothing was put, and nothing is written"
    flight, _ = site.launch()
    site.busy.pass_fence()
    assert site.log[2:] == ["fence", "put 1 with callback"]
    assert not flight.over


def test_an_observer_that_raises_stops_nothing(site: Site, caplog: Any) -> None:
    _, observer = site.launch()
    observer.began = lambda: 1 / 0  # type: ignore[method-assign, assignment]
    with pytest.raises(ZeroDivisionError):
        site.busy.post(BUSY)
    site.busy.post(DONE)
    site.busy.answer_put()
    assert observer.told.is_set()


def test_a_put_callback_that_never_came_is_told(site: Site, caplog: Any) -> None:
    """As of an sscan that refuses to start: it says Busy and Done, and that is all."""
    flight, observer = site.launch()
    site.busy.post(BUSY)
    site.busy.post(DONE)
    site.driver._tell(flight, lambda flight, now: flight.deadline(now + CALLBACK_GRACE))
    assert not caplog.records
    site.busy.answer_read()
    assert flight.finished
    assert observer.told.is_set()
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "ifly: busy is Done, and its put-callback has not come" in record.getMessage()


@pytest.mark.parametrize("put", [Put.SERVED, Put.UNTOLD, Put.SENT])
def test_a_put_that_came_back_is_not_told(site: Site, put: Put, caplog: Any) -> None:
    """Whatever it told, and whichever way the flight was decided."""
    flight, _ = site.launch()
    site.busy.answer_put(put)
    site.busy.post(BUSY)
    site.busy.post(DONE)
    if not flight.over:
        site.busy.answer_read()
    assert flight.finished
    assert not caplog.records


def test_a_put_callback_that_was_lost_with_the_connection_is_not_awaited(site: Site, caplog: Any) -> None:
    flight, _ = site.launch()
    site.busy.post(BUSY)
    stamp = site.busy.record.stamp
    site.busy.lose()
    site.busy.connect(BUSY, stamp)
    site.busy.post(DONE)
    if not flight.over:
        site.busy.answer_read()
    assert flight.finished
    assert not caplog.records
