"""The status of a flyer's verb."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import pytest
from ophyd import Device
from ophyd.status import DeviceStatus

from busy_callback_flyer import FlightTimeout
from busy_callback_flyer.devices.status import FlightStatus


class Stoppable(Device):
    """Remembers that it was stopped."""

    stops = 0

    def stop(self, *, success: bool = False) -> None:
        self.stops += 1


def test_failure_stops_nothing() -> None:
    """The record may be in another's flight by now."""
    device = Stoppable(name="device")
    status = FlightStatus(device)
    status.set_exception(FlightTimeout("too long"))
    with pytest.raises(FlightTimeout, match="too long"):
        status.wait(20)
    assert device.stops == 0


def test_is_a_device_status_without_a_thread() -> None:
    before = threading.active_count()
    status = FlightStatus(Stoppable(name="device"))
    assert isinstance(status, DeviceStatus)
    assert threading.active_count() == before
    assert status.device.name == "device"


def test_watchers_are_told_now_and_when_it_is_done() -> None:
    status = FlightStatus(Stoppable(name="device"))
    told: list[tuple[bool, dict[str, Any]]] = []
    status.watch(lambda **progress: told.append((status.done, progress)))
    assert told == [(False, {"name": "device"})]
    status.set_finished()
    assert told[1:] == [(True, {"name": "device", "fraction": 0.0})]
    status.watch(lambda **progress: told.append((status.done, progress)))
    assert len(told) == 4, "of a status that is done"


@pytest.mark.parametrize("error", [None, FlightTimeout("too long")])
def test_a_slow_watcher_delays_nobody(error: Exception | None) -> None:
    """It is told later, after the callbacks."""
    tasks: queue.Queue[Callable[[], None]] = queue.Queue()
    status = FlightStatus(Stoppable(name="device"), tasks.put)
    told: list[dict[str, Any]] = []
    called: list[DeviceStatus] = []
    status.watch(lambda **progress: told.append(progress))
    status.add_callback(called.append)
    if error is None:
        status.set_finished()
    else:
        status.set_exception(error)
    assert status.exception(0) is error
    assert called == [status]
    assert len(told) == 1
    tasks.get_nowait()()
    assert len(told) == 2


def test_progress_bar() -> None:
    """As the RunEngine's waiting hook draws it."""
    from bluesky.utils import ProgressBarManager

    manager = ProgressBarManager()
    status = FlightStatus(Stoppable(name="device"))
    manager({status})
    bar: Any = manager.pbar
    assert bar.meters[0].startswith("device [In progress")
    status.set_finished()
    assert bar.meters[0].startswith("device [Complete.]")
    manager(None)


def test_a_failure_is_told_by_the_status_itself() -> None:
    """It is all that the RunEngine says of it."""
    status = FlightStatus(Stoppable(name="device"))
    assert str(status) == repr(status) == "FlightStatus(device=device, done=False, success=False)"
    status.set_exception(FlightTimeout("too long"))
    told = "FlightStatus(device=device, done=True, success=False, exception=FlightTimeout('too long'))"
    assert str(status) == repr(status) == told
