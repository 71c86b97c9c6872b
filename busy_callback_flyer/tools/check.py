"""Why do these PVs not fly? Everything that can be asked of them, and of a flyer; one line each.

Nothing is written, unless a flight is asked for: then one is flown, each verb in turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ophyd

from ..devices.flyer import BusyFlyer
from ..devices.taxi import TaxiFlyer
from ..engine.errors import FlightError
from ..engine.timeline import Timeline
from .check_records import records
from .findings import Finding, Mark, Report

__all__ = ["Finding", "Mark", "Report", "check"]

FLIGHT_TIMEOUT = 60.0
"""Seconds that the flight of a flyer without `flight_timeout` may take."""

AT_ONCE = 0.05
"""Seconds within which a put-callback comes with Done."""


def check(
    flyer: BusyFlyer,
    *,
    fly: bool = False,
    timeout: float = 5.0,
    named: bool = True,
    found: Callable[[Finding], object] = lambda finding: None,
) -> Report:
    """Look at a flyer and at its PVs; and fly it once, if asked to.

    Parameters
    ----------
    flyer : BusyFlyer
    fly : bool
        Whether to kick it off, complete and collect. Only then anything is written.
    timeout : float
        Seconds that its PVs may need to connect.
    named : bool
        Whether its user has named its columns: else only their PVs are spoken of.
    found : callable
        Takes each finding as soon as there is one.

    Raises
    ------
    RuntimeError
        ophyd's control layer is not pyepics.
    """
    if ophyd.get_cl().name != "pyepics":
        raise RuntimeError(f"PVs can be checked by pyepics only, and ophyd's control layer is {ophyd.get_cl().name}")
    report = Report()
    for finding in _findings(flyer, report, timeout, fly=fly, named=named):
        report.findings.append(finding)
        found(finding)
    return report


def _findings(flyer: BusyFlyer, report: Report, timeout: float, *, fly: bool, named: bool) -> Iterator[Finding]:
    yield from records(flyer, timeout, named=named)
    yield from _flyer(flyer)
    if fly:
        yield from _flight(flyer, timeout, named=named) if report.ok else _no_flight()


# The flyer


def _flyer(flyer: BusyFlyer) -> Iterator[Finding]:
    if flyer.flight_timeout is None:
        yield Finding(
            "flight_timeout",
            Mark.warning,
            "not set: a flight whose controller died stays in the air for as long as its IOC lives",
            "BusyFlyer(..., flight_timeout=...), in seconds; longer than the longest scan",
        )
    else:
        yield Finding("flight_timeout", Mark.ok, f"{flyer.flight_timeout:g} s")


def _keys(flyer: BusyFlyer) -> dict[str, str]:
    """Its data keys, and the PV of each."""
    description = flyer.describe_collect()
    streams = description.values() if flyer.describe_as == "nested" else [description]
    return {key: str(says["source"]).removeprefix("PV:") for keys in streams for key, says in keys.items()}


# A flight


def _no_flight() -> Iterator[Finding]:
    yield Finding("flight", Mark.failure, "none was flown, for what is said above", "mend that, and check again")


def _flight(flyer: BusyFlyer, timeout: float, *, named: bool) -> Iterator[Finding]:
    with _timeout_set(flyer):
        try:
            flyer.wait_for_connection(timeout=timeout)  # its own channels, too
            yield from _verbs(flyer, named=named)
        except (FlightError, RuntimeError, TimeoutError, ValueError) as error:
            yield Finding("flight", Mark.failure, f"{type(error).__name__}: {error}", _what_to_do(flyer.timeline))
        finally:
            if flyer.flying:
                flyer.stop()


@contextmanager
def _timeout_set(flyer: BusyFlyer) -> Iterator[None]:
    before = flyer.flight_timeout
    flyer.flight_timeout = before or FLIGHT_TIMEOUT
    try:
        yield
    finally:
        flyer.flight_timeout = before


def _verbs(flyer: BusyFlyer, *, named: bool) -> Iterator[Finding]:
    patience = (flyer.flight_timeout or FLIGHT_TIMEOUT) + flyer.start_timeout + flyer.reconnect_timeout
    if isinstance(flyer, TaxiFlyer):
        patience += (flyer.taxi_timeout or FLIGHT_TIMEOUT) + flyer.start_timeout + flyer.reconnect_timeout
    keys = _keys(flyer)
    said = ", ".join(sorted(keys)) if named else f"{len(keys)} data keys, of {', '.join(keys.values())}"
    yield Finding("describe_collect", Mark.ok, said if keys else "no keys")
    began = time.monotonic()
    status = flyer.kickoff()
    yield Finding("kickoff", Mark.ok, f"returned after {_ms(time.monotonic() - began)}")
    flyer.complete().wait(timeout=patience)
    status.wait(timeout=patience)
    timeline = flyer.timeline
    yield Finding("complete", Mark.ok, f"finished {time.monotonic() - began:.3f} s after kickoff")
    yield from _timeline(timeline)
    began = time.monotonic()
    pages = list(flyer.collect_pages())
    took = _ms(time.monotonic() - began)
    rows = sum(len(next(iter(page["data"].values()), ())) for page in pages)
    if not pages and keys:
        yield Finding("collect", Mark.warning, "the flight brought nothing", "does the controller fill the arrays?")
    elif any(set(page["data"]) != set(keys) for page in pages):
        yield Finding("collect", Mark.failure, "the pages' keys are not those of describe_collect", "report it, please")
    else:
        yield Finding("collect", Mark.ok, f"{rows} rows in {len(pages)} page{'s' * (len(pages) > 1)}, after {took}")
    yield Finding("flight", Mark.ok, "it flies")


def _timeline(timeline: Timeline) -> Iterator[Finding]:
    if timeline.latency is not None:
        yield Finding("latency", Mark.ok, f"finished {_ms(timeline.latency)} after the stamp of Done")
    put = timeline["put"]
    busy = next((mark for mark in timeline if mark.step == "busy"), None)
    if busy is None or busy.stamp is None:
        yield Finding(
            "stamps",
            Mark.warning,
            "Busy was not seen to be stamped: the flight was very short, or the record's stamps stand still",
            "times count from the client's put then; look at the record's TSE",
        )
    else:
        low, high = busy.stamp - busy.client, busy.stamp - put.client
        text = f"the IOC's clock less ours is between {_ms(low)} and {_ms(high)}"
        if low <= 0 <= high:
            yield Finding("clocks", Mark.ok, text)
        else:
            yield Finding("clocks", Mark.warning, text, "have both hosts' clocks set by NTP")
    yield from _put_callback(timeline)


def _put_callback(timeline: Timeline) -> Iterator[Finding]:
    callback, done, finished = timeline.get("callback"), timeline["done"], timeline["finished"]
    if callback is None:  # or nobody waits for one, as by polling
        late = finished.client - done.client
        if late > AT_ONCE:
            says = f"it came later than Done: the flight was known to be over by a further read, after {_ms(late)}"
            yield Finding("put-callback", Mark.note, says, "does FLNK start what takes its time?")
    elif done.client - callback.client > 2 * AT_ONCE:
        early = done.client - callback.client
        says = f"it came back {early:.3f} s before Done: who waits for it alone is told too early"
        yield Finding("put-callback", Mark.note, says)
    else:
        yield Finding("put-callback", Mark.ok, "it came back with Done")


def _what_to_do(timeline: Timeline) -> str:
    if "put" not in timeline:
        return "the record could not be made ready: see what it says above"
    if "busy" in timeline and "done" not in timeline:
        return "the record went Busy and nobody wrote Done: does the controller run, and is this its record?"
    return "the message says what was awaited"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.2f} ms"
