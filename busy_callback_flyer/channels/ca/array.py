"""A channel to an array, by libca."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from epics import dbr

from ...engine.ports import EPICS_EPOCH, ArrayReading
from ...engine.text import decoded
from .base import CAChannel, Handle
from .library import EventArgs, Time, status_text

_DTYPES: dict[int, np.dtype[Any]] = {
    dbr.SHORT: np.dtype(np.int16),
    dbr.FLOAT: np.dtype(np.float32),
    dbr.CHAR: np.dtype(np.uint8),
    dbr.LONG: np.dtype(np.int32),
    dbr.DOUBLE: np.dtype(np.float64),
}
_TEXTS = dict.fromkeys((dbr.CHAR, dbr.STRING), np.dtype(np.uint8))


class CAArray(CAChannel):
    """A channel to an array; it is asked, not monitored.

    Parameters
    ----------
    pv : str
    text : bool
        Whether a text is needed, characters or one string, and not numbers. Its elements are characters.

    Attributes
    ----------
    dtype : numpy.dtype or None
        Type of the elements, as Channel Access has it: unsigned 16 bits come as signed 32, and what is longer as
        double; None while it is not known.
    size : int
        Most elements that the array can have (NELM).
    connections : int
        How often the connection was lost.
    description : dict
        Source, and as its record has them units, precision and control limits.
    """

    def __init__(self, pv: str, *, text: bool = False) -> None:
        self._needed = "characters (FTVL CHAR) are needed, or one string" if text else "numbers are needed"
        self._dtypes = _TEXTS if text else _DTYPES
        self._type = -1
        self.dtype: np.dtype[Any] | None = None
        self.size = 0
        self.connections = 0
        self.description: dict[str, Any] = {"source": f"PV:{pv}"}
        super().__init__(pv)

    @property
    def patience(self) -> float:
        """Seconds that an answer may need: its bytes at a megabyte a second."""
        return self._bytes / 1e6

    @property
    def why_silent(self) -> str:
        """What keeps an answer away: libca drops one that is too long, and tells nobody."""
        automatic = os.environ.get("EPICS_CA_AUTO_ARRAY_BYTES", "YES").upper() != "NO"
        limit = os.environ.get("EPICS_CA_MAX_ARRAY_BYTES", "16384")
        if automatic or not limit.isdigit() or self._bytes <= int(limit):
            return f"up to {self._bytes} bytes: does the IOC answer?"
        return (
            f"up to {self._bytes} bytes, and EPICS_CA_MAX_ARRAY_BYTES is {limit}: longer answers are dropped. "
            f"Set it to {self._bytes} or more, or EPICS_CA_AUTO_ARRAY_BYTES to YES, before Python starts"
        )

    @property
    def _bytes(self) -> int:
        """Most that an answer can have, with its header, stamp and padding."""
        return self.size * (8 if self.dtype is None else self.dtype.itemsize) + 64

    def fetch_stamp(self, answer: Callable[[float | str], None]) -> None:
        """Ask for one element, with the stamp; `answer` gets that in libca's thread, or a sentence why not."""

        def decode(args: EventArgs) -> None:
            time = Time.from_address(args.dbr)
            answer(EPICS_EPOCH + time.seconds + 1e-9 * time.nanoseconds)

        if not self.ready or self.problem is not None:
            answer(self.problem or "it is not connected")
            return
        self._get(self._type + dbr.TIME_STRING, 1, decode, lambda status: answer(status_text(status)))

    def fetch(self, answer: Callable[[ArrayReading | str], None]) -> None:
        """Ask for the array; `answer` gets it in libca's thread, or a sentence why it could not be had."""

        def decode(args: EventArgs) -> None:
            kind, time = dbr.native_type(args.type), Time.from_address(args.dbr)
            size = args.count * ctypes.sizeof(dbr.Map[kind])
            raw = ctypes.string_at(args.dbr + dbr.value_offset[args.type], size)
            stamp = EPICS_EPOCH + time.seconds + 1e-9 * time.nanoseconds
            answer(ArrayReading(np.frombuffer(raw, self._dtypes[kind]), stamp))

        if not self.ready or self.problem is not None:
            answer(self.problem or "it is not connected")
            return
        # A count of 0 asks for as many elements as the record holds now (NORD).
        self._get(self._type + dbr.TIME_STRING, 0, decode, lambda status: answer(status_text(status)))

    def _changed(self, handle: Handle, up: bool) -> None:
        self._ready.clear()
        self.problem = None
        if not up:
            self.connections += 1
            return
        self._type, self.size = handle.field_type, handle.element_count
        dtype, string = self._dtypes.get(self._type), self._type == dbr.STRING
        if dtype is None or (string and self.size > 1):
            self.problem = f"{self.pv} holds {dbr.Name(self._type)}, and {self._needed}"
            self._ready.set()
        elif string:  # which has neither units nor limits
            self.dtype = dtype
            self._ready.set()
        else:
            handle.get(self._type + dbr.CTRL_STRING, 1, self._describe, lambda status: None)

    def _describe(self, args: EventArgs) -> None:
        control = dbr.Map[args.type].from_address(args.dbr)
        self.description = {
            "source": f"PV:{self.pv}",
            "units": decoded(control.units),
            "precision": getattr(control, "precision", None),
            "lower_ctrl_limit": control.lower_ctrl_limit,
            "upper_ctrl_limit": control.upper_ctrl_limit,
        }
        self.dtype = self._dtypes[self._type]
        self._ready.set()
