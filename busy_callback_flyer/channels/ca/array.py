"""A channel to an array, by libca."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from epics import dbr

from ...engine.ports import ArrayReading
from ...engine.text import decoded
from ..epics import EPICS_EPOCH
from .base import CAChannel, Handle
from .library import EventArgs, Time, status_text

_DTYPES: dict[int, np.dtype[Any]] = {
    dbr.SHORT: np.dtype(np.int16),
    dbr.FLOAT: np.dtype(np.float32),
    dbr.CHAR: np.dtype(np.uint8),
    dbr.LONG: np.dtype(np.int32),
    dbr.DOUBLE: np.dtype(np.float64),
}


class CAArray(CAChannel):
    """A channel to an array; it is asked, not monitored.

    Parameters
    ----------
    pv : str
    text : bool
        Whether characters are needed, and not numbers.

    Attributes
    ----------
    dtype : numpy.dtype or None
        Type of the elements, as Channel Access has it: unsigned 16 bits come as signed 32, and what is longer as
        double; None while it is not known.
    size : int
        Most elements that the array can have (NELM).
    description : dict
        Source, and as its record has them units, precision and control limits.
    """

    def __init__(self, pv: str, *, text: bool = False) -> None:
        self._needed = "characters (FTVL CHAR)" if text else "numbers"
        self._types = [dbr.CHAR] if text else list(_DTYPES)
        self._type = -1
        self.dtype: np.dtype[Any] | None = None
        self.size = 0
        self.description: dict[str, Any] = {"source": f"PV:{pv}"}
        super().__init__(pv)

    def fetch(self, answer: Callable[[ArrayReading | str], None]) -> None:
        """Ask for the array; `answer` gets it in libca's thread, or a sentence why it could not be had."""

        def decode(args: EventArgs) -> None:
            dtype, time = _DTYPES[dbr.native_type(args.type)], Time.from_address(args.dbr)
            raw = ctypes.string_at(args.dbr + dbr.value_offset[args.type], args.count * dtype.itemsize)
            stamp = EPICS_EPOCH + time.seconds + 1e-9 * time.nanoseconds
            answer(ArrayReading(np.frombuffer(raw, dtype), stamp))

        if not self.ready or self.problem is not None:
            answer(self.problem or "it is not connected")
            return
        # A count of 0 asks for as many elements as the record holds now (NORD).
        self._get(self._type + dbr.TIME_STRING, 0, decode, lambda status: answer(status_text(status)))

    def _changed(self, handle: Handle, up: bool) -> None:
        self._ready.clear()
        self.problem = None
        if not up:
            return
        self._type, self.size = handle.field_type, handle.element_count
        if self._type not in self._types:
            self.problem = f"{self.pv} holds {dbr.Name(self._type)}, and {self._needed} are needed"
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
        self.dtype = _DTYPES[self._type]
        self._ready.set()
