"""Verdicts on records as they come: stamps that stand still, queued clients, chains behind OUT, refused Dones, silence.

What can be tried in memory is in `tests/engine/test_freshness.py`; here are the same kinds at the embedded IOC.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import partial

import epics
import pytest
from ophyd import Component

from busy_callback_flyer import (
    BusyFlyer,
    BusyRecord,
    FlightAborted,
    FlightTimeout,
    StaleArrayError,
    Waveform,
)
from busy_callback_flyer.channels.ca import CABusy
from busy_callback_flyer.engine.ports import PutAnswer

from ..channels.listening import Listener
from ..conftest import PREFIX, look
from .interruptions import HandFlyer
from .test_in_flight import (
    BUSY_PV,
    OWN_PV,
    TIMEOUT,
    Controller,
    Make,
    SetField,
    by_events,
    collects,
    every_way,
    flies,
    flies_by_hand,
    in_flight,
    set_field,
    until,
    way,
)

__all__ = ["set_field", "way"]  # fixtures


def is_busy_anew(since: float) -> bool:
    """Whether it is Busy, and not by the Busy of this stamp."""
    value, stamp = look(OWN_PV)
    return value == 1 and stamp != since


def write(offset: float) -> None:
    for array, values in (("t", [1.0, 2.0, 3.0]), ("x", [offset, offset + 1, offset + 2]), ("y", [7.0, 8.0, 9.0])):
        assert epics.caput(f"{PREFIX}{array}_array", values, wait=True, timeout=10) == 1


# Freshness


@by_events
def test_stamps_of_the_record_that_stand_still_let_nothing_old_pass(
    way: Make, controller: Controller, set_field: SetField
) -> None:
    set_field(f"{BUSY_PV}.TSE", -2)
    flyer = way(fresh_timeout=0, flight_timeout=TIMEOUT)
    flies(flyer, controller)
    assert "no delays: the record's stamps stand still" in str(flyer.timeline)
    assert flyer.timeline.latency is None
    controller(npts=7, duration=0.02, fault=4)  # the arrays are not written
    for _ in range(2):
        flyer.kickoff().wait(TIMEOUT)
        with pytest.raises(StaleArrayError, match="not written since the put of Busy"):
            flyer.complete().wait(TIMEOUT)
    flies(flyer, controller)


@every_way
def test_stamps_of_an_array_that_stand_still_are_told(way: Make, controller: Controller, set_field: SetField) -> None:
    """They can tell nothing, and the error says so, and what to do."""
    set_field(f"{PREFIX}x_array.TSE", -2)
    flyer = way(fresh_timeout=0)
    controller(npts=7, duration=0.02)
    flyer.kickoff().wait(TIMEOUT)
    with pytest.raises(StaleArrayError, match=r"x_array \(.*TSE=-2.*fresh=False") as caught:
        flyer.complete().wait(TIMEOUT)
    assert f"{PREFIX}y_array" not in str(caught.value)


@pytest.mark.parametrize("events", ["direct", "ophyd"])
@pytest.mark.parametrize("ours", [False, True])
def test_of_two_queued_clients_the_second_must_write_its_own(
    make_flyer: Make, monkeypatch: pytest.MonkeyPatch, events: str, ours: bool
) -> None:
    """Our put is queued in the IOC behind another client's, which came just before it."""
    flyer = make_flyer(HandFlyer, events=events, fresh_timeout=0)
    other = CABusy(OWN_PV, listener := Listener())
    assert other.wait_ready(TIMEOUT)
    channel = flyer._wiring.driver.channel
    put_callback = channel.put_callback

    def put_behind_another(value: int, answer: PutAnswer) -> None:
        other.put_callback(1, lambda put, text: None)
        while listener.next()[1].value != 1:
            pass
        put_callback(value, answer)

    monkeypatch.setattr(channel, "put_callback", put_behind_another)
    for round in range(5):
        status = flyer.kickoff()
        until(lambda: look(OWN_PV)[0] == 1)
        theirs = look(OWN_PV)[1]
        write(100.0 + round)
        epics.caput(OWN_PV, 0)
        until(partial(is_busy_anew, theirs))
        if ours:
            write(float(round))
        epics.caput(OWN_PV, 0)
        status.wait(TIMEOUT)
        if ours:
            collects(flyer, [round, round + 1, round + 2])
        else:
            with pytest.raises(StaleArrayError, match="another client flew the busy record"):
                flyer.complete().wait(TIMEOUT)
    other.close()


