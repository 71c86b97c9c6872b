"""One flight and what became of it: statuses that wait, arrays, or why there are none."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from .arrays import CollectOptions, Harvest
from .channel import ScalarSignal
from .flight import Flight, FlightError
from .pages import CollectError
from .progress import Progress
from .status import FlightStatus


class Sortie:
    """One flight of a flyer.

    Parameters
    ----------
    flight : Flight
    kickoff : FlightStatus
        Of the kickoff that began it.
    collecting : CollectOptions
        How its arrays are to be had.
    values : mapping
        Lines to the values that are read once a flight.
    progress : Progress or None
        For whoever watches one of its statuses.
    kickoff_ends_on_busy : bool
        Whether that status finishes as soon as the record is Busy.
    """

    def __init__(
        self,
        flight: Flight,
        kickoff: FlightStatus,
        collecting: CollectOptions,
        values: Mapping[str, ScalarSignal],
        progress: Progress | None,
        *,
        kickoff_ends_on_busy: bool,
    ) -> None:
        self.flight = flight
        self.kickoff = kickoff
        self.collecting = collecting
        self.values = values
        self.progress = progress
        self.kickoff_ends_on_busy = kickoff_ends_on_busy
        self.run: str | None = None
        self.began = False
        self.published: set[str] = set()
        self.was_collected_in_flight = False
        self.completed = False
        self.failure_told = False  # by a status
        self.taken = False  # the arrays, by a collect
        self._kickoff_ended = False
        self._waiting: list[FlightStatus] = []
        self._lock = threading.Lock()
        self._landed = threading.Event()
        self._outcome: Harvest | Exception | None = None

    def end_kickoff(self, error: FlightError | None = None) -> None:
        """Settle the status of kickoff, if it is not yet: Busy and the verdict may come in different threads."""
        with self._lock:
            if self._kickoff_ended:
                return
            self._kickoff_ended = True
        if error is None:
            self.kickoff.set_finished()
        else:
            self.kickoff.set_exception(error)

    @property
    def somebody_waits(self) -> bool:
        """Whether there is a status to be settled."""
        with self._lock:
            return bool(self._waiting) or not self._kickoff_ended

    @property
    def has_ended(self) -> bool:
        """Whether there is nothing to be collected of a flight without arrays, which was completed."""
        return self.completed and self._outcome == Harvest([], [])

    @property
    def kept(self) -> bool:
        """Whether there are arrays that nobody has collected, or on their way."""
        if self.taken or not self.flight.finished or isinstance(self._outcome, Exception):
            return False
        return self._outcome is None or self._outcome.points > 0

    def notify(self, status: FlightStatus) -> None:
        """Settle this status when the outcome is known."""
        with self._lock:
            if not self._landed.is_set():
                self._waiting.append(status)
                return
        self._tell(status)

    def land(self, outcome: Harvest | Exception) -> None:
        """The outcome is known."""
        with self._lock:
            self._outcome = outcome
            self._landed.set()
            waiting, self._waiting = self._waiting, []
        for status in waiting:
            self._tell(status)

    def take(self, timeout: float) -> Harvest | None:
        """The arrays, to whom asks first; None to others. Waits for those under way."""
        harvest = self._arrays(timeout)
        with self._lock:
            if self.taken:
                return None
            self.taken = True
        return harvest

    def offer_again(self, timeout: float) -> None:
        """Let them be taken once more; raises where there are none."""
        self._arrays(timeout)
        self.taken = False

    def _arrays(self, timeout: float) -> Harvest:
        if not self._landed.wait(timeout):
            raise CollectError(
                f"{self.flight.pv}: the flight is done, but its arrays did not come within {timeout:g} s"
            )
        if isinstance(self._outcome, Exception):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome

    def _tell(self, status: FlightStatus) -> None:
        if isinstance(self._outcome, Exception):
            status.set_exception(self._outcome)
        else:
            status.set_finished()
