"""One embedded IOC for each process that runs tests, and nothing else in reach.

libca reads its environment once, when it is loaded, and importing ophyd loads it: so the
IOC is started before any test module is imported. It goes down when the interpreter exits,
after Channel Access did, because a client whose server goes first complains.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import xdist

from busy_callback_flyer.ioc import EmbeddedIOC

if TYPE_CHECKING:
    from bluesky import RunEngine

    from busy_callback_flyer import BusyFlyer
    from busy_callback_flyer.engine.driver import FlightDriver
    from busy_callback_flyer.engine.flight import Flight

PREFIX = "prj:"

_ioc: EmbeddedIOC | None = None
_drivers: weakref.WeakSet[FlightDriver] = weakref.WeakSet()
_served: weakref.WeakKeyDictionary[FlightDriver, Flight] = weakref.WeakKeyDictionary()
"""The flight that is over, and all of which was waited for."""


def pytest_sessionstart(session: pytest.Session) -> None:
    global _ioc
    if xdist.is_xdist_controller(session):
        return  # it runs no test
    _ioc = EmbeddedIOC(PREFIX, databases=[Path(__file__).with_name(name) for name in ("strange.db", "fields.db")])
    _ioc.start()
    for name in [name for name in os.environ if name.startswith(("EPICS_", "PYEPICS_", "OPHYD_"))]:
        del os.environ[name]
    os.environ.update(_ioc.client_environment)
    import ophyd  # noqa: F401 - before epics: it chooses the libca that pyepics loads

    from busy_callback_flyer.channels.memory import MemoryBusy
    from busy_callback_flyer.engine.driver import FlightDriver

    make = FlightDriver.__init__

    def make_and_note(driver: FlightDriver, *args: Any, **kwargs: Any) -> None:
        make(driver, *args, **kwargs)
        if not isinstance(driver.channel, MemoryBusy):  # which answers no read by itself
            _drivers.add(driver)

    FlightDriver.__init__ = make_and_note  # type: ignore[assignment, method-assign]


INTERRUPTED = "interrupted"
"""Property of a test: what became of a flight in a plan; `tests/faults/test_interruptions.py` records it."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    calls = [one for one in reports if isinstance(one, pytest.TestReport) and one.when == "call"]
    outcomes: list[Any] = [value for one in calls for name, value in one.user_properties if name == INTERRUPTED]
    if outcomes:
        terminalreporter.section("what became of interrupted flights: record, statuses, run, documents")
        for interruption, plan, outcome in outcomes:
            terminalreporter.write_line(f"{interruption:<28} {plan:<12} {outcome}")


@pytest.fixture(scope="session")
def ioc() -> EmbeddedIOC:
    assert _ioc is not None
    return _ioc


SETTINGS = {"npts": 11, "duration": 0.0, "start": -5.0, "stop": 5.0, "seed": 1, "fill": 0, "fault": 0}


@pytest.fixture
def controller(ioc: EmbeddedIOC) -> Callable[..., None]:
    """Sets the pseudo-controller's settings; those that are not named get their usual value."""
    import epics

    def configure(**settings: float) -> None:
        assert settings.keys() <= SETTINGS.keys()
        for name, value in {**SETTINGS, **settings}.items():
            assert epics.caput(f"{PREFIX}{name}", value, wait=True, timeout=10) == 1

    configure()
    return configure


def look(pv: str) -> tuple[float, float]:
    """Value and stamp of a PV, asked afresh: after what this process put before.

    Flyers have circuits of their own, so what they put is waited for. By ophyd's own PV objects
    (`epics.get_pv`): a second object for the same PV crashes pyepics when ophyd releases the
    channel that both share.
    """
    import epics

    for driver in list(_drivers):
        _wait_served(driver)
    said = epics.get_pv(pv, connect=True, timeout=10).get_with_metadata(form="time", use_monitor=False, timeout=10)
    return said["value"], said["timestamp"]


def _wait_served(driver: FlightDriver) -> None:
    """Wait until what a flyer has put is served."""
    deadline = time.monotonic() + 5
    flight, channel = driver.flight, driver.channel
    if flight is None or _served.get(driver) is flight:
        return
    over = flight.over
    while flight.state.name in ("NEW", "FENCING") and time.monotonic() < deadline:
        time.sleep(0.0005)
    driver.wait(5)
    if channel.ready and channel.may_wait:
        served = threading.Event()
        channel.read(lambda _: served.set())
        served.wait(2)
    if over:
        _served[driver] = flight


@pytest.fixture
def make_flyer(controller: Callable[..., None]) -> Iterator[Callable[..., Any]]:
    """Makes connected flyers named ifly, and lands them after the test.

    They are not destroyed: ophyd's destroy() frees channels that its own threads may be using.
    """
    from busy_callback_flyer import BusyFlyer

    flyers: list[BusyFlyer] = []

    def make(kind: type[BusyFlyer] = BusyFlyer, **options: Any) -> BusyFlyer:
        flyer = kind(PREFIX, name="ifly", **options)
        flyers.append(flyer)
        flyer.wait_for_connection(timeout=10)
        return flyer

    yield make
    for flyer in flyers:
        flyer.stop()


@pytest.fixture(params=["direct", "ophyd"])
def flyer(request: pytest.FixtureRequest, make_flyer: Callable[..., BusyFlyer]) -> BusyFlyer:
    return make_flyer(events=request.param)


@pytest.fixture
def direct_flyer(make_flyer: Callable[..., BusyFlyer]) -> BusyFlyer:
    return make_flyer()


@pytest.fixture
def run_engine() -> RunEngine:
    from bluesky import RunEngine

    return RunEngine({}, context_managers=[])


Documents = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def documents(run_engine: RunEngine) -> Documents:
    """What the RunEngine emits, in order."""
    emitted: Documents = []
    run_engine.subscribe(lambda name, document: emitted.append((name, document)))
    return emitted


@pytest.fixture
def fly(
    make_flyer: Callable[..., BusyFlyer], controller: Callable[..., None], run_engine: RunEngine, documents: Documents
) -> Callable[..., Documents]:
    """Flies once, for these consumers, so many points, with these options of a flyer; the flight's documents."""
    from bluesky.plans import fly

    def fly_once(*consumers: Any, points: int, **options: Any) -> Documents:
        documents.clear()
        controller(npts=points, duration=0.1)
        for consumer in consumers:
            run_engine.subscribe(consumer)
        flyer = make_flyer(**options)
        run_engine(fly([flyer], md=flyer.plot_md))
        return list(documents)

    return fly_once