class Chained(BusyFlyer):
    """Its array is written by a chain behind the record's OUT, in the record's own processing."""

    tArr = xArr = yArr = None  # noqa: N815
    busy = Component(BusyRecord, "chained", kind="config")
    scanned = Component(Waveform, "scanned", kind="config")


@pytest.mark.parametrize("events", ["direct", "ophyd"])
def test_arrays_of_a_chain_behind_out_are_of_this_flight(make_flyer: Make, controller: Controller, events: str) -> None:
    """They are stamped before Busy is."""
    flyer = make_flyer(Chained, events=events, time_array=None, fresh_timeout=0)
    for seed in (3, 4, 5):
        controller(seed=seed)
        status = flyer.kickoff()
        until(lambda: look(f"{PREFIX}chained")[0] == 1)
        epics.caput(f"{PREFIX}chained", 0)
        status.wait(TIMEOUT)
        flyer.complete().wait(TIMEOUT)
        (page,) = flyer.collect_pages()
        assert page["data"]["ifly_scanned"][-1] == seed
        assert look(f"{PREFIX}scanned")[1] <= look(f"{PREFIX}chained")[1]


# A Done that could not be written


def refuse_puts(refuse: int) -> None:
    """Not waited for: a put-callback would be queued behind the flight's."""
    epics.caput(f"{OWN_PV}.DISP", refuse)
    assert look(f"{OWN_PV}.DISP")[0] == refuse


@pytest.fixture
def writable_again(way: Make) -> Iterator[None]:
    yield
    refuse_puts(0)
    epics.caput(OWN_PV, 0)


@every_way
@pytest.mark.parametrize("ended_by", ["stop", "timeout"])
def test_a_done_that_is_refused_is_told(
    way: Make, writable_again: None, caplog: pytest.LogCaptureFixture, ended_by: str
) -> None:
    flyer = way("own", flight_timeout=None if ended_by == "stop" else 0.5)
    status = flyer.kickoff()
    in_flight(flyer)
    refuse_puts(1)
    if ended_by == "stop":
        flyer.stop()
    error = status.exception(TIMEOUT)
    assert type(error) is (FlightAborted if ended_by == "stop" else FlightTimeout)
    assert "Done could not be written: the record still says Busy" in str(error)
    assert "DISP" in str(error)
    assert f"Done could not be written to {OWN_PV}" in caplog.text
    assert look(OWN_PV)[0] == 1
    refuse_puts(0)
    epics.caput(OWN_PV, 0)
    assert look(OWN_PV)[0] == 0
    flies_by_hand(flyer)


@every_way
def test_a_reset_that_is_refused_says_why(way: Make, writable_again: None) -> None:
    epics.caput(OWN_PV, 1)
    assert look(OWN_PV)[0] == 1
    flyer = way("own", start_timeout=0.5)
    refuse_puts(1)
    error = flyer.kickoff().exception(TIMEOUT)
    assert type(error) is FlightTimeout
    assert "Done was put, but the record stayed Busy for 0.5 s: the record still says Busy" in str(error)
    assert "DISP" in str(error)


# flight_timeout bounds everything


@every_way
def test_a_wait_for_anothers_flight_ends(way: Make) -> None:
    epics.caput(OWN_PV, 1)
    assert look(OWN_PV)[0] == 1
    flyer = way("own", when_busy="wait", flight_timeout=0.3)
    error = flyer.kickoff().exception(TIMEOUT)
    assert type(error) is FlightTimeout
    assert "not Done within flight_timeout=0.3 s of kickoff: Busy was not put" in str(error)
    assert look(OWN_PV)[0] == 1, "it is another client's"
    epics.caput(OWN_PV, 0)


# Waits that end


