"""An IOC that goes away in flight: the flight is lost, never finished, and the next one flies.

Each test is a process of its own, with an IOC of its own to break.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

TIMEOUT = 100.0

PREAMBLE = """
import os, sys, time
from busy_callback_flyer.ioc import EmbeddedIOC

ioc = EmbeddedIOC("lost:")
ioc.start()
os.environ.update(ioc.client_environment)

from busy_callback_flyer import BusyFlyer, FlightError, FlightLost, FlightTimeout
import epics

def flight(flyer, duration):
    assert epics.caput("lost:duration", duration, wait=True, timeout=20) == 1
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

def flies_again(flyer):
    flyer.wait_for_connection(timeout=60)
    flight(flyer, 0.05).wait(60)
    flyer.complete().wait(60)
    (page,) = flyer.collect_pages()
    assert len(page["time"]) == 51
    print("flies again")
"""


def run(code: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EPICS_")}
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("flyer", ["BusyFlyer", "PollingFlyer"])
def test_killed_and_not_back(flyer: str) -> None:
    said = run(f"""
        from busy_callback_flyer import {flyer}
        flyer = {flyer}("lost:", name="ifly", reconnect_timeout=0.5)
        flyer.wait_for_connection(timeout=20)
        status = flight(flyer, 60)
        in_flight(flyer)
        ioc.kill()
        error = error_of(status)
        print(type(error).__name__, error)
        assert list(flyer.collect_pages()) == []
    """)
    assert said.startswith("FlightLost lost:mybusy: the connection was lost in flight")
    assert "reconnect_timeout=0.5 s" in said


def test_restarted_in_flight() -> None:
    said = run("""
        flyer = BusyFlyer("lost:", name="ifly", reconnect_timeout=60)
        flyer.wait_for_connection(timeout=20)
        status = flight(flyer, 60)
        in_flight(flyer)
        ioc.kill()
        ioc.restart()
        print(type(error_of(status)).__name__)
        flies_again(flyer)
    """)
    assert said.split("\n") == ["FlightLost", "flies again", ""]


def test_controller_that_dies_takes_its_ioc_along() -> None:
    """The pseudo-controller lives in the IOC: fault `die in flight` is a SIGKILL of both."""
    said = run("""
        flyer = BusyFlyer("lost:", name="ifly", reconnect_timeout=0.5)
        flyer.wait_for_connection(timeout=20)
        epics.caput("lost:fault", 5, wait=True, timeout=20)
        print(type(error_of(flight(flyer, 0.1))).__name__)
        assert not ioc.alive
    """)
    assert said == "FlightLost\n"


def test_frozen_for_a_while() -> None:
    """Nothing is lost by it: the flight goes on where it stood still."""
    said = run("""
        flyer = BusyFlyer("lost:", name="ifly")
        flyer.wait_for_connection(timeout=20)
        status = flight(flyer, 0.2)
        in_flight(flyer)
        ioc.freeze()
        assert not status.done
        ioc.thaw()
        status.wait(60)
        flies_again(flyer)
    """)
    assert said == "flies again\n"


def test_frozen_for_good() -> None:
    said = run("""
        flyer = BusyFlyer("lost:", name="ifly", flight_timeout=0.5)
        flyer.wait_for_connection(timeout=20)
        epics.caput("lost:fault", 6, wait=True, timeout=20)
        print(type(error_of(flight(flyer, 0.1))).__name__)
        ioc.kill()  # at exit libca would wait for it
    """)
    assert said == "FlightTimeout\n"


def test_away_at_kickoff_and_back_in_time() -> None:
    said = run("""
        flyer = BusyFlyer("lost:", name="ifly", start_timeout=60)
        flyer.wait_for_connection(timeout=20)
        ioc.kill()
        until(lambda: not flyer._channel.ready)  # the client has to notice
        status = flyer.kickoff()
        ioc.restart()
        status.wait(60)
        flies_again(flyer)
    """)
    assert said == "flies again\n"
