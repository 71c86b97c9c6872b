"""An IOC that goes away in flight: the flight is lost, never finished, and the next one flies.

Each test is a process of its own, with an IOC of its own to break.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator

import pytest

TIMEOUT = 100.0

PREAMBLE = '''
import os, signal, subprocess, sys, time
from busy_callback_flyer.ioc import EmbeddedIOC

way, patience = sys.argv[1:]

ioc = EmbeddedIOC("lost:")
ioc.start()
os.environ.update(ioc.client_environment, EPICS_CA_CONN_TMO=patience)

from busy_callback_flyer import BusyFlyer, FlightError, PollingFlyer
import epics

def connected_flyer(**options):
    if way == "polling":
        flyer = PollingFlyer("lost:", name="ifly", **options)
    else:
        flyer = BusyFlyer("lost:", name="ifly", events=way, **options)
    flyer.wait_for_connection(timeout=20)
    return flyer

def setting(name, value):
    assert epics.caput(f"lost:{name}", value, wait=True, timeout=20) == 1

def flight(flyer, duration):
    setting("duration", duration)
    return flyer.kickoff()

def error_of(status):
    try:
        status.wait(60)
    except FlightError as error:
        return error
    raise AssertionError("it finished")

def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)

def in_flight(flyer):
    until(lambda: "busy" in flyer.timeline)

def state(flyer):
    return flyer._latest.flight.state.name

def lost(flyer):
    until(lambda: state(flyer) == "LOST" and not flyer.busy.connected)

def busy():
    return epics.get_pv("lost:mybusy", connect=True, timeout=20).get(use_monitor=False, timeout=20)

def thaw_unseen():
    """Thaw the IOC and sleep until the record is Done."""
    watch = """
import os, signal, sys, time, epics, psutil
client, ioc = map(int, sys.argv[1:])
while psutil.Process(client).status() != psutil.STATUS_STOPPED:
    time.sleep(0.001)
os.kill(ioc, signal.SIGCONT)
try:
    while epics.caget("lost:mybusy", as_string=False, timeout=20):
        time.sleep(0.001)
finally:
    os.kill(client, signal.SIGCONT)
"""
    with subprocess.Popen([sys.executable, "-c", watch, str(os.getpid()), str(ioc.pid)]) as watcher:
        os.kill(os.getpid(), signal.SIGSTOP)
    assert watcher.returncode == 0

def flies_again(flyer):
    flyer.wait_for_connection(timeout=60)
    setting("npts", 17)
    flight(flyer, 0.05).wait(60)
    assert busy() == 0
    flyer.complete().wait(60)
    (page,) = flyer.collect_pages()
    assert set(page["data"]) == {"ifly_tArr", "ifly_xArr", "ifly_yArr"}
    assert [len(column) for column in page["data"].values()] == [17, 17, 17]
    print("flies again")
'''

Run = Callable[..., list[str]]


def ways(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("run", [(name, names) for name in names], ids=names, indirect=True)


by_events = ways("direct", "ophyd")
every_way = ways("direct", "ophyd", "polling")

started: dict[tuple[str, str, float], subprocess.Popen[str]] = {}


@pytest.fixture(scope="module", autouse=True)
def leave_none_behind() -> Iterator[None]:
    yield
    for program in started.values():
        program.kill()
        program.communicate()


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a test's program with flyers that wait in one way; the lines that it said.

    `patience` is what libca is told to bear of an IOC's silence. The programs of a test's
    other ways are started along with it, since most of their time is spent waiting.
    """
    own_way, ways_of_test = request.param

    def run_program(code: str, patience: float = 30.0) -> list[str]:
        for way in ways_of_test:
            if (way, code, patience) not in started:
                started[way, code, patience] = start(way, code, patience)
        program = started[own_way, code, patience]
        said, complaints = program.communicate(timeout=TIMEOUT)
        assert program.returncode == 0, complaints
        return said.splitlines()

    return run_program


def start(way: str, code: str, patience: float) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EPICS_")}
    return subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(code), way, str(patience)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