PROGRAM = """
import os, sys, threading
from busy_callback_flyer.ioc import EmbeddedIOC

way = sys.argv[1]
ioc = EmbeddedIOC("lost:", nelm=5000)
ioc.start()
os.environ.update(ioc.client_environment)
{environment}
import bluesky, epics
from busy_callback_flyer import BusyFlyer, CollectError
from busy_callback_flyer.engine import collector
from busy_callback_flyer.plans import fly

TIMEOUT = 60
flyer = BusyFlyer("lost:", name="ifly", events=way, flight_timeout=TIMEOUT)
flyer.wait_for_connection(timeout=TIMEOUT)
assert epics.caput("lost:duration", 0.05, wait=True, timeout=TIMEOUT) == 1
assert epics.caput("lost:npts", {points}, wait=True, timeout=TIMEOUT) == 1

def error_of(status):
    try:
        status.wait(TIMEOUT)
    except CollectError as error:
        return str(error)
    raise AssertionError("it finished")
"""


def run(code: str, way: str, *, environment: str = "", points: int = 5) -> list[str]:
    """Run it in a process with an IOC of its own; the lines that it printed."""
    program = PROGRAM.format(environment=environment, points=points) + textwrap.dedent(code)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EPICS_")}
    done = subprocess.run(
        [sys.executable, "-c", program, way], capture_output=True, text=True, env=inherited, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


TOO_LONG = 'os.environ.update(EPICS_CA_AUTO_ARRAY_BYTES="NO", EPICS_CA_MAX_ARRAY_BYTES="16384")'


def test_an_answer_that_libca_drops_is_given_up_and_the_error_says_what_to_set() -> None:
    (said,) = run(
        """
        collector.PATIENCE = 0.5
        flyer.kickoff().wait(TIMEOUT)
        print(error_of(flyer.complete()))
        """,
        "direct",
        environment=TOO_LONG,
        points=5000,
    )
    assert said.startswith("no answer within 0.6")
    assert "lost:x_array (up to 40064 bytes, and EPICS_CA_MAX_ARRAY_BYTES is 16384" in said
    assert "Set it to 40064 or more" in said


@pytest.mark.parametrize("ender", ["flyer.stop()", "flyer.unstage()", "flyer.kickoff()"])
def test_who_waits_for_arrays_is_told_at_once(ender: str) -> None:
    """By stop, unstage and the next kickoff. Here nothing else would ever tell."""
    said = run(
        f"""
        collector.PATIENCE = 1e6
        flyer.kickoff().wait(TIMEOUT)
        status = flyer.complete()
        assert not status.done
        {ender}
        print(error_of(status))
        """,
        "direct",
        environment=TOO_LONG,
        points=5000,
    )
    assert "before the arrays of the flight had come" in said[0]


@pytest.mark.parametrize("way", ["direct", "ophyd"])
def test_an_abort_behind_a_server_that_fell_silent_after_done(way: str) -> None:
    """Nothing waits: not the RunEngine, not collect. Only a deadline that is far away would tell."""
    said = run(
        """
        collector.PATIENCE = 1e6
        RE = bluesky.RunEngine({}, context_managers=[])
        RE.subscribe(lambda name, doc: print(name, doc.get("exit_status", "")))
        frozen = threading.Event()

        def freeze(**_):
            ioc.freeze()
            frozen.set()

        kickoff = flyer.kickoff

        def kickoff_and_freeze():
            status = kickoff()
            status.add_callback(lambda status: freeze())  # Done is told ahead of the question for the arrays
            return status

        flyer.kickoff = kickoff_and_freeze

        def pause():
            frozen.wait(TIMEOUT)
            RE.request_pause()

        threading.Thread(target=pause, daemon=True).start()
        try:
            RE(fly(flyer))
        except bluesky.utils.RunEngineInterrupted:
            pass
        RE.abort()
        print("aborted", RE.state)
        sys.stdout.flush()
        ioc.kill()
        os._exit(0)
        """,
        way,
    )
    assert said[0] == "start "
    assert said[-2:] == ["stop abort", "aborted idle"]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["direct", "ophyd"])
def test_the_first_kickoff_after_a_restart_has_reconnect_timeout(way: str) -> None:
    """libca needs up to 10 s; start_timeout is meant for what was there."""
    said = run(
        """
        flyer.start_timeout, flyer.reconnect_timeout = 0.2, 60
        channel = flyer._wiring.driver.channel
        ioc.kill()
        while channel.ready:
            pass
        status = flyer.kickoff()
        ioc.restart()
        status.wait(TIMEOUT)
        flyer.complete().wait(TIMEOUT)
        print(len(next(flyer.collect_pages())["time"]))
        """,
        way,
    )
    assert said == ["51"], "as many as the restarted controller flies by itself"
