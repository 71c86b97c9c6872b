"""Step 2: a template, with a place for what is yours, and a callback that tells of its end.

What a flyer sets going takes its time, so `kickoff` returns a status that is *not* finished yet. Somebody has
to finish it. A thread of ours could look again and again whether the thing is over, and sleep in between: that
is *polling*. It is late by up to its sleep, and as it looks it takes time from others. The other way is to
*subscribe*: whatever ends the activity changes a value, and with the change our method is called. Nobody
waits and nobody looks; it is known when it is so.

Here the value is a signal that is 1 while something goes on. Whoever ends it is not our business: in this
template it is a timer, in life it is a controller. Three lines are worth a second look, as each of them is a
flyer that finishes too early where it is written in another way:

* the subscription is made once, before any flight, and with ``run=False``: otherwise ophyd calls it at once with the
  latest value, which is the end of the flight *before*;
* `_flight` is set before the activity begins: it may end at once;
* our own put of 1 is heard, too: only a 0 is an end.
"""

from __future__ import annotations

from threading import Timer
from typing import Any

import bluesky.plans as bp
from bluesky import RunEngine
from ophyd import Component, Signal
from ophyd.status import DeviceStatus

from .documents import print_document
from .step1_bare_minimum import BareMinimumFlyer


class TemplateFlyer(BareMinimumFlyer):
    """Finishes its kickoff with the activity that it began."""

    activity = Component(Signal, value=0, kind="omitted")

    def __init__(self, prefix: str = "", *, name: str, **kwargs: Any) -> None:
        super().__init__(prefix, name=name, **kwargs)
        self._flight: DeviceStatus | None = None
        self.activity.subscribe(self._activity_changed, run=False)

    def my_activity(self) -> None:
        """Begin what is yours to do, and return; what waits here keeps the whole plan waiting."""
        self.activity.put(1)
        Timer(0.2, self.activity.put, [0]).start()

    def _activity_changed(self, *, value: int, **_: Any) -> None:
        if value == 0 and self._flight is not None:
            self._flight.set_finished()

    def kickoff(self) -> DeviceStatus:
        """Begin; finished when the activity is over."""
        if self._flight is not None and not self._flight.done:
            raise RuntimeError(f"{self.name} flies already")
        self._flight = status = DeviceStatus(self)
        self.my_activity()
        return status

    def complete(self) -> DeviceStatus:
        """The flight's own status: it is over when it is over."""
        if self._flight is None:
            raise RuntimeError(f"{self.name} was not kicked off")
        return self._flight


def demonstrate(run_engine: RunEngine) -> None:
    """See the status become finished, then fly in a run."""
    flyer = TemplateFlyer(name="flyer")
    status = flyer.kickoff()
    print("just after kickoff:", status)
    status.wait(timeout=10)
    print("a little later:    ", status)
    run_engine(bp.fly([flyer]), print_document)
