"""BusyFlyer: from Done to the kickoff status's own callback."""

from __future__ import annotations

import sys
import time
from typing import Literal

from ophyd import EpicsSignal

from busy_callback_flyer import BusyFlyer

from .flights import TIMEOUT, fly_all


def main(prefix: str, events: Literal["direct", "ophyd"]) -> None:
    """Fly by BusyFlyer with these `events`."""
    flyer = BusyFlyer(prefix, name="ifly", events=events)
    duration = EpicsSignal(f"{prefix}duration", name="duration")
    flyer.wait_for_connection(timeout=TIMEOUT)
    duration.wait_for_connection(timeout=TIMEOUT)

    def fly(length: float) -> float:
        known: list[float] = []
        duration.put(length, wait=True)
        status = flyer.kickoff()
        status.add_callback(lambda _: known.append(time.time()))
        flyer.complete().wait(TIMEOUT)
        stamp = flyer.timeline["done"].stamp
        assert stamp is not None
        return known[0] - stamp

    fly_all(fly)


if __name__ == "__main__":
    main(sys.argv[1], "ophyd" if sys.argv[2] == "ophyd" else "direct")
