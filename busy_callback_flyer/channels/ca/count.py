"""A channel to a number that is watched while it counts, by libca."""

from __future__ import annotations

import logging

from epics import dbr

from ...engine.ports import EPICS_EPOCH, ValueReading
from .base import CAChannel, Handle, listeners, nobody
from .library import EventArgs, EventHandler, TimeDouble

logger = logging.getLogger(__name__)


@EventHandler
def _on_count(args: EventArgs) -> None:
    try:
        channel = listeners.get(args.usr, nobody)()
        if channel is not None and args.dbr:
            event = TimeDouble.from_address(args.dbr)
            channel.tell(ValueReading(event.value, EPICS_EPOCH + event.seconds + 1e-9 * event.nanoseconds))
    except Exception:
        logger.exception("a monitor handler failed")


class CACount(CAChannel):
    """A channel to a number that is watched while it counts.

    Attributes
    ----------
    first, latest : ValueReading or None
        What it said when it was first listened to, and last. Only the first's stamp is of the value: a record posts
        NORD before it has its new stamp.
    """

    def __init__(self, pv: str) -> None:
        self.first: ValueReading | None = None
        self.latest: ValueReading | None = None
        super().__init__(pv)

    def tell(self, reading: ValueReading) -> None:
        """Keep it."""
        self.latest = reading
        self.first = self.first or reading

    def _opened(self, handle: Handle) -> None:
        handle.subscribe(self, dbr.TIME_DOUBLE, dbr.DBE_VALUE, _on_count)

    def _changed(self, handle: Handle, up: bool) -> None:
        self.first = self.latest = None
        if up:
            self._ready.set()
        else:
            self._ready.clear()