@every_way
def test_killed_and_not_back(run: Run) -> None:
    (said,) = run("""
        flyer = connected_flyer(reconnect_timeout=0.5)
        status = flight(flyer, 60)
        in_flight(flyer)
        ioc.kill()
        error = error_of(status)
        print(type(error).__name__, error)
        assert list(flyer.collect_pages()) == []
    """)
    assert said.startswith("FlightLost lost:mybusy: the connection was lost in flight")
    assert "reconnect_timeout=0.5 s" in said


@by_events
def test_killed_and_restarted_in_flight(run: Run) -> None:
    said, again = run("""
        flyer = connected_flyer(reconnect_timeout=60)
        status = flight(flyer, 60)
        in_flight(flyer)
        ioc.kill()
        ioc.restart()
        error = error_of(status)
        print(type(error).__name__, error)
        assert list(flyer.collect_pages()) == []
        flies_again(flyer)
    """)
    assert said.startswith("FlightLost lost:mybusy: the connection was lost, and the record came back Done")
    assert again == "flies again"


@pytest.mark.slow
@by_events
def test_killed_and_restarted_in_the_taxi(run: Run) -> None:
    said, again = run("""
        from busy_callback_flyer import TaxiFlyer

        flyer = TaxiFlyer("lost:", name="ifly", events=way, taxi_timeout=60, flight_timeout=60, reconnect_timeout=60)
        flyer.wait_for_connection(timeout=20)
        setting("taxi_move.DLY2", 60)
        status = flyer.kickoff()
        until(lambda: "busy" in flyer.taxi_timeline)
        ioc.kill()
        ioc.restart()
        error = error_of(status)
        print(type(error).__name__, error)
        assert "put" not in flyer.timeline
        assert list(flyer.collect_pages()) == []

        before = flyer.taxi_timeline
        flyer.wait_for_connection(timeout=60)
        assert busy() == 0
        flight(flyer, 0.05).wait(60)
        assert flyer.taxi_timeline is not before
        assert len(list(flyer.collect_pages())) == 1
        print("flies again")
    """)
    assert said.startswith(
        "FlightLost lost:mybusy: not flown, as the taxi failed (lost:mytaxi: the connection was lost"
    )
    assert again == "flies again"


@pytest.mark.slow
@every_way
def test_ended_in_order_and_restarted_in_flight(run: Run) -> None:
    said, again = run("""
        flyer = connected_flyer(reconnect_timeout=60)
        status = flight(flyer, 60)
        in_flight(flyer)
        os.kill(ioc.pid, 15)
        until(lambda: not ioc.alive)
        ioc.start()
        error = error_of(status)
        print(type(error).__name__, error)
        assert list(flyer.collect_pages()) == []
        flies_again(flyer)
    """)
    assert said.startswith("FlightLost lost:mybusy:")
    assert again == "flies again"


@pytest.mark.slow
@every_way
def test_restarted_between_flights(run: Run) -> None:
    assert run("""
        flyer = connected_flyer()
        flies_again(flyer)
        ioc.kill()
        until(lambda: not flyer.busy.connected)  # the client has to notice
        ioc.restart()
        flies_again(flyer)
    """) == ["flies again", "flies again"]


@by_events
def test_controller_that_dies_takes_its_ioc_along(run: Run) -> None:
    """The pseudo-controller lives in the IOC: fault `die in flight` is a SIGKILL of both."""
    assert run("""
        flyer = connected_flyer(reconnect_timeout=0.5)
        setting("fault", 5)
        print(type(error_of(flight(flyer, 0.1))).__name__)
        assert not ioc.alive
    """) == ["FlightLost"]


@by_events
def test_frozen_for_a_while(run: Run) -> None:
    """Nothing is lost by it: the flight goes on where it stood still."""
    assert run("""
        flyer = connected_flyer()
        status = flight(flyer, 0.2)
        in_flight(flyer)
        ioc.freeze()
        assert not status.done
        ioc.thaw()
        status.wait(60)
        flies_again(flyer)
    """) == ["flies again"]


