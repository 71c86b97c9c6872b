"""What has to be done before a flight: a flight of its own, at a record of its own, by the same rules."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .flight import Flight

if TYPE_CHECKING:
    from .driver import FlightDriver


class Taxi:
    """Taxis ahead of flights, or earlier by request; each taxi is good for one flight.

    Parameters
    ----------
    driver : FlightDriver
        Of the taxi's record.
    kickoff : callable
        Starts a taxi and returns its status, which has `done`, `success`, `exception` and `add_callback`; it may raise.
    comparable : callable
        Whether the stamps of both records are of one clock.
    """

    def __init__(self, driver: FlightDriver, kickoff: Callable[[], Any], comparable: Callable[[], bool]) -> None:
        self.driver = driver
        self._kickoff = kickoff
        self._comparable = comparable
        self._lock = threading.Lock()
        self._waiting: Any = None  # the latest, as long as it is not flown

    @property
    def waiting(self) -> Any:
        """The latest taxi, as long as nothing was flown after it."""
        return self._waiting

    def go(self) -> Any:
        """Taxi now, for the flight that comes next; raises what its kickoff raises."""
        ride = self._kickoff()
        with self._lock:
            self._waiting = ride
        return ride

    def ready(self, flight: Flight) -> None:
        """A flight is about to be launched: has it to taxi first?"""
        ride = self._waiting
        if ride is not None and ride.done and ride.success:
            flight.taxied_since = self._taxied_since()
        else:
            flight.taxis = True

    def begin(self, flight: Flight, owner: FlightDriver) -> None:
        """The flight orders it; its owner is told when it is over."""
        try:
            ride = self._waiting
            if ride is None or (ride.done and not ride.success):
                ride = self.go()
        except Exception as error:  # whatever it is, the flight must hear of it
            owner.taxi_failed(flight, error)
            return

        def over(ride: Any) -> None:
            error = ride.exception(0)
            if error is None:
                flight.taxied_since = self._taxied_since()
                owner.taxi_over(flight)
            else:
                owner.taxi_failed(flight, error)

        ride.add_callback(over)
        if flight.over:  # it was stopped meanwhile
            self.end("its flight was given up")

    def flown(self) -> None:
        """Busy of the flight is put."""
        with self._lock:
            self._waiting = None

    def end(self, why: str) -> None:
        """End it if it is under way, and forget it."""
        self.flown()
        self.driver.abort(why)

    def _taxied_since(self) -> float | None:
        """Stamp of the taxi's Busy, if it was seen and is of the clock that the arrays' are compared with."""
        flight = self.driver.flight
        busy = None if flight is None else flight.timeline.get("busy")
        return busy.stamp if busy is not None and self._comparable() else None
