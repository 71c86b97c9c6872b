"""Are the times of a flight's points those of the flight? A wrong epoch or unit is told, and nothing is refused."""

from __future__ import annotations

from datetime import datetime

import numpy as np

from .ports import EPICS_EPOCH
from .timeline import Timeline

CLOCKS_APART = 300.0
"""Seconds that the clocks of two hosts may differ before a word is said."""

STARTS_APART = 10.0
"""Seconds, beside the flight's length, that times since its start may lie outside it before a word is said."""

ORIGINS = ("absolute", "relative", "epics")

Windows = list[tuple[float, float]]
"""When the flight was, by one clock and another."""

UNITS = {"seconds": 1.0, "milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}


def doubt(values: np.ndarray, origin: str, timeline: Timeline) -> str | None:
    """Say that points' times lie far outside their flight, and what would fit; None where they do not.

    The flight is taken by the server's stamps or by the client's times, whichever fits: stamps may stand still.

    Parameters
    ----------
    values : numpy.ndarray
        As the record has them.
    origin : {"absolute", "relative", "epics"}
        What they are taken for.
    timeline : Timeline
        Of a flight that is Done.
    """
    finite = values[np.isfinite(values)].astype(np.float64)
    t0, put, done = timeline.t0, timeline.get("put"), timeline.get("done")
    if not len(finite) or t0 is None or put is None or done is None:
        return None
    windows = [(put.client, done.client)]
    if done.stamp is not None:
        windows.insert(0, (min(t0, done.stamp), max(t0, done.stamp)))
    if _fits(finite, origin, windows):
        return None
    shift = {"absolute": 0.0, "relative": t0, "epics": EPICS_EPOCH}[origin]
    spans = (finite.min() + shift, finite.max() + shift), windows[0]
    made, flown = (" to ".join(map(_date, span)) for span in spans)
    return (
        f"the times lie far outside the flight: time_origin={origin!r} makes them {made}, and the flight was from "
        f"{flown}. {_advice(finite, origin, windows)}"
    )


def _length(windows: Windows) -> float:
    return max(end - begin for begin, end in windows)


def _fits(finite: np.ndarray, origin: str, windows: Windows) -> bool:
    first, last = finite.min(), finite.max()
    if origin == "relative":
        length = _length(windows)
        return bool(-length - STARTS_APART <= first and last <= 2 * length + STARTS_APART)
    shift = EPICS_EPOCH if origin == "epics" else 0.0
    return any(begin - CLOCKS_APART <= first + shift and last + shift <= end + CLOCKS_APART for begin, end in windows)


def _advice(finite: np.ndarray, origin: str, windows: Windows) -> str:
    written = finite[finite != 0]
    if len(written) and _fits(written, origin, windows):
        return "Those that are not 0 would fit: were all of them written?"
    for unit, per_second in UNITS.items():
        for other in ORIGINS:
            # Anything is a few seconds, in a unit that is small enough: it must be more than a sliver of the flight.
            sliver = other == "relative" and unit != "seconds" and np.ptp(finite) / per_second < 0.01 * _length(windows)
            if not sliver and _fits(finite / per_second, other, windows):
                fitting = f"time_origin={other!r} would fit"
                return fitting if unit == "seconds" else f"With {unit} {fitting}: let the record hold seconds"
    return "No time_origin fits: check the clock of whoever writes them, and its time zone (UTC is needed)"


def _date(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "milliseconds")
    except (ValueError, OverflowError, OSError):  # beyond the year 9999
        return f"{seconds:.4g} s after 1970"