@every_way
def test_frozen_for_so_long_that_it_counts_as_lost(run: Run) -> None:
    """The record is still Busy, with the same stamp, when it is back: so the flight goes on."""
    assert run(
        """
        flyer = connected_flyer(reconnect_timeout=60)
        setting("fill", 1)  # point by point, the first at once
        status = flight(flyer, 3600)
        in_flight(flyer)
        until(lambda: epics.caget("lost:y_array.NORD") == 1)
        took_off = flyer.timeline["busy"].stamp
        ioc.freeze()
        lost(flyer)
        assert not status.done
        ioc.thaw()
        until(lambda: state(flyer) == "FLYING")
        assert busy() == 1
        assert not status.done
        assert epics.caput("lost:mybusy", 0, timeout=20) == 1
        status.wait(60)
        assert flyer.timeline["busy"].stamp == took_off
        flyer.complete().wait(60)
        (page,) = flyer.collect_pages()
        assert len(page["time"]) == 1
        setting("fill", 0)
        flies_again(flyer)
        """,
        patience=2,
    ) == ["flies again"]


@pytest.mark.slow
@every_way
def test_frozen_for_so_long_that_the_flight_is_over_when_it_is_back(run: Run) -> None:
    """Nobody saw it end: it may have been another's."""
    said, again = run(
        """
        flyer = connected_flyer(reconnect_timeout=60)
        status = flight(flyer, 0.5)
        in_flight(flyer)
        ioc.freeze()
        lost(flyer)
        assert not status.done
        thaw_unseen()
        error = error_of(status)
        print(type(error).__name__, error)
        assert list(flyer.collect_pages()) == []
        flies_again(flyer)
        """,
        patience=2,
    )
    assert said.startswith("FlightLost lost:mybusy: the connection was lost, and the record came back Done")
    assert again == "flies again"


@by_events
def test_frozen_for_good(run: Run) -> None:
    (said,) = run("""
        flyer = connected_flyer(flight_timeout=0.5)
        setting("fault", 6)
        error = error_of(flight(flyer, 0.1))
        print(type(error).__name__, error)
        ioc.kill()  # at exit libca would wait for it
    """)
    assert said.startswith("FlightTimeout lost:mybusy: not Done within flight_timeout=0.5 s")


@by_events
def test_frozen_at_kickoff_and_left_alone(run: Run) -> None:
    """Nothing was put, as nothing of before was answered. The next kickoff is its own."""
    way, said, again = run("""
        print(way)
        flyer = connected_flyer(on_timeout="leave", start_timeout=0.5)
        setting("duration", 60)
        ioc.freeze()
        error = error_of(flyer.kickoff())
        print(type(error).__name__, error)
        flyer.start_timeout = 30
        ioc.thaw()
        flies_again(flyer)
    """)
    why = {
        "direct": "FlightTimeout lost:mybusy: what this process put before was not served within start_timeout=0.5 s",
        "ophyd": "FlightRefused lost:mybusy: nobody could tell which arrays are this flight's: lost:t_array does not",
    }
    assert said.startswith(why[way])
    assert again == "flies again"


@by_events
def test_frozen_at_two_kickoffs(run: Run) -> None:
    """The first puts nothing; the second goes out when the IOC answers, and nothing is blocked."""
    said, again = run("""
        flyer = connected_flyer(on_timeout="leave", start_timeout=0.5)
        setting("duration", 60)
        ioc.freeze()
        error_of(flyer.kickoff())
        flyer.start_timeout = 30
        status = flyer.kickoff()
        ioc.thaw()
        in_flight(flyer)
        flyer.stop()
        error = error_of(status)
        print(type(error).__name__, error)
        until(lambda: epics.caget("lost:duration") == 60)  # nothing is blocked
        flies_again(flyer)
    """)
    assert said.startswith("FlightAborted lost:mybusy: stop() was called")
    assert again == "flies again"


@pytest.mark.slow
@by_events
def test_away_at_kickoff_and_back_in_time(run: Run) -> None:
    assert run("""
        flyer = connected_flyer(start_timeout=60)
        ioc.kill()
        until(lambda: not flyer._wiring.driver.channel.ready)  # the client has to notice
        status = flyer.kickoff()
        ioc.restart()
        status.wait(60)
        flies_again(flyer)
    """) == ["flies again"]
