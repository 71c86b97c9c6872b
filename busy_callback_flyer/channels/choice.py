"""Which PV a signal has, and whether Channel Access can reach it directly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ophyd import Device
from ophyd.signal import EpicsSignalBase, Signal


def name_of(signal: Signal) -> str:
    """Name of its PV; the signal's own where it has no PV."""
    name: str = getattr(signal, "pvname", signal.name)
    return name


def state_of(busy: Device | Signal) -> Any:
    """The signal of a busy record: a BusyRecord's `state`, or the signal itself."""
    state = getattr(busy, "state", busy)
    if not isinstance(state, Signal):
        raise TypeError(f"{busy.name} is a {type(busy).__name__} without `state`: a BusyRecord or a signal is needed")
    return state


def no_busy(pv: str, what: str) -> str:
    """Say why this PV cannot be a busy record's."""
    return f"{pv} is no busy record: {what}, and a binary (busy or bo) is needed, or an integer that is 0 or 1"


def why_not_direct(signals: Iterable[Signal]) -> str | None:
    """Say why libca cannot reach the PVs of these signals directly; None where it can."""
    for signal in signals:
        if not isinstance(signal, EpicsSignalBase):
            return f"{signal.name} is a {type(signal).__name__}"
        if signal.cl.name != "pyepics":
            return f"ophyd's control layer is {signal.cl.name}"
        if getattr(signal, "setpoint_pvname", signal.pvname) != signal.pvname:
            return f"{signal.name} is put to another PV than it is read from"

    from .ca.library import Unavailable, library

    try:
        library()
    except Unavailable as reason:
        return str(reason)
    return None
