"""A server that behaves like a synApps sscan record, and a busy record that starts it.

As measured at the real one: EXSC is a SHORT. A put of 1 is an event of 1 with the stamp of the scan before; the event
of 0 at the end, the arrays and CPT bear the stamp of this scan's start; then the put-callback comes. A put of 0
aborts. The arrays have MPTS elements always, filled up with the last value. A scan that refuses to start (`refuse`)
says 1 and 0, moves the stamps of the old arrays and leaves CPT 0; its put-callback never comes.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from caproto import ChannelType, SkipWrite
from caproto.server import PVGroup, pvproperty, run

MPTS = 100


class Sscan(PVGroup):
    exsc = pvproperty(name="scan1.EXSC", value=0, dtype=ChannelType.INT)
    npts = pvproperty(name="scan1.NPTS", value=5, dtype=ChannelType.LONG)
    cpt = pvproperty(name="scan1.CPT", value=0, dtype=ChannelType.LONG, read_only=True)
    p1ra = pvproperty(name="scan1.P1RA", value=[0.0] * MPTS, max_length=MPTS, read_only=True)
    d01da = pvproperty(name="scan1.D01DA", value=[0.0] * MPTS, max_length=MPTS, dtype=ChannelType.FLOAT, read_only=True)
    busy = pvproperty(name="mybusy", value=0, dtype=ChannelType.ENUM, enum_strings=["Done", "Busy"])
    period = pvproperty(name="period", value=0.02)
    refuse = pvproperty(name="refuse", value=0, dtype=ChannelType.LONG)
    scans = pvproperty(name="scans", value=0, dtype=ChannelType.LONG)

    stamp = 631152000.0
    aborted = False

    @exsc.putter  # type: ignore[no-redef]
    async def exsc(self, instance: Any, value: int) -> None:
        if not value:
            self.aborted = True
        elif not instance.value:
            await self._scan(instance)
        raise SkipWrite

    @busy.putter  # type: ignore[no-redef]
    async def busy(self, instance: Any, value: Any) -> Any:
        """Its OUT starts or aborts the scan, sscan's FLNK writes Done."""
        if value in (0, "Done"):
            self.aborted = True
        elif instance.value in (0, "Done"):
            await instance.write(1, verify_value=False)
            await self._scan(self.exsc)
            return 0
        raise SkipWrite

    async def _scan(self, exsc: Any) -> None:
        started, self.aborted, points = time.time(), False, int(self.npts.value)
        await exsc.write(1, timestamp=self.stamp, verify_value=False)
        self.stamp = started
        if self.refuse.value:
            for array in (self.p1ra, self.d01da):
                await array.write(list(array.value), timestamp=started, verify_value=False)
            await self.cpt.write(0, timestamp=started, verify_value=False)
            await exsc.write(0, timestamp=started, verify_value=False)
            await asyncio.Event().wait()
        await self.scans.write(int(self.scans.value) + 1)
        x: list[float] = []
        while len(x) < points and not self.aborted:
            await asyncio.sleep(float(self.period.value))
            x.append(float(self.scans.value) + 0.01 * len(x))
        filled = (x + x[-1:] * MPTS)[:MPTS]
        await self.p1ra.write(filled, timestamp=started, verify_value=False)
        await self.d01da.write([10 * value for value in filled], timestamp=started, verify_value=False)
        await self.cpt.write(len(x), timestamp=started, verify_value=False)
        await exsc.write(0, timestamp=started, verify_value=False)


if __name__ == "__main__":
    run(Sscan(prefix="xxx:").pvdb, interfaces=["127.0.0.1"], startup_hook=None)
