"""Step 1: the least that the RunEngine takes for a flyer.

A *flyer* is a device that measures by itself once it is told to. A plan says three things to it:

* `kickoff`: begin. It answers with a *status*, an object that will be done when that is.
* `complete`: let me know when your flight is over. Again it answers with a status.
* `collect_pages`: give me what you measured, as *event pages*. `describe_collect` tells beforehand which
  streams and which keys to expect in them.

This flyer has nothing to do, so both of its statuses are finished when they are returned; and nothing to
give, so its one stream, which bears its name, has no keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import bluesky.plans as bp
from bluesky import RunEngine
from event_model import PartialEventPage
from ophyd import Device
from ophyd.status import DeviceStatus

from .documents import print_document


class BareMinimumFlyer(Device):
    """Does nothing, in the way that the RunEngine expects."""

    def kickoff(self) -> DeviceStatus:
        """Begin."""
        status = DeviceStatus(self)
        status.set_finished()
        return status

    def complete(self) -> DeviceStatus:
        """Tell when it is over."""
        status = DeviceStatus(self)
        status.set_finished()
        return status

    def describe_collect(self) -> dict[str, dict[str, Any]]:
        """Keys of each stream."""
        return {self.name: {}}

    def collect_pages(self) -> Iterator[PartialEventPage]:
        """What was measured."""
        yield from ()


def demonstrate(run_engine: RunEngine) -> None:
    """Call each verb by hand, as it is wise with a new flyer; then fly it in a run."""
    flyer = BareMinimumFlyer(name="flyer")
    print(flyer.kickoff())
    print(flyer.complete())
    print(flyer.describe_collect())
    print(list(flyer.collect_pages()))
    run_engine(bp.fly([flyer]), print_document)
