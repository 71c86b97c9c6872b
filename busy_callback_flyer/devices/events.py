"""Events of a flyer's flights, for whoever subscribes to them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ophyd import Device

from ..channels import private_names
from ..engine.worker import Worker

if TYPE_CHECKING:
    from .one_flight import OneFlight

BUSY, DONE, FAILED = "flight_busy", "flight_done", "flight_failed"
"""Each once a flight: it began, it is finished, it failed."""


class FlightEvents:
    """Tells the subscribers of a device, in a thread where they may take their time.

    Parameters
    ----------
    device : Device
    worker : Worker
        Where they are told.
    """

    def __init__(self, device: Device, worker: Worker) -> None:
        self._device = device
        self._worker = worker

    def publish(self, one: OneFlight, event: str) -> None:
        """Tell those who have subscribed by now. ophyd's `_run_subs` would tell who comes later, too."""
        subscribers = private_names.subscribers(self._device, event)
        if not subscribers:
            return
        timeline = one.flight.timeline
        stamps = {BUSY: timeline.t0, DONE: timeline.when("done"), FAILED: timeline.when("failed")}
        details = {"timeline": timeline, "obj": self._device, "sub_type": event, "timestamp": stamps[event]}
        if event == FAILED:
            details["error"] = one.flight.error
        self._worker.do(partial(private_names.tell, self._device, event, subscribers, details))
