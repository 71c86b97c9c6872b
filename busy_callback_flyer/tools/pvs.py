"""PVs and fields of records that are looked at together, once."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import ophyd  # noqa: F401 - before epics: it chooses the libca that pyepics loads

# isort: split
import epics

__all__ = ["FIELD_TIMEOUT", "READ_TIMEOUT", "PVs", "field_of", "record_of"]

FIELD_TIMEOUT = 1.0
"""Seconds that a record's fields may need to connect, where the record itself has."""

READ_TIMEOUT = 2.0


class PVs:
    """PVs that are looked for together: those that are missing cost one timeout."""

    def __init__(self, names: Iterable[str], timeout: float = FIELD_TIMEOUT) -> None:
        self._pvs = {name: epics.get_pv(name, auto_monitor=False) for name in names}
        deadline = time.monotonic() + timeout
        for pv in self._pvs.values():
            pv.wait_for_connection(timeout=max(0.01, deadline - time.monotonic()))

    def __getitem__(self, name: str) -> Any:
        return self._pvs[name]

    def get(self, name: str, **how: Any) -> Any:
        """Its value, read afresh; None where it cannot be had."""
        pv = self._pvs.get(name)
        return None if pv is None or not pv.connected else pv.get(use_monitor=False, timeout=READ_TIMEOUT, **how)


def record_of(pv: str) -> str:
    """The record that a PV is of."""
    return pv.split(".")[0]


def field_of(pv: str, name: str) -> str:
    """Another field of the record that a PV is of."""
    return f"{record_of(pv)}.{name}"
