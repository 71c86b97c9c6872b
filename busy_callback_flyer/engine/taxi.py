"""What has to be done before a flight: a flight of its own, at a record of its own, by the same rules."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .flight import Flight
from .freshness import Ground

if TYPE_CHECKING:
    from .driver import FlightDriver


class Taxi:
    """Taxis ahead of flights, or earlier by request; each taxi is good for one flight.

    Parameters
    ----------
    driver : FlightDriver
        Of the taxi's record.
    kickoff : callable
        Starts a taxi; returns its status, which has `done`, `success`, `exception` and `add_callback`, and what the
        arrays bear when the taxi's Busy is put. It may raise.
    """

    def __init__(self, driver: FlightDriver, kickoff: Callable[[], tuple[Any, Ground]]) -> None:
        self.driver = driver
        self._kickoff = kickoff
        self._lock = threading.Lock()
        self._waiting: Any = None  # the latest, as long as it is not flown
        self._ground: Ground | None = None
        self._handed_over = False
        self._flight: Flight | None = None  # that the taxi is for

    @property
    def waiting(self) -> Any:
        """The latest taxi, as long as nothing was flown after it."""
        return self._waiting

    def go(self) -> Any:
        """Taxi now, for the flight that comes next; raises what its kickoff raises."""
        ride, ground = self._kickoff()
        with self._lock:
            self._waiting, self._ground, self._flight = ride, ground, None
        return ride

    def ready(self, flight: Flight) -> None:
        """A flight is about to be launched: has it to taxi first?"""
        ride, self._handed_over, self._flight = self._waiting, False, flight
        flight.taxis = ride is None or not (ride.done and ride.success)

    def begin(self, flight: Flight, owner: FlightDriver) -> None:
        """The flight orders it; its owner is told when it is over."""
        try:
            ride = self._waiting
            if ride is None or (ride.done and not ride.success):
                ride = self.go()
                self._flight = flight
        except Exception as error:  # whatever it is, the flight must hear of it
            owner.taxi_failed(flight, error)
            return

        def over(ride: Any) -> None:
            error = ride.exception(0)
            if error is None:
                owner.taxi_over(flight)
            else:
                owner.taxi_failed(flight, error)

        ride.add_callback(over)
        if flight.over:  # it was stopped meanwhile
            self.end("its flight was given up")

    def hand_over(self, ground: Ground) -> bool:
        """Give a flight the ground of its taxi, unless another client has flown since."""
        taxi, earlier = self.driver.flight, self._ground
        alone = taxi is not None and taxi.foreign_done is None
        self._handed_over = alone and earlier is not None and ground.adopt(earlier)
        return self._handed_over

    def flown(self) -> bool:
        """Busy of the flight is about to be put; whether it has the ground of its taxi."""
        with self._lock:
            self._waiting = None
        return self._handed_over

    def end(self, why: str, of: Flight | None = None) -> None:
        """End it if it is under way, and forget it; only that of one flight, where that is given."""
        with self._lock:
            if of is not None and of is not self._flight:
                return  # another one was prepared since
            self._waiting = None
        self.driver.abort(why)
