"""The flyer, and what may be done with it. Nothing waits here for an IOC: a kickoff tells what is missing."""

import bluesky.plan_stubs as bps
from bluesky.utils import MsgGenerator
from ophyd import EpicsSignal

from busy_callback_flyer import BusyFlyer
from busy_callback_flyer.plans import fly, recover  # noqa: F401 - plans of the queue

ifly = BusyFlyer("prj:", name="ifly", flight_timeout=600)
npts = EpicsSignal("prj:npts", name="npts", put_complete=True)  # else a value that the record does not take hangs
duration = EpicsSignal("prj:duration", name="duration", put_complete=True)


def line(points: int = 51, seconds: float = 1.0) -> MsgGenerator[str]:
    """Set the controller, and fly.

    Parameters
    ----------
    points : int
        How many.
    seconds : float
        How long the flight takes.
    """
    yield from bps.mv(npts, points, duration, seconds)
    for signal, asked in ((npts, points), (duration, seconds)):
        taken = yield from bps.rd(signal)
        if taken != asked:
            raise ValueError(f"{signal.pvname} takes {taken} instead of {asked}: nothing was flown")
    return (yield from fly(ifly, md={"plan_args": {"points": points, "seconds": seconds}}))
