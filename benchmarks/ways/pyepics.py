"""pyepics alone: a callback of the PV, in libca's thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import ophyd  # noqa: F401 - before epics: it chooses the libca that pyepics loads

# isort: split
import epics

from busy_callback_flyer.tools.ways import CONNECT_TIMEOUT, pyepics_in_words

from ..conditions import monitor_by_pyepics
from .callback import ByCallback


class Peer(ByCallback):
    """By the callback of a PV."""

    _busy_stamp: float | None = None

    def __init__(self, pv: str) -> None:
        self.client = pyepics_in_words()
        self._pv = epics.PV(pv, callback=self._news, auto_monitor=True)
        self._pv.wait_for_connection(timeout=CONNECT_TIMEOUT)

    def _put_busy(self) -> None:
        self._busy_stamp = None
        self._pv.put(1)

    def _news(self, *, value: int, timestamp: float, **_: Any) -> None:
        if value:
            self._busy_stamp = timestamp
        self._heard(value)

    def marks(self) -> dict[str, float]:
        busy = self._busy_stamp
        return super().marks() | ({} if busy is None else {"busy_stamp": busy})

    def monitor(self, pvs: Sequence[str], hears: Callable[[], None]) -> None:
        monitor_by_pyepics(pvs, hears)
