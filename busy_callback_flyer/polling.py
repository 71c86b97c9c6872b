"""The tutorial's flyer: a thread that polls the busy PV. The baseline that `BusyFlyer` is compared with."""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any

from ophyd import EpicsSignal
from ophyd.signal import EpicsSignalBase

from .arrays import CollectOptions
from .channel import ArrayLine, BusyLine, Reader, host_of, put_anew, put_status, state_of
from .flight import BUSY, DONE, Flight, FlightOptions, FlightRefused, Reading, State, require_seconds
from .flyer import BusyFlyer

__all__ = ["PollingFlyer"]

logger = logging.getLogger(__name__)

_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()
_exiting = threading.Event()


@atexit.register  # after pyepics' own, so it runs before: nobody may poll while it shuts libca down
def _stop_polling() -> None:
    _exiting.set()
    for thread in list(_threads):
        thread.join(timeout=2)


class PollingFlyer(BusyFlyer):
    """A flyer that waits for Done by reading the busy PV again and again, in a thread a flight.

    It has the components, options, data keys and pages of `BusyFlyer`; only the waiting
    differs. It is here to be compared with, and for control layers without monitors.

    A poll is a fresh read on the connection that Busy was put on, so it is evidence. What it
    cannot tell is what became of the put, nor that of a flight between two polls if the
    record's stamps stand still: that counts as refused.

    Attributes
    ----------
    poll_sleep_interval_s : float
        Seconds between two polls.
    """

    def __init__(self, prefix: str = "", *, name: str, **kwargs: Any) -> None:
        self.poll_sleep_interval_s = 0.05
        super().__init__(prefix, name=name, **kwargs)

    def _open_busy(self, state: EpicsSignal) -> None:
        self._polled = Reader(state)
        self._setpoint = state
        self._read_wanted_by: Flight | None = None

    def read_after(self, answer: Callable[[Reading | None], None]) -> None:
        """Read the busy record, where the values are read."""
        if not self._arrays.do(lambda: answer(self._ask())):
            answer(None)

    @property
    def busy_host(self) -> str | None:
        """Who serves the busy record, where that is known."""
        return host_of(self._state)

    def _channels(self) -> list[ArrayLine | BusyLine]:
        return list(self._arrays.lines.values())

    def _check_options(self) -> tuple[FlightOptions, CollectOptions]:
        require_seconds("poll_sleep_interval_s", self.poll_sleep_interval_s)
        return super()._check_options()

    def _refuse_unusable(self) -> None:
        super()._refuse_unusable()
        epics = isinstance(self._state, EpicsSignalBase)
        if epics and self._state.connected and len(self._state.enum_strs or ()) not in (1, 2):
            raise FlightRefused(f"{self.name}: {self._state.pvname} is no busy record: a binary (busy or bo) is needed")

    def _launch(self, flight: Flight) -> None:
        thread = threading.Thread(target=self._poll, args=(flight,), name=f"{self.name} polls", daemon=True)
        _threads.add(thread)
        thread.start()

    def _poll(self, flight: Flight) -> None:
        self._witness(flight, lambda flight, now: flight.kickoff(now, None))
        while not _exiting.is_set():
            self._look(flight)
            if flight.over:
                return
            _exiting.wait(self.poll_sleep_interval_s)

    def _look(self, flight: Flight) -> None:
        """Read the busy PV: a poll is all that this flyer has for an event and for an answer."""
        # Looked at before the read, which is to be the later.
        state, asked = flight.state, self._read_wanted_by is flight
        reading = self._ask()
        if reading is None:
            self._witness(flight, Flight.connection_lost)
        elif state in (State.CONNECTING, State.LOST):
            self._witness(flight, lambda flight, now: flight.connected(reading, now))
        elif state in (State.CLEARING, State.SETTLING):
            self._witness(flight, lambda flight, now: flight.record_says(reading, now))
        elif asked or state is State.FLYING:
            self._witness(flight, lambda flight, now: flight.read_answers(reading, now))

    def _ask(self) -> Reading | None:
        if not self._state.connected:
            return None
        try:
            value, stamp, metadata = self._polled.get()
            return Reading(int(value), stamp, metadata.get("severity") or 0, metadata.get("status") or 0)
        except Exception as error:  # each control layer has its own
            logger.info("%s could not be read: %r", self._state.name, error)
            return None

    def _put_busy(self, flight: Flight) -> None:
        status, message = None, ""
        try:
            self._put(BUSY)
        except Exception as error:
            status, message = put_status(error), str(error)
        # A plain put is served before any later read on the same circuit.
        self._witness(flight, lambda flight, now: flight.put_returned(status, message, now))
        flight.timeline.forget("callback")

    def _put_done(self) -> None:
        if self._state.connected:  # else ophyd waits for it
            self._put(DONE)

    def _put(self, value: int) -> None:
        self._setpoint = put_anew(self._setpoint, value)

    def _forget_put(self) -> None:
        """It puts without callback."""

    def _read_busy(self, flight: Flight) -> None:
        self._read_wanted_by = flight

    @property
    def _state(self) -> EpicsSignal:
        return state_of(self.busy)
