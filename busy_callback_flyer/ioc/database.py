"""The controller's way to its records, from inside the IOC."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable

import numpy as np

from .base import DBR_CHAR, DBR_DOUBLE, DBR_STRING, EpicsBase, RecordAddress

__all__ = ["IOCDatabase"]

STRING_SIZE = 40  # MAX_STRING_SIZE of EPICS


class IOCDatabase:
    """Records of the IOC in this process, by their names without the prefix.

    A put processes the record and posts its monitors, as a Channel Access put does.

    Parameters
    ----------
    base : EpicsBase
        The IOC.
    prefix : str
        First part of the records' names.
    """

    def __init__(self, base: EpicsBase, prefix: str) -> None:
        self._base = base
        self._prefix = prefix
        self._addresses: dict[str, RecordAddress] = {}

    def _address(self, name: str) -> RecordAddress:
        if name not in self._addresses:
            self._addresses[name] = self._base.address(self._prefix + name)
        return self._addresses[name]

    def get(self, name: str) -> float:
        """Value of a record, as a number (that of a choice is its index)."""
        return self._base.get(self._address(name))

    def put(self, name: str, value: float | int | str | np.ndarray) -> None:
        """Write a value. An array sets the record's number of elements too."""
        address = self._address(name)
        if not isinstance(value, str):
            array = np.ascontiguousarray(value, dtype=np.float64).reshape(-1)
            self._put(name, address, DBR_DOUBLE, array.ctypes.data, array.size)
        elif address.no_elements > 1:
            text = value.encode() + b"\0"
            self._put(name, address, DBR_CHAR, ctypes.c_char_p(text), len(text))
        else:
            text = value.encode()[: STRING_SIZE - 1]
            self._put(name, address, DBR_STRING, ctypes.create_string_buffer(text, STRING_SIZE), 1)

    def _put(self, name: str, address: RecordAddress, request_type: int, data: object, length: int) -> None:
        if length > address.no_elements:
            raise ValueError(f"{self._prefix}{name} holds {address.no_elements} elements, not {length}.")
        self._base.put(address, request_type, data, length)

    def finish(self, name: str, still_mine: Callable[[], bool]) -> bool:
        """Write 0 (Done) to a busy record if it is still the caller's to end.

        Parameters
        ----------
        name : str
            The busy record.
        still_mine : callable
            Asked with the record locked, so that nobody comes between the answer and the put.

        Returns
        -------
        bool
            Whether 0 was written.
        """
        with self.locked(name):
            if not still_mine():
                return False
            self.put(name, 0)
            return True

    def locked(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Hold a record's lock: meanwhile nobody else's put of it goes through."""
        return self._base.locked(self._address(name))
