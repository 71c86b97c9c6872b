"""The status of a flyer's verb."""

from __future__ import annotations

import pytest
from ophyd import Device

from busy_callback_flyer import FlightTimeout
from busy_callback_flyer.status import FlightStatus


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
