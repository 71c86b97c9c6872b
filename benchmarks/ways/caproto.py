"""caproto's threading client: Channel Access in Python, without libca."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

os.environ["OPHYD_CONTROL_LAYER"] = "dummy"  # of ophyd we only need a status

from caproto.threading.client import PV, Context

from busy_callback_flyer.tools.ways import CONNECT_TIMEOUT

from .callback import ByCallback


class Peer(ByCallback):
    """By the callback of a subscription."""

    def __init__(self, pv: str) -> None:
        self.client = f"caproto {version('caproto')}, without libca"
        self._kept: list[Any] = []
        self._context = Context()
        (self._pv,) = self._subscribe([pv], self._news)

    def _subscribe(self, names: Sequence[str], hears: Callable[[Any, Any], None]) -> list[PV]:
        pvs: list[PV] = self._context.get_pvs(*names)
        for pv in pvs:
            pv.wait_for_connection(timeout=CONNECT_TIMEOUT)
            subscription = pv.subscribe(data_type="time")
            subscription.add_callback(hears)
            self._kept += [subscription, hears]  # it keeps weak references only
        return pvs

    def _put_busy(self) -> None:
        self._pv.write([1], wait=False)

    def _news(self, _: Any, response: Any) -> None:
        self._heard(response.data[0])

    def monitor(self, pvs: Sequence[str], hears: Callable[[], None]) -> None:
        self._subscribe(pvs, lambda *_: hears())
