"""The tutorial's flyer: a thread that polls the busy PV. The baseline that `BusyFlyer` is compared with."""

from __future__ import annotations

import atexit
import threading
import weakref
from contextlib import suppress
from typing import Any

from ophyd import EpicsSignal
from ophyd.utils import DisconnectedError

from .channel import ArrayChannel, BusyChannel
from .flight import BUSY, DONE, PUT_NORMAL, Flight, FlightRefused, Reading, State
from .flyer import BusyFlyer, state_of

__all__ = ["PollingFlyer"]


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

    Attributes
    ----------
    poll_sleep_interval_s : float
        Seconds between two polls.
    """

    def __init__(self, prefix: str = "", *, name: str, **kwargs: Any) -> None:
        self.poll_sleep_interval_s = 0.05
        super().__init__(prefix, name=name, **kwargs)

    def _open_busy(self) -> None:
        self._read_wanted = False

    def _channels(self) -> list[ArrayChannel | BusyChannel]:
        return list(self._columns.values())

    def _refuse_unusable(self) -> None:
        super()._refuse_unusable()
        if self._state.connected and len(self._state.enum_strs or ()) not in (1, 2):
            raise FlightRefused(f"{self.name}: {self._state.pvname} is no busy record: a binary (busy or bo) is needed")

    def _launch(self, flight: Flight) -> None:
        thread = threading.Thread(target=self._poll, args=(flight,), name=f"{self.name} polls", daemon=True)
        _threads.add(thread)
        thread.start()

    def _poll(self, flight: Flight) -> None:
        self._witness(flight, lambda flight, now: flight.kickoff(now, None))
        with suppress(TimeoutError, DisconnectedError):  # then start_timeout tells
            self._put_done()  # as the tutorial does: it may have been left Busy
        while not _exiting.is_set():
            self._look(flight)
            if flight.over:
                return
            _exiting.wait(self.poll_sleep_interval_s)

    def _look(self, flight: Flight) -> None:
        """Read the busy PV: a poll is all that this flyer has for an event and for an answer."""
        if not self._state.connected:
            self._witness(flight, Flight.connection_lost)
            return
        try:
            value = int(self._state.get(as_string=False, use_monitor=False))
            reading = Reading(value, self._state.timestamp, self._state.alarm_severity, self._state.alarm_status)
        except (TimeoutError, DisconnectedError):
            self._witness(flight, Flight.connection_lost)
            return
        if flight.state is State.CONNECTING and reading.value == BUSY:
            return  # Done was written, wait for it
        if flight.state in (State.CONNECTING, State.LOST):
            self._witness(flight, lambda flight, now: flight.connected(reading, now))
        elif self._read_wanted:
            self._read_wanted = False
            self._witness(flight, lambda flight, now: flight.read_answers(reading, now))
        else:
            self._witness(flight, lambda flight, now: flight.record_says(reading, now))

    def _put_busy(self, flight: Flight) -> None:
        self._state.put(BUSY)
        # A plain put is served before any later read on the same circuit.
        self._witness(flight, lambda flight, now: flight.put_returned(PUT_NORMAL, "", now))
        flight.timeline.forget("callback")

    def _put_done(self) -> None:
        self._state.put(DONE)

    def _read_busy(self, flight: Flight) -> None:
        self._read_wanted = True

    @property
    def _state(self) -> EpicsSignal:
        return state_of(self.busy)
