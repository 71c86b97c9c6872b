"""EPICS records as ophyd Devices: what a busy-record flyer is made of."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Any

from ophyd import Component, Device, EpicsSignal, EpicsSignalRO

from .fields import RecordField

__all__ = ["BusyRecord", "BusyStatus", "Waveform"]


class BusyStatus(str, enum.Enum):
    """The busy record's default strings. A site can rename them: decisions are taken by 0 and 1."""

    busy = "Busy"
    done = "Done"


class BusyRecord(Device):
    """A synApps busy record: 1 while the controller works, written back to 0 when it is done.

    Another binary serves too, and an integer that is 0 or 1, such as sscan's ``EXSC``. A PV that has no OUT and FLNK
    does without.
    """

    state = Component(EpicsSignal, "", string=True, kind="normal")
    # Monitored, so that no run has to wait for what hardly ever changes.
    output_link = RecordField(EpicsSignal, ".OUT", value="state", kind="config", auto_monitor=True)
    forward_link = RecordField(EpicsSignal, ".FLNK", value="state", kind="config", auto_monitor=True)


class Waveform(Device):
    """An array of a flight: a waveform record, or any PV that holds numbers, such as sscan's ``D01DA``.

    A PV that has no NELM and NORD does without.

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
        What the PV holds is one text, the same for all points: characters (FTVL CHAR), or one string. Channel Access
        cuts a string after 39 characters; of a long one (lsi, lso) ``.VAL$`` has all.
    """

    wave = Component(EpicsSignalRO, "", kind="normal")
    number_elements = RecordField(EpicsSignalRO, ".NELM", value="wave", kind="config", auto_monitor=True)
    number_read = RecordField(EpicsSignalRO, ".NORD", value="wave", kind="omitted")

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

    def _repr_info(self) -> Iterator[tuple[str, Any]]:
        """What `repr` shows and `copy.copy` makes another one from."""
        yield from super()._repr_info()
        for name, default in (("fresh", True), ("units", None), ("string", False)):
            if getattr(self, name) != default:
                yield name, getattr(self, name)
