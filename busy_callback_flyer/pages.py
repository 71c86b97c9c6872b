"""Arrays of a flight → data keys and event pages: nothing here waits, nothing talks to EPICS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from event_model import DataKey, PartialEventPage

__all__ = ["CollectError", "RaggedArrayError", "StaleArrayError"]


class CollectError(RuntimeError):
    """The arrays of a finished flight could not be had, or are not to be trusted."""


class StaleArrayError(CollectError):
    """An array is older than the flight: the controller has not written it."""


class RaggedArrayError(CollectError):
    """The arrays of one flight differ in length."""


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


def check_fresh(columns: Sequence[Column], since: float | None) -> None:
    """Refuse arrays that are older than the flight.

    Parameters
    ----------
    columns : sequence of Column
    since : float or None
        IOC stamp of the flight's beginning; None: it is not known, nothing is judged.

    Raises
    ------
    StaleArrayError
        Names each old array, its stamp and the flight's.
    """
    if since is None:
        return
    stale = [f"{column.pv} (stamp {column.stamp:.6f})" for column in columns if column.stamp < since]
    if stale:
        raise StaleArrayError(
            f"not written in this flight, which began at stamp {since:.6f}: {', '.join(stale)}. "
            "Does the controller write its arrays before it writes Done?"
        )


def check_lengths(columns: Sequence[Column]) -> None:
    """Refuse arrays of unequal length.

    Raises
    ------
    RaggedArrayError
        Names each array and its length.
    """
    if len({len(column.values) for column in columns}) > 1:
        lengths = ", ".join(f"{column.pv} {len(column.values)}" for column in columns)
        raise RaggedArrayError(f"the arrays of one flight differ in length (NORD): {lengths}")


def point_times(
    columns: Sequence[Column],
    time_key: str | None,
    origin: Literal["absolute", "relative"],
    *,
    t0: float,
    done: float,
) -> np.ndarray:
    """When each point was taken, in seconds of the POSIX epoch.

    Parameters
    ----------
    columns : sequence of Column
        Of equal length, at least one.
    time_key : str or None
        Key of the column that holds the times; None: there is none, and `done` stands for all.
    origin : {"absolute", "relative"}
        Whether that column counts from the epoch or from `t0`.
    t0, done : float
        Begin and end of the flight, seconds of the POSIX epoch.

    Returns
    -------
    numpy.ndarray of float64, as long as the columns
    """
    for column in columns:
        if column.key == time_key:
            times = column.values.astype(np.float64)
            return times + t0 if origin == "relative" else times
    return np.full(len(columns[0].values), done)


def event_pages(
    columns: Sequence[Column], time_key: str | None, times: np.ndarray, *, t0: float, page_size: int
) -> Iterator[PartialEventPage]:
    """Format a flight as event pages, an event a point.

    The time column's data are seconds since `t0`; every key's ``timestamps`` are the points'
    own times. Numbers are Python's own, which every document writer can take. A flight
    without points gives no page.

    Parameters
    ----------
    columns : sequence of Column
        Of equal length, at least one.
    time_key : str or None
        Key of the column of times.
    times : numpy.ndarray
        When each point was taken, seconds of the POSIX epoch.
    t0 : float
        Begin of the flight, seconds of the POSIX epoch.
    page_size : int
        Most points in one page.

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
        yield PartialEventPage(
            data={key: array[rows].tolist() for key, array in values.items()},
            timestamps={key: list(stamps) for key in values},
            time=stamps,
        )


def data_key(description: Mapping[str, Any], dtype: np.dtype[Any], *, units: str | None = None) -> DataKey:
    """Describe one point of an array.

    Parameters
    ----------
    description : mapping
        ophyd's own of the array's signal, for source, units and precision.
    dtype : numpy.dtype
        Of an element.
    units : str, optional
        Instead of the record's EGU.
    """
    key = DataKey(
        source=description["source"],
        dtype="number" if dtype.kind == "f" else "integer",
        dtype_numpy=dtype.str,
        shape=[],
    )
    if units or description.get("units"):
        key["units"] = units or description["units"]
    if description.get("precision") is not None:
        key["precision"] = description["precision"]
    return key
