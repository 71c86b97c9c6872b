"""A flyer from PV names alone, as a configuration file has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from ophyd import Component, EpicsSignalRO
from ophyd.device import DEVICE_RESERVED_ATTRS

from ..engine.options import OPTIONS, signature
from .columns import column_names
from .flyer import BusyFlyer, FlyerArguments
from .records import BusyRecord, Waveform

if TYPE_CHECKING:
    from typing_extensions import Unpack


class _BareFlyer(BusyFlyer):
    """Without the columns of the tutorial, which would come first."""

    tArr = xArr = yArr = None  # noqa: N815


def make_flyer(
    name: str,
    *,
    busy: str,
    arrays: Mapping[str, str | Mapping[str, Any]],
    signals: Mapping[str, str] | None = None,
    **options: Unpack[FlyerArguments],
) -> BusyFlyer:
    """Make a flyer from PV names alone, as a configuration file has them.

    Parameters
    ----------
    name : str
        Of the flyer; the data keys begin with it.
    busy : str
        The busy record's PV, or that of an integer that is 1 during a scan, such as ``scan1.EXSC``.
    arrays : mapping
        Columns in order: the PV of each, or a mapping with ``pv``, options of `Waveform` and ``kind``. A PV is a
        record or one of its fields, such as ``scan1.P1RA``.
    signals : mapping, optional
        PVs of values that are read once a flight, one data key each.
    **options
        Of `BusyFlyer`; `time_array` is None by default.

    Raises
    ------
    ValueError
        A column's name is no name for an attribute of an ophyd Device.

    Examples
    --------
    >>> make_flyer("ifly", busy="prj:mybusy", arrays={"x": "prj:x_array", "y": "prj:y_array"})
    """
    signals = signals or {}
    names = [*arrays, *signals]
    attributes = {option.attribute for option in OPTIONS.values()}
    taken = {*dir(BusyFlyer), *DEVICE_RESERVED_ATTRS, *OPTIONS, *attributes, "log", "prefix", "time"}
    taken |= {f"{attr}_nord" for attr in arrays}
    for attr in names:
        usable = attr.isidentifier() and not attr.startswith("_") and names.count(attr) == 1
        if not usable or attr in taken - set(column_names(BusyFlyer)):
            raise ValueError(f"{attr!r} cannot name a column of {name}: a word is needed that no ophyd Device uses")
    components: dict[str, Any] = {}
    components["busy"] = Component(BusyRecord, busy, kind="config")
    for attr, array in arrays.items():
        how = {"pv": array} if isinstance(array, str) else dict(array)
        if "pv" not in how:
            raise ValueError(f"the column {attr!r} of {name} has no pv")
        components[attr] = Component(Waveform, how.pop("pv"), **{"kind": "config", **how})
    for attr, pv in signals.items():
        components[attr] = Component(EpicsSignalRO, pv, kind="normal")
    options.setdefault("time_array", None)
    return cast(BusyFlyer, type("MadeFlyer", (_BareFlyer,), components)("", name=name, **options))


_OPTIONS = OPTIONS | {"time_array": replace(OPTIONS["time_array"], default=None)}
make_flyer.__signature__ = signature(make_flyer, _OPTIONS.values())  # type: ignore[attr-defined]
