"""Step 5: a busy record, the controller's arrays, and both ways of waiting side by side.

Now the activity is somebody else's. At the beamline a *controller* moves, triggers and counts; all it takes from us
is a 1 in its busy record, and it writes 0 there when it has filled its arrays. So the flyer's own part is small:

1. make sure that the record is Done, then put Busy;
2. know when it is Done again: this is where flyers differ;
3. read the arrays, and hand them on as a page.

`MyPollingFlyer` looks at the record every 50 ms, from a thread. `MyFlyer` subscribes to it, as the template of step 2
does. In step 2 the signal was ours; this record lives in another computer, and there is more to be got wrong: the
connection can be lost, the put refused, another client can put it, an alarm brings an event without a change, the
arrays can be those of yesterday. That is what `BusyFlyer` is for: ``engine/flight.py`` has the rules,
``engine/collector.py`` judges what came.

Both have the same components, so the same keys. A component is all that there is to change for other PVs, and every
`Waveform` becomes a column; ``xArr = None`` drops one.
"""

from __future__ import annotations

import statistics

import bluesky.plans as bp
from bluesky import RunEngine
from ophyd import Component

from busy_callback_flyer import BusyFlyer, BusyRecord, PollingFlyer, Waveform

from .documents import print_document

FLIGHTS = 5


class MyFlyer(BusyFlyer):
    """Waits by callback."""

    busy = Component(BusyRecord, "mybusy", kind="config")
    tArr = Component(Waveform, "t_array")
    xArr = Component(Waveform, "x_array")
    yArr = Component(Waveform, "y_array")


class MyPollingFlyer(PollingFlyer):
    """Waits by polling."""

    busy = Component(BusyRecord, "mybusy", kind="config")
    tArr = Component(Waveform, "t_array")
    xArr = Component(Waveform, "x_array")
    yArr = Component(Waveform, "y_array")


def demonstrate(run_engine: RunEngine, prefix: str = "prj:") -> None:
    """Fly once by callback and look at what came; then several times by each, and compare."""
    flyer = MyFlyer(prefix, name="ifly", flight_timeout=60)
    flyer.wait_for_connection(timeout=10)
    print(flyer.busy.state.pvname, "is", flyer.busy.state.get())
    run_engine(bp.fly([flyer]), print_document)
    print(flyer.timeline)

    polling = MyPollingFlyer(prefix, name="ifly", flight_timeout=60)
    polling.wait_for_connection(timeout=10)
    for each in (flyer, polling):
        delays = []
        for _ in range(FLIGHTS):
            run_engine(bp.fly([each]))
            delays.append(1e3 * (each.timeline.latency or 0.0))
        print(f"{type(each).__name__}: finished {statistics.median(delays):.2f} ms after Done (median of {FLIGHTS})")
