"""What fields of a busy record are in the way of a flight, or make it other than one would think."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from .findings import Finding, Mark
from .pvs import PVs, field_of, record_of

__all__ = ["FIELDS", "behaviour"]

FIELDS = (
    *("RTYP", "DISP", "DISA", "DISV", "SDIS", "SCAN", "SIMM", "SIML", "IVOA", "OSV", "ZSV", "COSV"),
    *("HIGH", "OMSL", "TSE", "OUT", "FLNK"),
)

DEVICE_TIME = -2
"""TSE of a record whose stamps are its device support's."""

INVALID = 3
DRIVES = {1: "OUT is not written", 2: "OUT is written what IVOV says"}
"""By IVOA, in INVALID alarm."""

SLOW = ("asyn", "busy", "motor", "scaler", "sscan")
"""Types of records that take their time."""

DELAYS = {
    **dict.fromkeys(("calcout", "scalcout", "acalcout", "swait"), ("ODLY",)),
    "seq": tuple(f"DLY{number:X}" for number in range(16)),
    "sseq": tuple(f"DLY{number:X}" for number in range(1, 11)),
}
"""Fields of those that do so where they are told to."""

MOST_HOPS = 8

_Field = Callable[..., Any]
"""Gives the value of a field of the record; None where it has none."""


def behaviour(name: str, fields: PVs) -> Iterator[Finding]:
    """Whatever is other than by default; of `FIELDS` those that the record has."""

    def field(of: str, **how: Any) -> Any:
        return fields.get(field_of(name, of), **how)

    for look in (_disabled, _scanned, _simulated, _invalid, _done_by_itself, _stamped, _linked):
        yield from look(name, field)


def _disabled(name: str, field: _Field) -> Iterator[Finding]:
    value, source = _by_link(name, field, "DISA", "SDIS")
    if value is not None and value == field("DISV"):
        advice = f"put another value than {value} to {source}"
        says = f"it is disabled (DISA = DISV = {value}): nobody gets what is put to it"
        yield Finding(name, Mark.failure, says, advice)


def _scanned(name: str, field: _Field) -> Iterator[Finding]:
    if field("SCAN"):
        says = f"SCAN is {field('SCAN', as_string=True)!r}: what is put is acted upon at a scan, if there is one"
        advice = (
            f"put 'Passive' to {field_of(name, 'SCAN')}; otherwise it flies late, and its put-callback tells nothing"
        )
        yield Finding(name, Mark.warning, says, advice)


def _simulated(name: str, field: _Field) -> Iterator[Finding]:
    value, source = _by_link(name, field, "SIMM", "SIML")
    if value:
        yield Finding(name, Mark.warning, "it is simulated (SIMM): OUT is not written", f"put 0 to {source}")


def _invalid(name: str, field: _Field) -> Iterator[Finding]:
    drives, invalid = DRIVES.get(field("IVOA")), False
    for of, when in (("OSV", "when it is Busy"), ("ZSV", "when it is Done"), ("COSV", "whenever it changes")):
        if field(of) == INVALID:
            invalid = True
            then = f", and {drives} then (IVOA)" if drives else ""
            advice = f"put NO_ALARM to {field_of(name, of)}, unless that is meant"
            yield Finding(name, Mark.warning, f"it is in INVALID alarm {when} ({of}){then}", advice)
    if drives and not invalid:
        yield Finding(name, Mark.note, f"should it be in INVALID alarm, {drives} (IVOA)")


def _done_by_itself(name: str, field: _Field) -> Iterator[Finding]:
    seconds = field("HIGH")
    if seconds:
        advice = f"put 0 to {field_of(name, 'HIGH')}, if the controller is to write Done"
        yield Finding(name, Mark.warning, f"it becomes Done by itself after {seconds:g} s (HIGH)", advice)
    if field("OMSL") == 1:
        advice = f"put 'supervisory' to {field_of(name, 'OMSL')}"
        yield Finding(name, Mark.warning, "its value comes from DOL (OMSL is closed_loop)", advice)


def _stamped(name: str, field: _Field) -> Iterator[Finding]:
    if field("TSE") == DEVICE_TIME:
        says = "its stamps are its device's (TSE is -2), and may stand still: then a flight's t0 and delays are ours"
        yield Finding(name, Mark.warning, says, f"put 0 to {field_of(name, 'TSE')}, unless something sets its time")


def _linked(name: str, field: _Field) -> Iterator[Finding]:
    links = [field(link, as_string=True) for link in ("OUT", "FLNK")]
    if links == ["", ""]:
        yield Finding(name, Mark.note, "OUT and FLNK are empty: the controller has to watch the record")
    slow = _slow(links[1], {record_of(name)})
    if slow:
        says = f"FLNK leads to {slow}, which may take its time: the put-callback comes when that is over"
        yield Finding(name, Mark.note, says, "Done is certain 0.1 s later then, as it takes a further read")


def _slow(link: str | None, seen: set[str]) -> str | None:
    """The first record along forward links that takes its time, and its type."""
    target = _target(link)
    while target and record_of(target) not in seen and len(seen) <= MOST_HOPS:
        seen.add(record_of(target))
        ask = partial(field_of, target)
        fields = PVs(map(ask, ("RTYP", "FLNK")))
        kind = fields.get(ask("RTYP"))
        delays = list(map(ask, DELAYS.get(kind, ())))
        waits = PVs(delays)
        if kind in SLOW or any(map(waits.get, delays)):
            return f"{record_of(target)}, a {kind} record"
        target = _target(fields.get(ask("FLNK"), as_string=True))
    return None


def _by_link(name: str, field: _Field, value: str, link: str) -> tuple[Any, str]:
    """What the record takes for this field when it is processed, and the PV that it comes from."""
    source = _target(field(link, as_string=True))
    if not source:
        return field(value), field_of(name, value)
    linked = PVs([source]).get(source)
    return field(value) if linked is None else linked, f"{source}, from which {value} comes ({link})"


def _target(link: str | None) -> str | None:
    """The PV of a link; None where it is a constant, or nothing."""
    word = (link or "").split(" ")[0]
    return word if word and word[0] not in "{[@#" and not _is_number(word) else None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
