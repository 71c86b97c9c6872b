"""aioca: libca's events, handed to the RunEngine's asyncio loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

os.environ["OPHYD_CONTROL_LAYER"] = "dummy"  # of ophyd we only need a status

import aioca
from bluesky.run_engine import call_in_bluesky_event_loop

from busy_callback_flyer.tools.ways import CONNECT_TIMEOUT

from .callback import ByCallback


def client() -> str:
    """What it runs on."""
    return f"aioca {version('aioca')} on libca of epicscorelibs {version('epicscorelibs')}"


class Peer(ByCallback):
    """By a camonitor."""

    def __init__(self, pv: str) -> None:
        self.client = client()
        self._pv = pv
        self._monitors: list[Any] = []
        self._puts: set[asyncio.Task[Any]] = set()
        self._subscribe([pv], self._heard, aioca.DBR_ENUM)

    def _subscribe(self, pvs: Sequence[str], hears: Callable[[Any], None], datatype: Any = None) -> None:
        async def subscribe() -> None:
            await aioca.connect(pvs, timeout=CONNECT_TIMEOUT)
            self._monitors += [aioca.camonitor(pv, hears, datatype=datatype) for pv in pvs]

        call_in_bluesky_event_loop(subscribe())

    def _put_busy(self) -> None:
        put = asyncio.get_running_loop().create_task(aioca.caput(self._pv, 1))
        self._puts.add(put)
        put.add_done_callback(self._puts.discard)

    def monitor(self, pvs: Sequence[str], hears: Callable[[], None]) -> None:
        self._subscribe(pvs, lambda _: hears())
