"""What a flyer's PVs are, and what about them is in the way of a flight. Nothing is written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from ophyd.signal import EpicsSignalBase

# isort: split
import epics

from ..channels.choice import state_of
from ..channels.epics import LINK, alarm_text
from ..devices.columns import collected_names, column_names
from ..devices.flyer import BusyFlyer
from ..engine.ports import BUSY, DONE, EPICS_EPOCH
from ..engine.timeline import dated
from .check_busy import DEVICE_TIME, FIELDS, behaviour
from .findings import Finding, Mark
from .pvs import FIELD_TIMEOUT, READ_TIMEOUT, PVs, field_of, record_of

__all__ = ["records"]

FLAGS = ("char", "int", "long", "short")
"""Types of integers that can be 0 and 1."""

_SAYS = {DONE: "Done", BUSY: "Busy"}


def records(flyer: BusyFlyer, timeout: float, *, named: bool) -> Iterator[Finding]:
    """What is to be said of each PV, see `check` for the parameters."""
    states, columns = flyer.busy_states, collected_names(flyer)
    signals = [*states, *(getattr(flyer, attr).wave for attr in columns)]
    for signal in signals:
        if not isinstance(signal, EpicsSignalBase):
            advice = "give it components that are EPICS signals"
            yield Finding(signal.name, Mark.failure, f"it is a {type(signal).__name__}, not a PV", advice)
            return
    names = [signal.pvname for signal in signals]
    busy_names, array_names = names[: len(states)], names[len(states) :]
    pvs = PVs(names, timeout)
    there = {record_of(name) for name in names if pvs[name].connected}
    if not there:
        yield Finding(", ".join(names), Mark.failure, f"none of them connected within {timeout:g} s", _where_it_looks())
        return
    # Of what is there; a server that is no IOC of EPICS base may not have them.
    wanted = [field_of(name, field) for name in busy_names for field in FIELDS]
    wanted += [field for name in array_names for field in (field_of(name, "TSE"), _nord(name)) if field]
    fields = PVs([field for field in wanted if record_of(field) in there], min(timeout, FIELD_TIMEOUT))
    for name in busy_names:
        yield from _busy(flyer, name, pvs[name], fields, timeout)
    lengths = {}
    for attr, name in zip(columns, array_names, strict=True):
        yield _array(flyer, attr, pvs[name], fields, timeout, named=named)
        yield from _array_stamps(flyer, attr, name, fields)
        nord = fields.get(_nord(name))
        if nord is not None and not getattr(flyer, attr).string:
            lengths[name] = int(nord)
    yield from _others(flyer, names, {record_of(name) for name in names} - there)
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
        if not signal.connected and record_of(signal.pvname) not in missing:
            suspects[signal.pvname] = walk
    pvs = PVs(suspects)  # a signal hears of its connection later than the PV, by another thread
    states = {state.parent: state for state in flyer.busy_states if state.parent is not flyer}
    for pv, walk in suspects.items():
        if pvs[pv].connected or walk.item.connected:
            continue
        attr = walk.dotted_name.split(".")[0]
        advice = f"is the name right? A subclass may do without: `{attr}`"
        if walk.item.parent in states:
            state = states[walk.item.parent].pvname.removeprefix(flyer.prefix)
            advice = f'no record of an IOC? `{attr} = Component(EpicsSignal, "{state}")` needs no fields of it'
        yield Finding(pv, Mark.failure, f"{walk.dotted_name} is not connected", advice)


def _where_it_looks() -> str:
    addresses = os.environ.get("EPICS_CA_ADDR_LIST", "")
    automatic = os.environ.get("EPICS_CA_AUTO_ADDR_LIST", "YES")
    return (
        "does the IOC run, and are the names right? It was looked for at "
        f"EPICS_CA_ADDR_LIST={addresses!r}, EPICS_CA_AUTO_ADDR_LIST={automatic}"
    )


def _kind(pv: Any) -> str:
    kind: str = pv.type.removeprefix("time_")
    return kind


# Busy records


def _busy(flyer: BusyFlyer, name: str, pv: Any, fields: PVs, timeout: float) -> Iterator[Finding]:
    if not pv.connected:
        yield Finding(name, Mark.failure, f"not connected within {timeout:g} s", _where_it_looks())
        return
    news = pv.get_with_metadata(form="time", use_monitor=False, timeout=READ_TIMEOUT)
    if news is None:
        yield Finding(name, Mark.failure, f"a read was not answered within {READ_TIMEOUT:g} s", "is the IOC alive?")
        return
    unfit = _unfit(pv, news["value"])
    if unfit:
        says = f"no busy record: it {unfit}, and a binary is needed, or an integer that is 0 or 1"
        yield Finding(name, Mark.failure, says, "a synApps busy record is right, or a flag such as sscan's EXSC")
        return
    yield _what_it_is(name, pv, fields.get(field_of(name, "RTYP")))
    yield _put(name, pv, fields)
    yield _now(flyer, name, news)
    yield from behaviour(name, fields)


def _unfit(pv: Any, value: Any) -> str | None:
    """Why this cannot be a busy record."""
    if _kind(pv) == "enum":
        states = len(pv.enum_strs or ())
        return None if 1 <= states <= 2 else f"has {states} states"
    if _kind(pv) not in FLAGS:
        return f"is a {_kind(pv)}"
    if pv.nelm != 1:
        return f"holds {pv.nelm} elements"
    return None if value in (DONE, BUSY) else f"says {value}"


def _what_it_is(name: str, pv: Any, record_type: str | None) -> Finding:
    if _kind(pv) in FLAGS:
        of = f" of a {record_type} record" if record_type else ""
        says = f"an integer flag{of}, served by {pv.host}: 1 is Busy, 0 is Done"
        return Finding(name, Mark.note, says, "it flies well if its put-callback comes when it is 0 again")
    strings = " and ".join(map(repr, pv.enum_strs))
    says = f"a {record_type or 'binary'} record, served by {pv.host}; it says {strings}"
    if record_type == "busy":
        return Finding(name, Mark.ok, says)
    return Finding(
        name,
        Mark.warning,
        f"{says}. Of another record than busy the put-callback may come back at once",
        "it flies; a busy record would tell a refused put and another client's flight with more certainty",
    )


def _put(name: str, pv: Any, fields: PVs) -> Finding:
    if not pv.write_access:
        says, advice = "it is read-only for this user and host", "ask who keeps the IOC's access security"
        return Finding(name, Mark.failure, says, advice)
    if fields.get(field_of(name, "DISP")):
        return Finding(name, Mark.failure, "puts are disabled (DISP is 1)", f"put 0 to {field_of(name, 'DISP')}")
    return Finding(name, Mark.ok, "it can be put to")


def _now(flyer: BusyFlyer, name: str, news: dict[str, Any]) -> Finding:
    value, stamp, severity, status = (int(news["value"]), news["timestamp"], news["severity"], news["status"])
    never = stamp <= EPICS_EPOCH
    when = "never processed" if never else f"since {dated(stamp)}"
    if status == LINK:
        advice = f"look at {field_of(name, 'OUT')}: the controller may never get what is put"
        return Finding(name, Mark.warning, f"LINK alarm, {when}", advice)
    if value != DONE:
        done = {
            "reset": "kickoff will write Done first (when_busy='reset')",
            "wait": "kickoff will wait until it is Done (when_busy='wait')",
            "fail": "nothing is flown meanwhile (when_busy='fail'): wait until it is Done, or write Done",
        }
        mark = Mark.failure if flyer.when_busy == "fail" else Mark.warning
        says = _SAYS.get(value, f"{value}, neither Busy nor Done")
        return Finding(name, mark, f"{says} now, {when}", done[flyer.when_busy])
    alarm = "" if never else alarm_text(severity, status)
    return Finding(name, Mark.ok, f"Done now, {when}" + (f", alarm severity {severity} {alarm}" if alarm else ""))


# Arrays


def _nord(name: str) -> str:
    """The field that says how many elements an array holds; empty where the PV is itself a field."""
    return "" if "." in name.removesuffix(".VAL") else field_of(name, "NORD")


def _array(flyer: BusyFlyer, attr: str, pv: Any, fields: PVs, timeout: float, *, named: bool) -> Finding:
    name = pv.pvname
    if not pv.connected:
        inherited = named and attr in column_names(BusyFlyer)
        advice = "is the name right?" + (f" A subclass without it has `{attr} = None`" if inherited else "")
        return Finding(name, Mark.failure, f"not connected within {timeout:g} s", advice)
    text, kind = getattr(flyer, attr).string, _kind(pv)
    if text and not (kind == "char" or (kind == "string" and pv.nelm == 1)):
        advice = "a text needs FTVL CHAR, or one string; numbers do without Waveform(string=True)"
        return Finding(name, Mark.failure, f"it holds {kind}s, and a text is wanted", advice)
    if not text and kind in ("string", "enum"):
        advice = "numbers are needed, or characters (FTVL CHAR) with Waveform(string=True)"
        return Finding(name, Mark.failure, f"it holds {kind}s", advice)
    nord = fields.get(_nord(name))
    says = f"{attr}: " if named else ""
    says += f"{'an array of up to' if nord is None else f'{int(nord)} of'} {pv.nelm} {kind}s"
    busy = epics.get_pv(state_of(flyer.busy).pvname)
    if busy.connected and pv.host != busy.host:
        return Finding(name, Mark.note, f"{says}, served by another IOC than the busy record, {pv.host}")
    if nord is not None and nord == pv.nelm > 1 and flyer.points is None and not text:
        advice = "if that is so after every flight, name what counts the points: points='...'"
        return Finding(name, Mark.note, f"{says}: it is full", advice)
    return Finding(name, Mark.ok, says)


def _array_stamps(flyer: BusyFlyer, attr: str, name: str, fields: PVs) -> Iterator[Finding]:
    if fields.get(field_of(name, "TSE")) == DEVICE_TIME and getattr(flyer, attr).fresh is not False:
        says = "its stamps are its device's (TSE is -2), and may stand still: then it is taken for an earlier flight's"
        advice = f"put 0 to {field_of(name, 'TSE')}, or do not have its age judged: Waveform(fresh=False)"
        yield Finding(name, Mark.warning, says, advice)
