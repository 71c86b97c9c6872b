"""What kickoff and complete return."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from ophyd import Device
from ophyd.status import DeviceStatus

from ..engine.progress import Progress

logger = logging.getLogger(__name__)

LONG = 0.1
"""Seconds that callbacks of a status may take before a warning names them."""


class FlightStatus(DeviceStatus):
    """The status of a flyer's verb: a `DeviceStatus` that stops nothing by itself and has no thread.

    ophyd's own calls ``device.stop()`` when it fails. A flight that failed has already
    written Done where that was right. Where it was not (the flight of somebody else, an
    IOC that came back), nothing may write it afterwards.

    It is finished in the thread that brought the news, libca's own for a flight that went
    well. A callback added to it holds up everything else in that thread, so it must not block.

    Parameters
    ----------
    device : Device
        The flyer.
    later : callable, optional
        Runs what it is given in another thread: watchers may be slow. By default they are
        told in the thread that finishes the status.
    progress : Progress, optional
        Knows how far it is.
    """

    def __init__(
        self,
        device: Device,
        later: Callable[[Callable[[], None]], object] | None = None,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(device)
        self._callers: list[Callable[[Any], Any]] = []
        self._later = later or (lambda task: task())
        self._progress = progress

    def settle(self, error: Exception | None = None) -> None:
        """Finish it, or let it fail with this error."""
        began = time.monotonic()
        if error is None:
            self.set_finished()
        else:
            self.set_exception(error)
        took = time.monotonic() - began
        if took > LONG:
            names = ", ".join(getattr(callback, "__qualname__", repr(callback)) for callback in self._callers)
            logger.warning(
                "%s: callbacks of a status blocked the thread that brings the news for %.2g s: %s. "
                "Let them hand over to another thread",
                self.device.name,
                took,
                names,
            )

    def add_callback(self, callback: Callable[[Any], Any]) -> None:
        """Call it when the status is done, in the thread that finishes it; at once, if it is done."""
        self._callers.append(callback)  # ophyd's own list is emptied as it is called
        super().add_callback(callback)

    def watch(self, func: Callable[..., Any]) -> None:
        """Call `func(name=...)` now, and again once the status is done, as progress bars expect it.

        Where the flyer knows how far its flight is, with more keywords, and 10 times a second in between;
        see `Progress.now`. ophyd's own tells its watchers before it is done: they would delay it.
        """
        if self._progress is not None:
            self._progress.watch(self, func)
            return
        func(name=self.device.name)
        told = partial(func, name=self.device.name, fraction=0.0)
        self.add_callback(lambda status: self._later(told))

    def __str__(self) -> str:
        # All that the RunEngine's FailedStatus and a run's stop document say of a failure is this.
        error = self.exception(0) if self.done else None
        text = str(super().__str__())
        return text if error is None else f"{text[:-1]}, exception={error!r})"

    __repr__ = __str__

    def _handle_failure(self) -> None:
        """Where ophyd's own calls ``device.stop()``."""
