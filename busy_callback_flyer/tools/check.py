"""Why do these PVs not fly? Everything that can be asked of them, and of a flyer; one line each.

Nothing is written, unless a flight is asked for: then one is flown, each verb in turn.
"""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import ophyd
from ophyd.signal import EpicsSignalBase

# isort: split
import epics

from ..channels.choice import state_of
from ..devices.columns import collected_names, column_names
from ..devices.flyer import BusyFlyer
from ..devices.taxi import TaxiFlyer
from ..engine.errors import FlightError
from ..engine.ports import BUSY, EPICS_EPOCH
from ..engine.timeline import Timeline

__all__ = ["Finding", "Mark", "Report", "check"]

LINK_ALARM = 14
DEVICE_TIME = -2
"""TSE of a record whose stamps are its device support's."""

BUSY_FIELDS = ("RTYP", "DISP", "HIGH", "OMSL", "TSE", "OUT", "FLNK")

FIELD_TIMEOUT = 1.0
"""Seconds that a record's fields may need to connect, where the record itself has."""

READ_TIMEOUT = 2.0

FLIGHT_TIMEOUT = 60.0
"""Seconds that the flight of a flyer without `flight_timeout` may take."""


class Mark(str, enum.Enum):
    """How bad it is."""

    ok = "ok"
    note = "note"
    """Nothing is wrong, but it is good to know."""
    warning = "warn"
    """It flies, but maybe not as it should."""
    failure = "FAIL"
    """It does not fly."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    """A PV, or what of the flyer."""
    mark: Mark
    says: str
    advice: str = ""
    """What to do; for what is wrong there is always something."""

    def __str__(self) -> str:
        line = f"{self.mark.value:<5} {self.subject}: {self.says}"
        return f"{line}\n      -> {self.advice}" if self.advice else line


@dataclass
class Report:
    """What `check` found."""

    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing stands in the way of a flight."""
        return all(finding.mark is not Mark.failure for finding in self.findings)

    @property
    def summary(self) -> str:
        """In a sentence."""
        marks = [finding.mark for finding in self.findings]
        failures, warnings = marks.count(Mark.failure), marks.count(Mark.warning)
        warned = f", with {warnings} warning{'s' * (warnings > 1)}" if warnings else ""
        if failures:
            return f"It does not fly: {failures} thing{'s' * (failures > 1)} to mend{warned}."
        if "flight" in [finding.subject for finding in self.findings]:
            return f"It flies{warned}."
        return f"Nothing is in the way of a flight{warned}; --fly tries one."

    def to_dict(self) -> dict[str, Any]:
        """Of plain values, for a JSON file."""
        return {"ok": self.ok, "findings": [{**asdict(found), "mark": found.mark.value} for found in self.findings]}

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings))


