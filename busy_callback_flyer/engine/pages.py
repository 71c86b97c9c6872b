"""Arrays of a flight → data keys and event pages: nothing here waits, nothing talks to EPICS."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from event_model import DataKey, PartialEventPage

from .errors import CollectError, RaggedArrayError
from .ports import EPICS_EPOCH

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Column:
    """One array of one flight.

    Attributes
    ----------
    key : str
        Its data key.
    pv : str
        Where it came from, for messages.
    values : numpy.ndarray
        One-dimensional, as long as the record's NORD.
    stamp : float
        The IOC's time stamp, seconds of the POSIX epoch.
    """

    key: str
    pv: str
    values: np.ndarray
    stamp: float


@dataclass(frozen=True)
class Scalar:
    """One value of one flight, the same for all its points.

    Attributes
    ----------
    key : str
        Its data key.
    value : number or str
    stamp : float
        When it was so, seconds of the POSIX epoch.
    """

    key: str
    value: Any
    stamp: float


# Are they of one length?


def check_lengths(columns: Sequence[Column]) -> None:
    """Refuse arrays of unequal length.

    Raises
    ------
    RaggedArrayError
        Names each array and its length.
    """
    if len({len(column.values) for column in columns}) > 1:
        raise RaggedArrayError(
            f"the arrays of one flight differ in length (NORD): {_lengths(columns)}. "
            "on_ragged='truncate' keeps as many points as all have; "
            "points= names a component that counts the points, where NORD does not"
        )


def first_points(columns: Sequence[Column], points: int) -> list[Column]:
    """The first points of each array.

    Raises
    ------
    RaggedArrayError
        An array has fewer; it names each array and its length.
    """
    if any(len(column.values) < points for column in columns):
        raise RaggedArrayError(f"{points} points were counted, and the arrays have {_lengths(columns)}")
    return [replace(column, values=column.values[:points]) for column in columns]


def check_declared(columns: Sequence[Column], lengths: Mapping[str, int]) -> None:
    """Refuse arrays that are longer than was declared, by key.

    Raises
    ------
    CollectError
        Names each array, its length and the declared one.
    """
    longer = [column for column in columns if len(column.values) > lengths[column.key]]
    if longer:
        told = ", ".join(f"{column.pv} {len(column.values)} (declared {lengths[column.key]})" for column in longer)
        raise CollectError(f"arrays longer than their cells: {told}. array_length is too small")


def truncated(columns: Sequence[Column]) -> list[Column]:
    """As many points of each array as all have."""
    return first_points(columns, min((len(column.values) for column in columns), default=0))


def _lengths(columns: Sequence[Column]) -> str:
    return ", ".join(f"{column.pv} {len(column.values)}" for column in columns)


# Pages


def point_times(
    columns: Sequence[Column],
    time_key: str | None,
    origin: Literal["absolute", "relative", "epics"],
    *,
    t0: float,
    done: float,
) -> np.ndarray:
    """When each point was taken, in seconds of the POSIX epoch.

    Parameters
    ----------
    columns : sequence of Column
        Of equal length. If there are none, it is one point.
    time_key : str or None
        Key of the column that holds the times; None: there is none, and `done` stands for all.
    origin : {"absolute", "relative", "epics"}
        Whether that column counts from the POSIX epoch, from `t0`, or from the EPICS epoch.
    t0, done : float
        Begin and end of the flight, seconds of the POSIX epoch.

    Returns
    -------
    numpy.ndarray of float64, as long as the columns
    """
    for column in columns:
        if column.key == time_key:
            times = column.values.astype(np.float64, copy=False)
            return times if origin == "absolute" else times + (t0 if origin == "relative" else EPICS_EPOCH)
    return np.full(len(columns[0].values) if columns else 1, done)


def event_pages(
    columns: Sequence[Column],
    time_key: str | None,
    times: np.ndarray,
    *,
    t0: float,
    page_size: int,
    scalars: Sequence[Scalar] = (),
) -> Iterator[PartialEventPage]:
    """Format a flight as event pages, an event a point.

    The time column's data are seconds since `t0`; every array's ``timestamps`` are the points'
    own times. Numbers are Python's own, which every document writer can take. A flight
    without points gives no page.

    Parameters
    ----------
    columns : sequence of Column
        Of equal length.
    time_key : str or None
        Key of the column of times.
    times : numpy.ndarray
        When each point was taken, seconds of the POSIX epoch.
    t0 : float
        Begin of the flight, seconds of the POSIX epoch.
    page_size : int
        Most points in one page.
    scalars : sequence of Scalar
        Repeated at each point.

    Yields
    ------
    PartialEventPage
        With ``data``, ``timestamps`` and ``time``; the RunEngine replaces ``time`` by the
        moment of collecting.
    """
    values = {column.key: times - t0 if column.key == time_key else column.values for column in columns}
    for start in range(0, len(times), page_size):
        rows = slice(start, start + page_size)
        stamps = times[rows].tolist()
        data = {key: array[rows].tolist() for key, array in values.items()}
        timestamps = {key: list(stamps) for key in values}
        for scalar in scalars:
            data[scalar.key] = [scalar.value] * len(stamps)
            timestamps[scalar.key] = [scalar.stamp] * len(stamps)
        yield PartialEventPage(data=data, timestamps=timestamps, time=stamps)


def array_page(
    columns: Sequence[Column],
    time_key: str | None,
    times: np.ndarray,
    lengths: Mapping[str, int],
    *,
    t0: float,
    done: float,
    scalars: Sequence[Scalar] = (),
) -> PartialEventPage:
    """Format a flight as one event, whose cells are the arrays.

    Each is padded to its declared length, by NaN or by 0 for integers; the key with
    ``_nord`` says how many elements count.

    Parameters
    ----------
    columns, time_key, times, t0, scalars
        See `event_pages`.
    lengths : mapping of str to int
        Declared length of each column, by key.
    done : float
        End of the flight, seconds of the POSIX epoch: the event's time.

    Raises
    ------
    CollectError
        An array is longer than was declared.
    """
    check_declared(columns, lengths)
    data: dict[str, list[Any]] = {}
    timestamps: dict[str, list[float]] = {}
    for column in columns:
        values = times - t0 if column.key == time_key else column.values
        data[column.key] = [_padded(values, lengths[column.key])]
        data[f"{column.key}_nord"] = [len(values)]
    for key in data:
        timestamps[key] = [done]
    for scalar in scalars:
        data[scalar.key], timestamps[scalar.key] = [scalar.value], [scalar.stamp]
    return PartialEventPage(data=data, timestamps=timestamps, time=[done])


def _padded(values: np.ndarray, length: int) -> np.ndarray:
    if len(values) == length:
        return values
    cell = np.full(length, np.nan if values.dtype.kind == "f" else 0, values.dtype)
    cell[: len(values)] = values
    return cell


# Data keys


def data_key(
    description: Mapping[str, Any], dtype: np.dtype[Any], *, units: str | None = None, length: int | None = None
) -> DataKey:
    """Describe one point of an array, or the array as a whole.

    Parameters
    ----------
    description : mapping
        Its ``source``, and where they are known ``units``, ``precision``, ``lower_ctrl_limit``
        and ``upper_ctrl_limit``.
    dtype : numpy.dtype
        Of an element.
    units : str, optional
        Where the description has none.
    length : int, optional
        Of the array as a whole.
    """
    kind: Literal["number", "integer"] = "number" if dtype.kind == "f" else "integer"
    key = DataKey(
        source=description["source"],
        dtype=kind if length is None else "array",
        dtype_numpy=dtype.str,
        shape=[] if length is None else [length],
    )
    if description.get("units") or units:
        key["units"] = description.get("units") or units
    if description.get("precision") is not None:
        key["precision"] = description["precision"]
    low, high = description.get("lower_ctrl_limit"), description.get("upper_ctrl_limit")
    if low is not None and high is not None and low < high:
        key["limits"] = {"control": {"low": float(low), "high": float(high)}}
    return key


def nord_key(source: str) -> DataKey:
    """Describe how many elements of an array count."""
    return DataKey(source=source, dtype="integer", dtype_numpy="<i8", shape=[])


def text_key(source: str) -> DataKey:
    """Describe a text, the same for all points."""
    return DataKey(source=source, dtype="string", shape=[])
