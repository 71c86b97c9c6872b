"""The tutorial's flyer: a thread that polls the busy PV. The baseline that `BusyFlyer` is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ophyd import Signal

from ..channels.polling import PollingBusy
from ..engine.options import OPTIONS, require_seconds, signature
from ..engine.ports import BusyListener
from .flyer import BusyFlyer, FlyerArguments
from .status import FlightStatus
from .wiring import Wiring

if TYPE_CHECKING:
    from typing_extensions import Unpack


def _open_polling(wiring: Wiring, signal: Signal, listener: BusyListener) -> PollingBusy:
    flyer = cast(PollingFlyer, wiring.flyer)
    return PollingBusy(signal, listener, lambda: flyer.poll_sleep_interval_s)


class PollingFlyer(BusyFlyer):
    """A flyer that waits for Done by reading the busy PV again and again, in a thread.

    It has the components, options, data keys and pages of `BusyFlyer`; only the waiting
    differs. It is here to be compared with, and for control layers without monitors.

    A poll is a fresh read on the connection that Busy was put on, so it is evidence. What it
    cannot tell is what became of the put, nor that of a flight between two polls if the
    record's stamps stand still: that counts as refused.

    Attributes
    ----------
    poll_sleep_interval_s : float
        Seconds between two polls.
    """

    OPEN_BUSY = staticmethod(_open_polling)

    def __init__(self, prefix: str = "", *, name: str, **options: Unpack[FlyerArguments]) -> None:
        self.poll_sleep_interval_s = 0.05
        super().__init__(prefix, name=name, **options)

    def kickoff(self) -> FlightStatus:
        """Start a flight, see `BusyFlyer.kickoff`."""
        require_seconds("poll_sleep_interval_s", self.poll_sleep_interval_s)
        return super().kickoff()


PollingFlyer.__init__.__signature__ = signature(PollingFlyer.__init__, OPTIONS.values())  # type: ignore[attr-defined]
