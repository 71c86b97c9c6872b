"""A flight beside pyepics: neither waits for the other's callbacks, and what was put before is served before."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import epics
import numpy as np
import pytest
from ophyd import EpicsSignal

from busy_callback_flyer import BusyFlyer, FlightAborted, FlightTimeout
from busy_callback_flyer.ioc import EmbeddedIOC

from ..conftest import PREFIX, look
from ..faults.interruptions import until
from ..ioc.client import RemoteClient

TIMEOUT = 20.0
BUSY_PV, SEED, NPTS = f"{PREFIX}mybusy", f"{PREFIX}seed", f"{PREFIX}npts"

Controller = Callable[..., None]
MakeFlyer = Callable[..., BusyFlyer]


@pytest.fixture
def blocked() -> Iterator[Callable[[], Any]]:
    """Blocks the callback lock of pyepics by a user's callback, as long as the context lasts."""
    hold, held = threading.Event(), threading.Event()

    def callback(**_: Any) -> None:
        if hold.is_set():
            held.set()
            until(lambda: not hold.is_set(), 60)

    pv = epics.PV(SEED, callback=callback, auto_monitor=True)
    assert pv.wait_for_connection(TIMEOUT)

    @contextmanager
    def block() -> Iterator[None]:
        hold.set()
        pv.put(pv.get(use_monitor=False, timeout=TIMEOUT) + 1)
        assert held.wait(TIMEOUT)
        try:
            yield
        finally:
            hold.clear()
            held.clear()

    yield block
    pv.clear_callbacks()


def test_deadlines_and_stop_wait_for_no_callback_of_pyepics(
    make_flyer: MakeFlyer, controller: Controller, blocked: Callable[[], Any]
) -> None:
    controller(fault=1)  # never Done
    first = make_flyer(flight_timeout=1)
    first.kickoff()
    until(lambda: "busy" in first.timeline)
    with blocked():
        until(lambda: not first.flying)
        assert isinstance(first.timeline.error, FlightTimeout)
    second = make_flyer()
    status = second.kickoff()
    until(lambda: "busy" in second.timeline)
    with blocked():
        second.stop()
        assert isinstance(status.exception(TIMEOUT), FlightAborted)
    until(lambda: look(BUSY_PV)[0] == 0)


def test_a_flight_ends_while_a_callback_of_pyepics_blocks(
    direct_flyer: BusyFlyer, controller: Controller, blocked: Callable[[], Any]
) -> None:
    controller(duration=0.3, npts=3)
    status = direct_flyer.kickoff()
    until(lambda: "busy" in direct_flyer.timeline)
    with blocked():
        status.wait(TIMEOUT)
        direct_flyer.complete().wait(TIMEOUT)
    assert len(list(direct_flyer.collect_pages())) == 1


def test_a_kickoff_behind_a_blocked_circuit_is_given_up_and_never_put(
    make_flyer: MakeFlyer, controller: Controller, blocked: Callable[[], Any]
) -> None:
    """What this process put before may not be served yet: so Busy waits for it, no longer than start_timeout."""
    before = look(BUSY_PV)
    flyer = make_flyer(start_timeout=0.3)
    with blocked():
        error = flyer.kickoff().exception(TIMEOUT)
        assert isinstance(error, FlightTimeout)
        assert "put before was not served within start_timeout=0.3 s" in str(error)
    assert look(BUSY_PV) == before
    controller(npts=3)
    flyer.kickoff().wait(TIMEOUT)


@pytest.mark.parametrize("way", ["PV", "EpicsSignal"])
def test_what_was_put_before_a_kickoff_is_of_its_flight(
    way: str, direct_flyer: BusyFlyer, controller: Controller
) -> None:
    """Though it was put without wait, and arrays are under way on its circuit."""
    controller(duration=0)
    array = epics.get_pv(f"{PREFIX}x_array")
    if way == "PV":
        put: Callable[[int], Any] = epics.PV(NPTS).put
    else:
        signal = EpicsSignal(NPTS, name="npts")
        signal.wait_for_connection(timeout=TIMEOUT)
        put = signal.put
    for npts in range(3, 43):
        array.put(np.arange(1000.0), wait=False)
        put(npts)
        status = direct_flyer.kickoff()
        status.wait(TIMEOUT)
        direct_flyer.complete().wait(TIMEOUT)
        (page,) = direct_flyer.collect_pages()
        assert len(page["time"]) == npts


