"""Documents as messages, and what is not taken from others."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

pytest.importorskip("msgpack_numpy", reason="of the extra `queueserver`")
import msgpack

from busy_callback_flyer.messages import pack, unpack, unpack_all


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.arange(3, dtype="<i2"),
        np.array([True, False]),
        np.array([1 + 2j]),
        np.array(["gold", "silver"]),
        np.array([]),
    ],
    ids=lambda array: str(array.dtype),
)
def test_arrays_come_back_as_they_were(array: np.ndarray) -> None:
    back = unpack(pack(("event_page", {"data": {"x": array}, "time": [1.5], "of": np.float64(2.5)})))
    assert back[0] == "event_page"
    assert back[1]["time"] == [1.5]
    assert back[1]["of"] == 2.5
    assert back[1]["data"]["x"].dtype == array.dtype
    np.testing.assert_array_equal(back[1]["data"]["x"], array)


class Trap:
    """Runs where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("it was unpickled",)


def array_of(kind: bytes, of: Any, data: bytes) -> bytes:
    """As `msgpack_numpy` packs it, one element."""
    message: bytes = msgpack.packb({b"nd": True, b"type": of, b"kind": kind, b"shape": [1], b"data": data})
    return message


@pytest.mark.parametrize(
    "message",
    [
        array_of(b"O", "|O", pickle.dumps(Trap())),
        array_of(b"", "|O", bytes(8)),
        array_of(b"V", [["a", "|O"]], bytes(8)),
        array_of(b"O", "<f8", pickle.dumps(Trap())),
    ],
    ids=["pickle", "pointer", "pointer in a record", "pickle, said to be a number"],
)
def test_what_would_run_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError, match="not taken from others"):
        unpack(message)


def test_neither_is_done_though_others_patched_msgpack() -> None:
    """As bluesky-kafka does, when it is imported."""
    code = (
        "import sys, numpy, msgpack_numpy; msgpack_numpy.patch()\n"
        "from busy_callback_flyer.messages import pack, unpack\n"
        "try: unpack(sys.stdin.buffer.read())\n"
        "except ValueError as error: print(error)\n"
        "try: pack(numpy.array([None]))\n"
        "except TypeError as error: print(error)"
    )
    message = array_of(b"O", "|O", pickle.dumps(Trap()))
    done = subprocess.run([sys.executable, "-c", code], input=message, capture_output=True, timeout=60)
    assert done.stdout.decode().splitlines() == [
        "an array of |O is not taken from others",
        "an array of object is not sent",
    ], done.stderr


def test_what_others_would_refuse_is_not_sent() -> None:
    with pytest.raises(TypeError, match="an array of object is not sent"):
        pack({"x": np.array([None])})


def test_a_file_that_is_cut_short_has_what_was_whole() -> None:
    messages = [pack(number) for number in ("first", "second")]
    assert list(unpack_all(io.BytesIO(b"".join(messages)))) == ["first", "second"]
    assert list(unpack_all(io.BytesIO(b"".join(messages)[:-1]))) == ["first"]
