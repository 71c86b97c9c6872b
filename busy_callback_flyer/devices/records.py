"""EPICS records as ophyd Devices: what a busy-record flyer is made of."""

from __future__ import annotations

import enum
from collections.abc import Iterator
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
    fresh : bool, optional
        Whether the array must have been written in the flight, by the IOC's stamps. False for
        one that is filled before. By default it must, unless it is served by another IOC than
        the busy record, whose clock may differ; True asks for it there too.
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
        fresh: bool | None = None,
        units: str | None = None,
        string: bool = False,
        **kwargs: Any,
    ) -> None:
        self.fresh = fresh
        self.units = units
        self.string = string
        super().__init__(prefix, **kwargs)

    def _repr_info(self) -> Iterator[tuple[str, Any]]:
        """What `repr` shows and `copy.copy` makes another one from."""
        yield from super()._repr_info()
        for name, default in (("fresh", None), ("units", None), ("string", False)):
            if getattr(self, name) != default:
                yield name, getattr(self, name)
