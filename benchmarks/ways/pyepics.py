"""pyepics alone: a callback of the PV, in libca's thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bluesky.protocols import Status
from ophyd.status import Status as OphydStatus

# isort: split
import epics

from busy_callback_flyer.waiting import CONNECT_TIMEOUT, pyepics_in_words


class Peer:
    """By the callback of a PV."""

    def __init__(self, pv: str) -> None:
        self.client = pyepics_in_words()
        self._knows: Callable[[], None] | None = None
        self._status = OphydStatus()
        self._pv = epics.PV(pv, callback=self._news, auto_monitor=True)
        self._pv.wait_for_connection(timeout=CONNECT_TIMEOUT)

    def kickoff(self, knows: Callable[[], None]) -> Status:
        self._knows, self._status = knows, OphydStatus()
        self._pv.put(1)
        return self._status  # type: ignore[no-any-return]

    def _news(self, *, value: int, **_: Any) -> None:
        if value == 0 and self._knows is not None:
            knows, self._knows = self._knows, None
            knows()
            self._status.set_finished()

    def monitor(self, pvs: Sequence[str], hears: Callable[[], None]) -> None:
        for pv in [epics.get_pv(pv, callback=lambda **_: hears(), auto_monitor=True) for pv in pvs]:
            pv.wait_for_connection(timeout=CONNECT_TIMEOUT)

    def marks(self) -> dict[str, float]:
        return {}
