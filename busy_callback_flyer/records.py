"""EPICS records as ophyd Devices: what a busy-record flyer is made of."""

from __future__ import annotations

import enum

from ophyd import Component, Device, EpicsSignal, EpicsSignalRO

__all__ = ["BusyRecord", "BusyStatus", "Waveform"]


class BusyStatus(str, enum.Enum):
    """The busy record's default strings. A site can rename them: decisions are taken by 0 and 1."""

    busy = "Busy"
    done = "Done"


class BusyRecord(Device):
    """A synApps busy record: 1 while the controller works, written back to 0 when it is done."""

    state = Component(EpicsSignal, "", string=True, kind="normal")
    output_link = Component(EpicsSignal, ".OUT", kind="config")
    forward_link = Component(EpicsSignal, ".FLNK", kind="config")


class Waveform(Device):
    """An array of a flight, in a waveform record."""

    wave = Component(EpicsSignalRO, "", kind="normal")
    number_elements = Component(EpicsSignalRO, ".NELM", kind="config")
    number_read = Component(EpicsSignalRO, ".NORD", kind="omitted")
