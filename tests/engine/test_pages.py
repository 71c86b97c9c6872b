"""Arrays → event pages: no EPICS."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from busy_callback_flyer import CollectError, RaggedArrayError
from busy_callback_flyer.engine.pages import (
    Column,
    Scalar,
    array_page,
    check_lengths,
    data_key,
    event_pages,
    first_points,
    nord_key,
    point_times,
    text_key,
    truncated,
)

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


def test_ragged_arrays_are_named_with_their_lengths() -> None:
    check_lengths([TIMES, X])
    check_lengths([])
    with pytest.raises(RaggedArrayError, match="p:t 3, p:y 2"):
        check_lengths([TIMES, Column("f_y", "p:y", np.zeros(2), 1009.0)])


def test_first_points() -> None:
    first = first_points([TIMES, X], 2)
    assert [column.values.tolist() for column in first] == [[1001.0, 1002.0], [1.5, 2.5]]
    assert [column.key for column in first] == ["f_t", "f_x"]
    assert first_points([], 0) == []
    with pytest.raises(RaggedArrayError, match="4 points were counted, and the arrays have p:t 3, p:x 3"):
        first_points([TIMES, X], 4)


def test_truncated() -> None:
    shorter = Column("f_y", "p:y", np.zeros(2), 1009.0)
    assert [len(column.values) for column in truncated([TIMES, X, shorter])] == [2, 2, 2]
    assert truncated([]) == []


def test_scalars_are_repeated_at_each_point() -> None:
    scalars = [Scalar("f_temperature", 4.2, 990.0), Scalar("f_sample", "gold", 980.0)]
    pages = list(event_pages([X], None, np.full(3, DONE_AT), t0=T0, page_size=2, scalars=scalars))
    assert [page["data"]["f_sample"] for page in pages] == [["gold"] * 2, ["gold"]]
    assert pages[0]["data"]["f_temperature"] == [4.2, 4.2]
    assert pages[0]["timestamps"]["f_temperature"] == [990.0, 990.0]
    assert pages[0]["timestamps"]["f_x"] == [DONE_AT, DONE_AT]


def test_scalars_alone_are_one_point() -> None:
    times = point_times([], None, "absolute", t0=T0, done=DONE_AT)
    (page,) = event_pages([], None, times, t0=T0, page_size=2, scalars=[Scalar("f_n", 7, 990.0)])
    assert page == {"data": {"f_n": [7]}, "timestamps": {"f_n": [990.0]}, "time": [DONE_AT]}


def test_one_event_of_arrays() -> None:
    counts = Column("f_n", "p:n", np.array([1, 2], np.int32), 1009.0)
    times = point_times([TIMES, X], "f_t", "absolute", t0=T0, done=DONE_AT)
    lengths = {"f_t": 5, "f_x": 3, "f_n": 4}
    page = array_page(
        [TIMES, X, counts], "f_t", times, lengths, t0=T0, done=DONE_AT, scalars=[Scalar("f_sample", "gold", 980.0)]
    )
    cells = {key: values[0] for key, values in page["data"].items()}
    assert cells["f_t"][:3].tolist() == [1.0, 2.0, 3.0]
    assert np.isnan(cells["f_t"][3:]).all()
    assert cells["f_x"] is X.values, "nothing is copied that need not be"
    assert cells["f_n"].tolist() == [1, 2, 0, 0]
    assert cells["f_n"].dtype == np.int32
    assert [cells[f"f_{name}_nord"] for name in "txn"] == [3, 3, 2]
    assert cells["f_sample"] == "gold"
    assert page["timestamps"] == {
        **{f"f_{name}": [DONE_AT] for name in "txn"},
        **{f"f_{name}_nord": [DONE_AT] for name in "txn"},
        "f_sample": [980.0],
    }
    assert page["time"] == [DONE_AT]
    with pytest.raises(CollectError, match=r"p:x 3 \(declared 2\).*array_length"):
        array_page([TIMES, X], "f_t", times, {**lengths, "f_x": 2}, t0=T0, done=DONE_AT)


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


def test_data_key_of_an_array() -> None:
    key = data_key({"source": "PV:p:x"}, np.dtype(np.float64), length=256)
    assert dict(key) == {"source": "PV:p:x", "dtype": "array", "dtype_numpy": "<f8", "shape": [256]}
    assert nord_key("PV:p:x")["dtype"] == "integer"
    assert text_key("PV:p:x")["dtype"] == "string"


def test_units_of_ours_stand_in_where_the_record_has_none() -> None:
    assert data_key({"source": "", "units": ""}, np.dtype(float), units="mm")["units"] == "mm"
    assert data_key({"source": "", "units": "cm"}, np.dtype(float), units="mm")["units"] == "cm"


@pytest.mark.parametrize(("low", "high", "told"), [(-5, 5, True), (0, 0, False), (None, None, False), (1, 0, False)])
def test_limits(low: int | None, high: int | None, told: bool) -> None:
    key = data_key({"source": "", "lower_ctrl_limit": low, "upper_ctrl_limit": high}, np.dtype(float))
    assert ("limits" in key) == told
    if told:
        assert key["limits"] == {"control": {"low": -5.0, "high": 5.0}}
