"""What kickoff and complete return."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ophyd import Device
from ophyd.status import DeviceStatus

from .progress import Progress


class FlightStatus(DeviceStatus):
    """The status of a flyer's verb: a `DeviceStatus` that stops nothing by itself and has no thread.

    ophyd's own calls ``device.stop()`` when it fails. A flight that failed has already
    written Done where that was right; where it was not (the flight of somebody else, an
    IOC that came back), nothing may write it afterwards.

    It is finished in the thread that brought the news, libca's own for a flight that went
    well. A callback added to it must not block there nor make blocking Channel Access calls.

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
        self._later = later or (lambda task: task())
        self._progress = progress

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
