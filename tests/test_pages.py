"""Arrays → event pages: no EPICS."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from busy_callback_flyer import CollectError, RaggedArrayError, StaleArrayError
from busy_callback_flyer.pages import Column, check_fresh, check_lengths, data_key, event_pages, point_times

T0, DONE_AT = 1000.0, 1010.0
TIMES = Column("f_t", "p:t", np.array([1001.0, 1002.0, 1003.0]), 1009.0)
X = Column("f_x", "p:x", np.array([1.5, 2.5, 3.5]), 1009.0)


def test_page() -> None:
    times = point_times([TIMES, X], "f_t", "absolute", t0=T0, done=DONE_AT)
    (page,) = event_pages([TIMES, X], "f_t", times, t0=T0, page_size=10)
    assert page["data"] == {"f_t": [1.0, 2.0, 3.0], "f_x": [1.5, 2.5, 3.5]}
    assert page["timestamps"] == {"f_t": [1001.0, 1002.0, 1003.0], "f_x": [1001.0, 1002.0, 1003.0]}
    assert page["timestamps"]["f_t"] is not page["timestamps"]["f_x"], "a consumer may change one"


def test_relative_times() -> None:
    relative = Column("f_t", "p:t", np.array([1, 2, 3], np.int32), 1009.0)
    times = point_times([relative], "f_t", "relative", t0=T0, done=DONE_AT)
    assert times.tolist() == [1001.0, 1002.0, 1003.0]
    (page,) = event_pages([relative], "f_t", times, t0=T0, page_size=10)
    assert page["data"]["f_t"] == [1.0, 2.0, 3.0]


def test_no_times() -> None:
    times = point_times([X], None, "absolute", t0=T0, done=DONE_AT)
    assert times.tolist() == [DONE_AT] * 3


def test_flight_without_points_gives_no_page() -> None:
    empty = Column("f_x", "p:x", np.array([]), 1009.0)
    times = point_times([empty], None, "absolute", t0=T0, done=DONE_AT)
    assert list(event_pages([empty], None, times, t0=T0, page_size=10)) == []


@given(
    values=arrays(
        dtype=st.sampled_from([np.float64, np.float32, np.int32, np.int16, np.uint8]),
        shape=array_shapes(max_dims=1, max_side=50),
    ),
    page_size=st.integers(1, 60),
)
def test_rows_are_the_array_bit_for_bit(values: np.ndarray, page_size: int) -> None:
    column = Column("f_x", "p:x", values, 1009.0)
    times = point_times([column], None, "absolute", t0=T0, done=DONE_AT)
    pages = list(event_pages([column], None, times, t0=T0, page_size=page_size))
    rows = [value for page in pages for value in page["data"]["f_x"]]
    assert np.array(rows, values.dtype).tobytes() == values.tobytes()
    for page in pages:
        assert 1 <= len(page["data"]["f_x"]) <= page_size
        assert len(page["time"]) == len(page["data"]["f_x"]) == len(page["timestamps"]["f_x"])
        json.dumps(page)


def test_stale_array_is_named_with_both_stamps() -> None:
    with pytest.raises(StaleArrayError, match=r"p:x \(stamp 999\.000000\)") as error:
        check_fresh([TIMES, Column("f_x", "p:x", X.values, 999.0)], T0)
    assert f"{T0:.6f}" in str(error.value)
    assert "p:t" not in str(error.value)
    assert isinstance(error.value, CollectError)


def test_array_as_old_as_busy_is_fresh() -> None:
    check_fresh([TIMES, X], 1009.0)
    check_fresh([TIMES, X], None)


def test_ragged_arrays_are_named_with_their_lengths() -> None:
    check_lengths([TIMES, X])
    check_lengths([])
    with pytest.raises(RaggedArrayError, match="p:t 3, p:y 2"):
        check_lengths([TIMES, Column("f_y", "p:y", np.zeros(2), 1009.0)])


@pytest.mark.parametrize(
    ("dtype", "kind", "numpy"),
    [
        (np.float32, "number", "<f4"),
        (np.float64, "number", "<f8"),
        (np.int32, "integer", "<i4"),
        (np.uint8, "integer", "|u1"),
    ],
)
def test_data_key(dtype: type, kind: str, numpy: str) -> None:
    key = data_key({"source": "PV:p:x", "units": "", "precision": None}, np.dtype(dtype))
    assert dict(key) == {"source": "PV:p:x", "dtype": kind, "dtype_numpy": numpy, "shape": []}
    key = data_key({"source": "PV:p:x", "units": "mm", "precision": 3}, np.dtype(dtype), units="s")
    assert (key["units"], key["precision"]) == ("mm", 3)
