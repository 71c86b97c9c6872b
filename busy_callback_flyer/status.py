"""What kickoff and complete return."""

from __future__ import annotations

from ophyd.status import DeviceStatus


class FlightStatus(DeviceStatus):
    """The status of a flyer's verb: a `DeviceStatus` that stops nothing by itself.

    ophyd's own calls ``device.stop()`` when it fails. A flight that failed has already
    written Done where that was right; where it was not (the flight of somebody else, an
    IOC that came back), nothing may write it afterwards.

    It is finished in the thread that brought the news, libca's own for a flight that went
    well. A callback added to it must not block there nor make blocking Channel Access calls.
    """

    def _handle_failure(self) -> None:
        """Where ophyd's own calls ``device.stop()``."""
