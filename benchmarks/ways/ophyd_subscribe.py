"""ophyd's own: a subscription to the record's signal finishes a status.

By a read-only signal apart from the one that is put to, as the echo of a put would finish it
early, and without the replay of the last event.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from ophyd import EpicsSignal, EpicsSignalRO
from ophyd.status import SubscriptionStatus

from .flights import TIMEOUT, fly_all


def main(prefix: str) -> None:
    """Fly by a SubscriptionStatus."""
    busy = EpicsSignal(f"{prefix}mybusy", name="busy")
    monitor = EpicsSignalRO(f"{prefix}mybusy", name="monitor", auto_monitor=True)
    duration = EpicsSignal(f"{prefix}duration", name="duration")
    for signal in (busy, monitor, duration):
        signal.wait_for_connection(timeout=TIMEOUT)

    def fly(length: float) -> float:
        known: list[float] = []
        stamps: list[float] = []

        def is_done(value: int, old_value: int, timestamp: float, **_: Any) -> bool:
            if done := (old_value, value) == (1, 0):
                stamps.append(timestamp)
            return done

        duration.put(length, wait=True)
        status = SubscriptionStatus(monitor, is_done, run=False)
        status.add_callback(lambda _: known.append(time.time()))
        busy.put(1)
        status.wait(TIMEOUT)
        while not known:  # wait() returns before the callbacks are called
            time.sleep(0.0001)
        return known[0] - stamps[0]

    fly_all(fly)


if __name__ == "__main__":
    main(sys.argv[1])