@pytest.mark.parametrize("way", ["PV", "EpicsSignal", "caput"])
def test_status_callbacks_may_put(way: str, direct_flyer: BusyFlyer, controller: Controller, ioc: EmbeddedIOC) -> None:
    """In the thread that brings the news; another client sees it, and none of this process has to send it."""
    controller(duration=0.05, npts=3)
    pv = epics.PV(SEED)
    signal = EpicsSignal(SEED, name="seed")
    signal.wait_for_connection(timeout=TIMEOUT)
    assert pv.wait_for_connection(TIMEOUT)
    puts: dict[str, Any] = {"PV": pv.put, "EpicsSignal": signal.put, "caput": partial(epics.caput, SEED)}
    put = puts[way]
    with closing(RemoteClient(ioc.client_environment)) as other:

        def called(value: int, _: object) -> None:
            put(value)

        def says(value: int) -> bool:
            return bool(other.get(SEED) == value)

        for value in (101, 102):
            direct_flyer.kickoff().add_callback(partial(called, value))
            until(partial(says, value))


def run(code: str) -> str:
    preamble = "import faulthandler, threading, time\nfaulthandler.dump_traceback_later(80, exit=True)\n"
    done = subprocess.run(
        [sys.executable, "-c", preamble + textwrap.dedent(code)], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LOCKS = f"""
    import epics
    from busy_callback_flyer import BusyFlyer

    class Bare(BusyFlyer):
        tArr = xArr = yArr = None

    flyer = Bare("{PREFIX}", name="ifly", time_array=None, flight_timeout=60)
    flyer.wait_for_connection(timeout=10)
    rounds, told = ROUNDS, threading.Semaphore(0)
    monitor, target, timer = [None], [flyer], [None]

    def act(**_):
        target[0] and target[0].ACTION
        told.release()

    pv = epics.PV("{SEED}", callback=act, auto_monitor=True)
    assert pv.wait_for_connection(10)
    assert told.acquire(timeout=10)  # the first event
    dropped = threading.Semaphore(0)
    for number in range(rounds):
        other = epics.PV("{NPTS}", callback=lambda **_: None, auto_monitor=True)
        other.wait_for_connection(10)
        status = flyer.kickoff()
        drop = lambda status, other=other: (other.disconnect(), dropped.release())
        while "busy" not in flyer.timeline:
            time.sleep(0.001)
        status.add_callback(drop)
        epics.caput("{BUSY_PV}", 0)  # the status callback runs while the callback of pyepics does
        pv.put(number)
        assert told.acquire(timeout=20)
        assert dropped.acquire(timeout=20)
    print("well")
"""


@pytest.mark.slow
@pytest.mark.parametrize("action", ["stop()", "unstage()"])
def test_a_callback_of_pyepics_stops_a_flyer_while_a_status_callback_drops_a_monitor(
    controller: Controller, action: str
) -> None:
    """Each holds the callback lock that the other waits for; pthread would abort the process."""
    controller(duration=60, npts=3)
    assert run(LOCKS.replace("ROUNDS", "200").replace("ACTION", action)) == "well\n"


def test_a_subscriber_that_hangs_does_not_keep_the_interpreter_from_exiting(controller: Controller) -> None:
    controller(duration=0.05, npts=3)
    code = f"""
    from busy_callback_flyer import BusyFlyer

    flyer = BusyFlyer("{PREFIX}", name="ifly", expected_points=3)
    flyer.wait_for_connection(timeout=10)
    hangs = threading.Event()
    flyer.subscribe(lambda **_: (hangs.set(), time.sleep(3600)), flyer.SUB_FLIGHT_DONE)
    status = flyer.kickoff()
    status.watch(lambda **_: threading.current_thread() is threading.main_thread() or time.sleep(3600))
    status.wait(10)
    assert hangs.wait(10)
    print("end")
    """
    assert run(code) == "end\n"


def test_a_status_callback_that_blocks_is_named(
    direct_flyer: BusyFlyer, controller: Controller, caplog: pytest.LogCaptureFixture
) -> None:
    controller(duration=0.05, npts=3)
    caplog.set_level(logging.WARNING, "busy_callback_flyer")
    blocking = threading.Event()

    def my_slow_callback(_: Any) -> None:
        blocking.wait(0.15)

    status = direct_flyer.kickoff()
    status.add_callback(my_slow_callback)
    status.wait(TIMEOUT)
    until(lambda: caplog.messages)
    (message,) = caplog.messages
    assert message.startswith("ifly: callbacks of a status blocked the thread that brings the news for ")
    assert "my_slow_callback" in message
