"""Which components of a flyer are its columns, at whatever depth of its tree, and what their kind means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ophyd import Device, Kind, Signal

from ..channels.private_names import component_kind
from .records import Waveform

if TYPE_CHECKING:
    from .flyer import BusyFlyer


def column_names(flyer: type[Device]) -> list[str]:
    """Dotted names of a flyer's columns, in the order of its tree: all its Waveforms.

    Those of a flyer in it are not among them: they belong to that one's flights.
    """
    return [
        walk.dotted_name
        for walk in flyer.walk_components()
        if issubclass(walk.item.cls, Waveform) and not any(hasattr(part, "kickoff") for part in walk.ancestors[1:])
    ]


def collected_names(flyer: Device) -> list[str]:
    """Dotted names of those columns that are collected."""
    return [column for column in column_names(type(flyer)) if is_collected(flyer, column)]


def is_collected(flyer: Device, column: str) -> bool:
    """Whether neither it, nor its array, nor what it is part of is of kind omitted."""
    return not _is_omitted(flyer, f"{column}.wave")


def is_hinted(column: Waveform) -> bool:
    """Whether it is of kind hinted, or its array is."""
    return any(Kind.hinted in part.kind for part in (column, column.wave))


def refuse_one_key_twice(flyer: type[Device]) -> None:
    """Refuse columns whose names differ by their dots only.

    Raises
    ------
    TypeError
        It names them.
    """
    columns = column_names(flyer)
    keys = [column.replace(".", "_") for column in columns]
    twice = [column for column, key in zip(columns, keys, strict=True) if keys.count(key) > 1]
    if twice:
        raise TypeError(f"{flyer.__name__}: {' and '.join(twice)} have one data key: give one of them another name")


def refuse_omitted_times(flyer: BusyFlyer) -> None:
    """Refuse a column of times that is not collected.

    Raises
    ------
    ValueError
        It says why.
    """
    if flyer.time_array is not None and not is_collected(flyer, flyer.time_array):
        raise ValueError(
            f"time_array={flyer.time_array!r}: this column of {flyer.name} is not collected, as it is of kind omitted, "
            "or part of what is. Set time_array=None, or give it another kind"
        )


def check_names(flyer: BusyFlyer) -> None:
    """Refuse options that name a component, and no component of theirs has that name.

    Raises
    ------
    ValueError
        It names the option.
    """
    columns = column_names(type(flyer))
    if flyer.time_array is not None and flyer.time_array not in columns:
        raise ValueError(
            f"time_array={flyer.time_array!r}: must be None or the name of a Waveform component ({', '.join(columns)})"
        )
    if flyer.points is not None and not (columns and _is_signal(flyer, flyer.points)):
        raise ValueError(
            f"points={flyer.points!r}: must be None or the name of a component that is a signal, beside arrays"
        )
    if flyer.progress is not None and flyer.progress not in columns and not _is_signal(flyer, flyer.progress):
        raise ValueError(f"progress={flyer.progress!r}: must be None or the name of a component, a signal or a column")
    if flyer.expected_points is not None and flyer.progress is None and flyer.time_array is None:
        raise ValueError("expected_points is of no use without progress, the name of what counts points")
    for option in ("expected_points", "expected_time"):
        value = getattr(flyer, option)
        if isinstance(value, str) and not _is_signal(flyer, value):
            raise ValueError(f"{option}={value!r}: must be None, a number above 0, or the name of a signal")


def _is_signal(flyer: Device, name: str) -> bool:
    """Whether a component of that dotted name is a signal; the flyer may have no components yet."""
    return any(walk.dotted_name == name and issubclass(walk.item.cls, Signal) for walk in type(flyer).walk_components())


def _is_omitted(device: Device, name: str) -> bool:
    """Whether a component, or one that it is part of, is omitted; what is lazy in an omitted one is not made."""
    attr, _, rest = name.partition(".")
    if not component_kind(device, attr):
        return True
    return bool(rest) and _is_omitted(getattr(device, attr), rest)
