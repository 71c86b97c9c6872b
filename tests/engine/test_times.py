"""Points' times against their flight: what is told of, and what is not."""

from __future__ import annotations

import numpy as np
import pytest

from busy_callback_flyer.engine.ports import EPICS_EPOCH
from busy_callback_flyer.engine.timeline import Timeline
from busy_callback_flyer.engine.times import CLOCKS_APART, STARTS_APART, doubt

NOW, LENGTH = 1_790_000_000.0, 20.0
NEVER = 631152000.0


def flight(stamps: tuple[float, float] | None = (NOW, NOW + LENGTH)) -> Timeline:
    timeline = Timeline(NOW)
    begin, end = stamps or (None, None)
    timeline.mark("put", 0.0)
    timeline.mark("busy", 0.001, begin)
    timeline.mark("done", LENGTH, end)
    return timeline


@pytest.mark.parametrize(
    ("origin", "first", "last", "doubted"),
    [
        ("absolute", NOW, NOW + LENGTH, False),
        ("absolute", NOW - CLOCKS_APART + 1, NOW, False),
        ("absolute", NOW, NOW + LENGTH + CLOCKS_APART - 1, False),
        ("absolute", NOW - CLOCKS_APART - 1, NOW, True),
        ("absolute", NOW, NOW + LENGTH + CLOCKS_APART + 1, True),
        ("absolute", NOW - 3600, NOW + LENGTH - 3600, True),  # another time zone
        ("absolute", 0, NOW + LENGTH, True),  # some were never written
        ("epics", NOW - EPICS_EPOCH, NOW + LENGTH - EPICS_EPOCH, False),
        ("epics", NOW, NOW + LENGTH, True),
        ("relative", 0, LENGTH, False),
        ("relative", -LENGTH - STARTS_APART + 1, 0, False),
        ("relative", 0, 2 * LENGTH + STARTS_APART - 1, False),
        ("relative", 0, 2 * LENGTH + STARTS_APART + 1, True),
        ("relative", 0, 1e3 * LENGTH, True),
    ],
)
def test_how_far_is_far(origin: str, first: float, last: float, *, doubted: bool) -> None:
    assert (doubt(np.array([first, last]), origin, flight()) is not None) == doubted
    assert (doubt(np.array([last, first, np.nan, np.inf]), origin, flight()) is not None) == doubted


@pytest.mark.parametrize("unit", [1.0, 1e3, 1e6, 1e9])
@pytest.mark.parametrize(("origin", "begin"), [("absolute", NOW), ("relative", 0.0), ("epics", NOW - EPICS_EPOCH)])
@pytest.mark.parametrize("taken_for", ["absolute", "relative", "epics"])
def test_what_would_fit_is_told(origin: str, begin: float, unit: float, taken_for: str) -> None:
    told = doubt(unit * np.array([begin, begin + LENGTH]), taken_for, flight())
    if (origin, unit) == (taken_for, 1.0):
        assert told is None
        return
    assert told is not None
    assert f"time_origin={origin!r} would fit" in told
    names = {1e3: "With milliseconds ", 1e6: "With microseconds ", 1e9: "With nanoseconds "}
    assert [name for name in names.values() if name in told] == ([names[unit]] if unit > 1 else [])


def test_dates_are_dates() -> None:
    told = doubt(np.array([0.0, LENGTH]) + NOW - EPICS_EPOCH, "absolute", flight())
    assert told is not None
    assert " makes them 2006-09-" in told
    assert "the flight was from 2026-09-" in told
    far = doubt(np.array([1e9 * NOW]), "absolute", flight())
    assert far is not None
    assert "1.79e+18 s after 1970" in far, "no date has such a year"


@pytest.mark.parametrize("off", [3600.0, -7200.0, 1e8])
def test_a_clock_that_is_wrong_is_no_matter_of_units(off: float) -> None:
    for times in ([NOW], [NOW, NOW + LENGTH]):
        told = doubt(np.array(times) + off, "absolute", flight())
        assert told is not None
        assert "No time_origin fits: check the clock" in told


def test_times_that_were_not_written_are_told() -> None:
    told = doubt(np.array([NOW, NOW + 1, 0.0]), "absolute", flight())
    assert told is not None
    assert "Those that are not 0 would fit" in told


def test_stamps_that_stand_still_or_another_clock_raise_no_doubt() -> None:
    """Whoever writes the times may have the IOC's clock or the client's."""
    times = np.array([NOW, NOW + LENGTH])
    for stamps in ((NEVER, NEVER), (NOW - 7e6, NOW - 7e6 + LENGTH), (NOW + LENGTH, NOW), None):
        assert doubt(times, "absolute", flight(stamps)) is None
        assert doubt(times - NOW, "relative", flight(stamps)) is None
    assert doubt(times - 7e6, "absolute", flight((NOW - 7e6, NOW - 7e6 + LENGTH))) is None
    assert doubt(times - 9e6, "absolute", flight((NOW - 7e6, NOW - 7e6 + LENGTH))) is not None


def test_nothing_is_said_of_no_times() -> None:
    for values in (np.array([]), np.array([np.nan])):
        assert doubt(values, "absolute", flight()) is None
    assert doubt(np.array([1.0]), "absolute", Timeline()) is None


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.float32])
def test_numbers_of_every_type(dtype: type) -> None:
    assert doubt(np.array([0, 20], dtype), "relative", flight()) is None
    assert doubt(np.array([1_158_848_000, 1_158_848_020], dtype), "epics", flight()) is None
