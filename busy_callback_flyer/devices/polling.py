"""The tutorial's flyer: a thread that polls the busy PV. The baseline that `BusyFlyer` is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ophyd import Signal

from ..channels.polling import PollingBusy
from ..engine.options import POLLING_OPTIONS, PollingOptions, signature
from ..engine.ports import BusyListener
from .configured import DeviceArguments
from .flyer import BusyFlyer
from .wiring import Wiring

if TYPE_CHECKING:
    from typing_extensions import Unpack


class PollingArguments(PollingOptions, DeviceArguments, total=False):
    """Keyword arguments of `PollingFlyer`."""


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

    Parameters
    ----------
    prefix : str
        Put before the components' PV names.
    name : str
        Of the flyer; the data keys begin with it.
    poll_sleep_interval_s : float
        Seconds between two polls.
    **options
        Of `BusyFlyer`.
    """

    OPTIONS = POLLING_OPTIONS
    OPEN_BUSY = staticmethod(_open_polling)

    def __init__(self, prefix: str = "", *, name: str, **options: Unpack[PollingArguments]) -> None:
        super().__init__(prefix, name=name, **options)  # type: ignore[misc]


PollingFlyer.__init__.__signature__ = signature(  # type: ignore[attr-defined]
    PollingFlyer.__init__, POLLING_OPTIONS.values()
)