def check(
    flyer: BusyFlyer,
    *,
    fly: bool = False,
    timeout: float = 5.0,
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
    for finding in _findings(flyer, report, timeout, fly=fly):
        report.findings.append(finding)
        found(finding)
    return report


def _findings(flyer: BusyFlyer, report: Report, timeout: float, *, fly: bool) -> Iterator[Finding]:
    yield from _records(flyer, timeout)
    yield from _flyer(flyer)
    if fly:
        yield from _flight(flyer, timeout) if report.ok else _no_flight()


# The records


class _PVs:
    """PVs that are looked for together: those that are missing cost one timeout."""

    def __init__(self, names: Iterable[str], timeout: float) -> None:
        self._pvs = {name: epics.get_pv(name, auto_monitor=False) for name in names}
        deadline = time.monotonic() + timeout
        for pv in self._pvs.values():
            pv.wait_for_connection(timeout=max(0.01, deadline - time.monotonic()))

    def __getitem__(self, name: str) -> Any:
        return self._pvs[name]

    def get(self, name: str, **how: Any) -> Any:
        """Its value, read afresh; None where it cannot be had."""
        pv = self._pvs.get(name)
        return None if pv is None or not pv.connected else pv.get(use_monitor=False, timeout=READ_TIMEOUT, **how)


def _records(flyer: BusyFlyer, timeout: float) -> Iterator[Finding]:
    states = flyer.busy_states
    signals = [*states, *(getattr(flyer, attr).wave for attr in collected_names(flyer))]
    for signal in signals:
        if not isinstance(signal, EpicsSignalBase):
            advice = "give it components that are EPICS signals"
            yield Finding(signal.name, Mark.failure, f"it is a {type(signal).__name__}, not a PV", advice)
            return
    names = [signal.pvname for signal in signals]
    busy_names, array_names = names[: len(states)], names[len(states) :]
    fields = [_field(pv, name) for pv in busy_names for name in BUSY_FIELDS]
    pvs = _PVs(names, timeout)
    there = {_record_of(name) for name in names if pvs[name].connected}
    if not there:
        yield Finding(", ".join(names), Mark.failure, f"none of them connected within {timeout:g} s", _where_it_looks())
        return
    # Of what is there; a server that is no IOC of EPICS base may not have them.
    fields += [_field(name, "NORD") for name in array_names]
    served = _PVs([name for name in fields if _record_of(name) in there], min(timeout, FIELD_TIMEOUT))
    for name in busy_names:
        yield from _busy(flyer, name, pvs, served, timeout)
    lengths = {}
    for attr, name in zip(collected_names(flyer), array_names, strict=True):
        yield _array(flyer, attr, pvs[name], served, timeout)
        nord = served.get(_field(name, "NORD"))
        if nord is not None and not getattr(flyer, attr).string:
            lengths[name] = int(nord)
    yield from _others(flyer, names, {_record_of(name) for name in names} - there)
    if len(set(lengths.values())) > 1 and flyer.points is None and flyer.on_ragged == "error":
        said = ", ".join(f"{name} {length}" for name, length in lengths.items())
        yield Finding(
            "arrays",
            Mark.warning,
            f"they differ in length now: {said}",
            "that is an error after a flight; on_ragged='truncate' takes what all of them have",
        )


def _others(flyer: BusyFlyer, looked_at: list[str], missing: set[str]) -> Iterator[Finding]:
    """Signals that `wait_for_connection` waits for, too; they had as long to connect as those."""
    suspects = {}
    for walk in flyer.walk_signals():
        signal = walk.item
        if not isinstance(signal, EpicsSignalBase) or signal.pvname in looked_at:
            continue
        if not signal.connected and _record_of(signal.pvname) not in missing:
            suspects[signal.pvname] = walk
    pvs = _PVs(suspects, FIELD_TIMEOUT)  # a signal hears of its connection later than the PV, by another thread
    records = {state.parent: state for state in flyer.busy_states if state.parent is not flyer}
    for pv, walk in suspects.items():
        if pvs[pv].connected:
            continue
        attr = walk.dotted_name.split(".")[0]
        advice = f"is the name right? A subclass may do without: `{attr}`"
        if walk.item.parent in records:
            state = records[walk.item.parent].pvname.removeprefix(flyer.prefix)
            advice = f'no record of an IOC? `{attr} = Component(EpicsSignal, "{state}")` needs no fields of it'
        yield Finding(pv, Mark.failure, f"{walk.dotted_name} is not connected", advice)


def _where_it_looks() -> str:
    addresses = os.environ.get("EPICS_CA_ADDR_LIST", "")
    automatic = os.environ.get("EPICS_CA_AUTO_ADDR_LIST", "YES")
    return (
        "does the IOC run, and are the names right? It was looked for at "
        f"EPICS_CA_ADDR_LIST={addresses!r}, EPICS_CA_AUTO_ADDR_LIST={automatic}"
    )


def _record_of(pv: str) -> str:
    return pv.split(".")[0]


def _field(pv: str, field_name: str) -> str:
    return f"{_record_of(pv)}.{field_name}"


def _busy(flyer: BusyFlyer, name: str, pvs: _PVs, fields: _PVs, timeout: float) -> Iterator[Finding]:
    pv = pvs[name]
    if not pv.connected:
        yield Finding(name, Mark.failure, f"not connected within {timeout:g} s", _where_it_looks())
        return
    record_type = fields.get(_field(name, "RTYP"))
    strings = list(pv.enum_strs or ()) if pv.type.endswith("enum") else []
    if not 1 <= len(strings) <= 2:
        what = f"has {len(strings)} states" if strings else f"is a {pv.type.removeprefix('time_')}"
        advice = "its `busy` has to be a synApps busy record"
        yield Finding(name, Mark.failure, f"no busy record: it {what}, and a binary is needed", advice)
        return
    says = f"a {record_type or 'binary'} record, served by {pv.host}; it says {' and '.join(map(repr, strings))}"
    if record_type == "busy":
        yield Finding(name, Mark.ok, says)
    else:
        yield Finding(
            name,
            Mark.warning,
            f"{says}. Of another record than busy the put-callback may come back at once",
            "it flies; a busy record would tell a refused put and another client's flight with more certainty",
        )
    yield from _put(name, pv, fields)
    yield _now(flyer, name, pv)
    yield from _behaviour(name, fields)


def _put(name: str, pv: Any, fields: _PVs) -> Iterator[Finding]:
    if not pv.write_access:
        yield Finding(
            name, Mark.failure, "it is read-only for this user and host", "ask who keeps the IOC's access security"
        )
    elif fields.get(_field(name, "DISP")):
        yield Finding(name, Mark.failure, "puts are disabled (DISP is 1)", f"put 0 to {_field(name, 'DISP')}")
    else:
        yield Finding(name, Mark.ok, "it can be put to")


def _now(flyer: BusyFlyer, name: str, pv: Any) -> Finding:
    news = pv.get_with_metadata(form="time", use_monitor=False, timeout=READ_TIMEOUT)
    if news is None:
        return Finding(name, Mark.failure, f"a read was not answered within {READ_TIMEOUT:g} s", "is the IOC alive?")
    stamp = news["timestamp"]
    never = stamp <= EPICS_EPOCH
    when = "never processed" if never else f"since {_time(stamp)}"
    if news["status"] == LINK_ALARM:
        advice = f"look at {_field(name, 'OUT')}: the controller may never get what is put"
        return Finding(name, Mark.warning, f"LINK alarm, {when}", advice)
    if news["value"] == BUSY:
        done = {
            "reset": "kickoff will write Done first (when_busy='reset')",
            "wait": "kickoff will wait for that flight (when_busy='wait')",
            "fail": "nothing is flown meanwhile (when_busy='fail'): wait for that flight, or write Done",
        }
        mark = Mark.failure if flyer.when_busy == "fail" else Mark.warning
        return Finding(name, mark, f"Busy now, {when}", done[flyer.when_busy])
    alarm = "" if never or not news["severity"] else f", alarm severity {news['severity']} status {news['status']}"
    return Finding(name, Mark.ok, f"Done now, {when}{alarm}")


def _behaviour(name: str, fields: _PVs) -> Iterator[Finding]:
    seconds = fields.get(_field(name, "HIGH"))
    if seconds:
        advice = f"put 0 to {_field(name, 'HIGH')}, if the controller is to write Done"
        yield Finding(name, Mark.warning, f"it becomes Done by itself after {seconds:g} s (HIGH)", advice)
    if fields.get(_field(name, "OMSL")) == 1:
        advice = f"put 'supervisory' to {_field(name, 'OMSL')}"
        yield Finding(name, Mark.warning, "its value comes from DOL (OMSL is closed_loop)", advice)
    if fields.get(_field(name, "TSE")) == DEVICE_TIME:
        advice = f"put 0 to {_field(name, 'TSE')}, unless something sets its time"
        yield Finding(name, Mark.warning, "its stamps are its device's (TSE is -2), and may stand still", advice)
    links = [fields.get(_field(name, link), as_string=True) for link in ("OUT", "FLNK")]
    if links == ["", ""]:
        yield Finding(name, Mark.note, "OUT and FLNK are empty: the controller has to watch the record")


def _array(flyer: BusyFlyer, attr: str, pv: Any, fields: _PVs, timeout: float) -> Finding:
    if not pv.connected:
        inherited = attr in column_names(BusyFlyer)
        advice = "is the name right?" + (f" A subclass without it has `{attr} = None`" if inherited else "")
        return Finding(pv.pvname, Mark.failure, f"not connected within {timeout:g} s", advice)
    waveform, kind = getattr(flyer, attr), pv.type.removeprefix("time_")
    if kind in ("string", "enum"):
        advice = "numbers are needed, or characters (FTVL CHAR) with Waveform(string=True)"
        return Finding(pv.pvname, Mark.failure, f"it holds {kind}s", advice)
    if waveform.string and kind != "char":
        advice = "a text needs FTVL CHAR; numbers do without Waveform(string=True)"
        return Finding(pv.pvname, Mark.failure, f"it holds {kind}s, and a text is wanted", advice)
    nord = fields.get(_field(pv.pvname, "NORD"))
    holds = "an array of up to" if nord is None else f"{int(nord)} of"
    says = f"{attr}: {holds} {pv.nelm} {kind}s"
    if pv.host != epics.get_pv(state_of(flyer.busy).pvname).host and waveform.fresh is None:
        advice = "its age is not judged, as two hosts' clocks may differ; Waveform(fresh=True) asks for it"
        return Finding(pv.pvname, Mark.note, f"{says}, served by another IOC than the busy record, {pv.host}", advice)
    if nord is not None and nord == pv.nelm > 1 and flyer.points is None:
        advice = "if that is so after every flight, name what counts the points: points='...'"
        return Finding(pv.pvname, Mark.note, f"{says}: it is full", advice)
    return Finding(pv.pvname, Mark.ok, says)


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


def _keys(flyer: BusyFlyer) -> set[str]:
    description = flyer.describe_collect()
    nested = flyer.describe_as == "nested"
    return {key for keys in description.values() for key in keys} if nested else set(description)


# A flight


def _no_flight() -> Iterator[Finding]:
    yield Finding("flight", Mark.failure, "none was flown, for what is said above", "mend that, and check again")


def _flight(flyer: BusyFlyer, timeout: float) -> Iterator[Finding]:
    with _timeout_set(flyer):
        try:
            flyer.wait_for_connection(timeout=timeout)  # its own channels, too
            yield from _verbs(flyer)
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


def _verbs(flyer: BusyFlyer) -> Iterator[Finding]:
    patience = (flyer.flight_timeout or FLIGHT_TIMEOUT) + flyer.start_timeout + flyer.reconnect_timeout
    if isinstance(flyer, TaxiFlyer):
        patience += (flyer.taxi_timeout or FLIGHT_TIMEOUT) + flyer.start_timeout + flyer.reconnect_timeout
    keys = _keys(flyer)
    yield Finding("describe_collect", Mark.ok, ", ".join(sorted(keys)) or "no keys")
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
    elif any(set(page["data"]) != keys for page in pages):
        yield Finding("collect", Mark.failure, "the pages' keys are not those of describe_collect", "report it, please")
    else:
        yield Finding("collect", Mark.ok, f"{rows} rows in {len(pages)} page{'s' * (len(pages) > 1)}, after {took}")
    yield Finding("flight", Mark.ok, "it flies")


def _timeline(timeline: Timeline) -> Iterator[Finding]:
    pv = timeline["done"]
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
    if "callback" in timeline and busy is not None:
        early = pv.client - timeline["callback"].client
        if early > 0.1:
            yield Finding(
                "put-callback",
                Mark.note,
                f"it came back {early:.3f} s before Done: who waits for it alone is told too early",
            )
        else:
            yield Finding("put-callback", Mark.ok, "it came back with Done")


def _what_to_do(timeline: Timeline) -> str:
    if "put" not in timeline:
        return "the record could not be made ready: see what it says above"
    if "busy" in timeline and "done" not in timeline:
        return "the record went Busy and nobody wrote Done: does the controller run, and is this its record?"
    return "the message says what was awaited"


def _time(stamp: float) -> str:
    return datetime.fromtimestamp(stamp).astimezone().isoformat(" ", "seconds")


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.2f} ms"
