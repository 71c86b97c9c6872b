"""One flight of a flyer, as its driver's observer: statuses, events, and what it brought."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial

from ..engine.collector import Collector, FlightData, ValueSpec
from ..engine.errors import CollectError
from ..engine.flight import Flight
from ..engine.freshness import Ground
from ..engine.outcome import Outcome
from ..engine.ports import BusyChannel
from ..engine.progress import Progress
from ..engine.replay import Replay
from .events import BUSY, DONE, FAILED
from .status import FlightStatus

logger = logging.getLogger(__name__)

Publish = Callable[["OneFlight", str], None]
"""Tells the subscribers of an event, without waiting for them."""


class OneFlight:
    """What a flyer knows of one of its flights.

    Parameters
    ----------
    flight : Flight
    channel : BusyChannel
        It lends its thread to the user's callbacks.
    collector : Collector
    ground : Ground
        Knows what the arrays bore when Busy was put.
    values : sequence of ValueSpec
        What is read beside the arrays.
    replay : Replay
        Hears that the plan knows of a failure.
    kickoff : FlightStatus
        What `kickoff` returned.
    progress : Progress or None
        For whoever watches one of its statuses.
    publish : callable
    later : callable
        Does a task in a thread of the user's: what is told there may take its time.

    Attributes
    ----------
    outcome : Outcome
    run : str or None
        Uid of the run that it was flown in, where its plan has told it.
    completed, collected_in_flight : bool
        Which verbs were called.
    failure_told : bool
        Whether a status told that it failed.
    """

    def __init__(
        self,
        flight: Flight,
        channel: BusyChannel,
        collector: Collector,
        ground: Ground,
        values: Sequence[ValueSpec],
        replay: Replay,
        kickoff: FlightStatus,
        progress: Progress | None,
        publish: Publish,
        later: Callable[[Callable[[], None]], bool],
    ) -> None:
        self.flight = flight
        self.collector = collector
        self.ground = ground
        self.values = values
        self.kickoff = kickoff
        self.progress = progress
        self.outcome = Outcome(flight.pv)
        self.run: str | None = None
        self.completed = False
        self.collected_in_flight = False
        self.failure_told = False
        self._lend = channel.lend
        self._replay = replay
        self._publish = publish
        self._later = later
        self._published: set[str] = set()
        self._kickoff_ended = False
        self._lock = threading.Lock()

    @property
    def kept(self) -> bool:
        """Whether there are arrays that nobody has collected, or on their way."""
        return self.flight.finished and self.outcome.kept

    @property
    def known_to_be_over(self) -> bool:
        """Whether the plan has collected it, or was told that it failed."""
        return self.outcome.taken or self.failure_told

    def notify(self, status: FlightStatus) -> None:
        """Settle this status when the outcome is known."""
        self.outcome.notify(partial(self._settle, status))

    def wait_no_longer(self, why: str) -> None:
        """Fail the statuses of those who wait for arrays of a flight that is over; the arrays may still come."""
        if self.flight.finished and self.outcome.awaited:
            self.outcome.give_up_waiting(
                CollectError(f"{self.flight.pv}: {why} before the arrays of the flight had come")
            )

    # Of FlightObserver

    def began(self) -> None:
        """The record was seen Busy."""
        if self.flight.options.kickoff_finishes_on == "busy":
            self._end_kickoff()
        self._tell(BUSY)

    def finished(self) -> None:
        """The flight is Done: the kickoff's status first, then its arrays are asked for."""
        with self._lock:  # what `_end_kickoff` does, without its frames: this lies on the path from Done to the status
            ended, self._kickoff_ended = self._kickoff_ended, True
        if not ended:
            self._lend(self.kickoff.settle)
        self.collector.fetch(self.flight, self.ground, self.values, self._land)
        self._tell(BUSY)  # a flight may be too short to be seen
        self._tell(DONE)

    def failed(self) -> None:
        """The flight failed."""
        error = self.flight.error
        logger.info("%s: %s", self.collector.name, error)
        assert error is not None
        if self.outcome.awaited or not self._kickoff_ended:
            self.failure_told = True
            self._replay.failure_told()
        self.outcome.land(error)
        self._end_kickoff(error)
        if self.flight.began:
            self._tell(BUSY)  # its own thread may not have come to it
        self._tell(FAILED)

    def _land(self, what: FlightData | Exception) -> None:
        """What went wrong may be known to the thread of all deadlines, which is not the user's to hold up."""
        if not (isinstance(what, Exception) and self._later(partial(self.outcome.land, what))):
            self.outcome.land(what)

    def _end_kickoff(self, error: Exception | None = None) -> None:
        with self._lock:  # Busy and the verdict may come in different threads
            if self._kickoff_ended:
                return
            self._kickoff_ended = True
        self._settle(self.kickoff, error)

    def _settle(self, status: FlightStatus, error: Exception | None) -> None:
        self._lend(status.settle if error is None else partial(status.settle, error))

    def _tell(self, event: str) -> None:
        with self._lock:
            if event in self._published:
                return
            self._published.add(event)
        self._publish(self, event)
