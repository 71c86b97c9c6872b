"""EPICS records as ophyd Devices: what a busy-record flyer is made of."""

from __future__ import annotations

import enum
from typing import Any

from ophyd import Component, Device, EpicsSignal, EpicsSignalRO

__all__ = ["BusyRecord", "BusyStatus", "Waveform"]


class BusyStatus(str, enum.Enum):
    """The busy record's default strings. A site can rename them: decisions are taken by 0 and 1."""

    busy = "Busy"
    done = "Done"


class BusyRecord(Device):
    """A synApps busy record: 1 while the controller works, written back to 0 when it is done."""

    state = Component(EpicsSignal, "", string=True, kind="normal")
    # Monitored, so that no run has to wait for what hardly ever changes.
    output_link = Component(EpicsSignal, ".OUT", kind="config", auto_monitor=True)
    forward_link = Component(EpicsSignal, ".FLNK", kind="config", auto_monitor=True)


class Waveform(Device):
    """An array of a flight, in a waveform record.

    Parameters
    ----------
    prefix : str
        Of the PV's name.
    fresh : bool
        Whether the array must have been written since the put of Busy: its stamp has to differ
        from that of before. False for one that is filled before the flight, and where stamps
        cannot tell, as they stand still, are coarse, or are made at reading.
    units : str, optional
        Of its numbers, where the record's EGU is empty.
    string : bool
        The record's characters (FTVL CHAR) are one text, the same for all points.
    """

    wave = Component(EpicsSignalRO, "", kind="normal")
    number_elements = Component(EpicsSignalRO, ".NELM", kind="config", auto_monitor=True)
    number_read = Component(EpicsSignalRO, ".NORD", kind="omitted")

    def __init__(
        self,
        prefix: str = "",
        *,
        fresh: bool = True,
        units: str | None = None,
        string: bool = False,
        **kwargs: Any,
    ) -> None:
        self.fresh = fresh
        self.units = units
        self.string = string
        super().__init__(prefix, **kwargs)
