"""ophyd-async: a signal that is observed in the RunEngine's asyncio loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

os.environ["OPHYD_CONTROL_LAYER"] = "dummy"  # ophyd itself is not used

from bluesky.protocols import Status
from bluesky.run_engine import call_in_bluesky_event_loop
from ophyd_async.core import AsyncStatus, StrictEnum, observe_value
from ophyd_async.epics.core import epics_signal_r, epics_signal_rw

from busy_callback_flyer.tools.ways import CONNECT_TIMEOUT

from . import aioca


class State(StrictEnum):
    """Of the embedded IOC's record."""

    DONE = "Done"
    BUSY = "Busy"


class Peer:
    """By `observe_value`."""

    def __init__(self, pv: str) -> None:
        self.client = f"ophyd-async {version('ophyd-async')}, {aioca.client()}"
        self._busy = epics_signal_rw(State, f"ca://{pv}", name="busy", wait=False)
        self._monitors: list[Any] = []
        call_in_bluesky_event_loop(self._busy.connect(timeout=CONNECT_TIMEOUT))

    def kickoff(self) -> Status:
        async def fly() -> None:
            flying = False
            async for state in observe_value(self._busy):
                if not flying:
                    flying = True
                    await self._busy.set(State.BUSY)
                elif state is State.DONE:
                    return

        status: Status = AsyncStatus(fly())
        return status

    def monitor(self, pvs: Sequence[str], hears: Callable[[], None]) -> None:
        async def subscribe() -> None:
            signals = [epics_signal_r(None, f"ca://{pv}", name=pv) for pv in pvs]
            await asyncio.gather(*(signal.connect(timeout=CONNECT_TIMEOUT) for signal in signals))
            for signal in signals:
                signal.subscribe(lambda _: hears())
            self._monitors += signals

        call_in_bluesky_event_loop(subscribe())

    def marks(self) -> dict[str, float]:
        return {}
