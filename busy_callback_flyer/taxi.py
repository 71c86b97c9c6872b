"""TaxiFlyer: one busy record moves the hardware to the start, another flies ("taxi and fly")."""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from typing import Any

from ophyd import Component, Signal

from .arrays import CollectOptions
from .channel import state_of
from .flight import BUSY, Flight, FlightOptions, FlightRefused, Timeline, require_seconds
from .flyer import OPTIONS, BusyFlyer
from .records import BusyRecord
from .sortie import Sortie
from .status import FlightStatus

__all__ = ["TaxiFlyer"]

_SHARED = ("when_busy", "reset_settle", "start_timeout", "on_timeout", "reconnect_timeout", "events")
"""Options that hold for both records."""


class _Taxi(BusyFlyer):
    """Waits for the taxi record as any flyer does for its own: the same rules, and no arrays."""

    busy = tArr = xArr = yArr = None  # noqa: N815

    def __init__(self, record: BusyRecord, *, name: str, **options: Any) -> None:
        self.busy = record
        super().__init__("", name=name, time_array=None, **options)

    def end(self, why: str) -> None:
        """End it, if it is under way, and wait for nothing: it may be in libca's thread."""
        self._witness(None, lambda flight, now: flight.abort(now, why))

    def _check_options(self) -> tuple[FlightOptions, CollectOptions]:
        flying, collecting = super()._check_options()
        return replace(flying, timeout_name="taxi_timeout"), collecting


class TaxiFlyer(BusyFlyer):
    """A flyer whose hardware is moved to the start by a busy record of its own.

    While `taxi` is Busy the controller moves to the start, while `busy` is Busy it flies. Both
    are waited for by the rules of `BusyFlyer`, and with its options. After a taxi that failed
    nothing is flown, and while `busy` is Busy nothing is moved.

    `prepare` taxis, so a plan can do that for several flyers at once, and other things
    meanwhile; a `kickoff` without it taxis first. Each taxi is good for one flight.

    Parameters
    ----------
    prefix : str
        Put before the components' PV names.
    name : str
        Of the flyer; the data keys begin with it.
    taxi_timeout : float or None
        Seconds from the put of the taxi's Busy to its Done.
    **options
        Of `BusyFlyer`; `flight_timeout` is the flight's own.

    Notes
    -----
    The arrays may be as old as the taxi's Busy: a controller may fill some of them on the way.

    What was prepared stays so until it is flown. Where the plan that prepared it was given up,
    `stop` or `unstage` forgets it; the flyer does by itself where the RunEngine was paused then.

    Examples
    --------
    >>> flyer = TaxiFlyer("prj:", name="flyer", taxi_timeout=60, flight_timeout=600)
    >>> yield from bps.prepare(flyer, None, wait=True)
    >>> yield from bp.fly([flyer])
    """

    taxi = Component(BusyRecord, "mytaxi", kind="config")

    _options = (*OPTIONS, "taxi_timeout")

    def __init__(self, prefix: str = "", *, name: str, taxi_timeout: float | None = None, **options: Any) -> None:
        self.taxi_timeout = taxi_timeout
        super().__init__(prefix, name=name, **options)
        self._taxi = _Taxi(self.taxi, name=f"{self.name}_taxi", **self._taxi_options())
        self._taxi_lock = threading.Lock()
        self._prepared: FlightStatus | None = None  # by the latest `prepare`
        self._waiting: FlightStatus | None = None  # the same, as long as it is not flown
        self._replaying = False  # the RunEngine resumed, and may say again what it said

    def prepare(self, value: Any = None) -> FlightStatus:
        """Move to the start.

        Parameters
        ----------
        value : optional
            Of no meaning here; bluesky's ``prepare`` message has one.

        Returns
        -------
        FlightStatus
            Finished on the taxi's Busy→Done. Its exception is a `FlightError`.

        Raises
        ------
        RuntimeError
            It taxis or flies already.
        FlightRefused
            The PV is not of the kind that is needed, or `busy` is Busy.
        ValueError
            An option was set to what no flight can be flown with.
        """
        self._forget_what_was_given_up()
        known = self._prepared
        replayed = self._replaying and (self._waiting is not None or self._resumed)
        if replayed and known is not None and (known.success or not known.done):
            return known
        if self.flying:
            raise RuntimeError(f"{self.name} is flying already: stop() ends it")
        self._check_options()
        self._refuse_unusable()
        reading = self._channel.reading
        if reading is not None and reading.value == BUSY:
            raise FlightRefused(
                f"{self._channel.pv} is Busy: to taxi would move what flies. Wait for that flight, or write Done"
            )
        status = self._taxi_kickoff()
        with self._taxi_lock:
            self._prepared = self._waiting = status
        return status

    def kickoff(self) -> FlightStatus:
        """Start a flight, see `BusyFlyer.kickoff`; where nothing was prepared, taxi first."""
        self._forget_what_was_given_up()
        return super().kickoff()

    @property
    def taxi_timeline(self) -> Timeline:
        """The steps of the latest taxi; of the flight: `timeline`."""
        return self._taxi.timeline

    @property
    def busy_states(self) -> list[Signal]:
        """Signals of its busy records."""
        return [*super().busy_states, state_of(self.taxi)]

    def wait_for_connection(self, *args: Any, **kwargs: Any) -> None:
        """Wait until every PV is connected, see `BusyFlyer.wait_for_connection`."""
        super().wait_for_connection(*args, **kwargs)
        self._taxi.wait_for_connection(*args, **kwargs)

    def resume(self) -> None:
        """The RunEngine resumes: a `prepare` or `kickoff` that it replays rejoins what is under way."""
        super().resume()
        self._replaying = True

    def destroy(self) -> None:
        """End what is under way, and release the channels."""
        super().destroy()
        self._taxi.destroy()

    def _plan_goes_on(self) -> None:
        super()._plan_goes_on()
        self._replaying = False

    def _forget_what_was_given_up(self) -> None:
        if self._paused and not self.flying:  # and did not resume
            self._end_taxi("its plan was given up in a pause")

    def _taxi_options(self) -> dict[str, Any]:
        return {"flight_timeout": self.taxi_timeout, **{option: getattr(self, option) for option in _SHARED}}

    def _taxi_kickoff(self) -> FlightStatus:
        for option, value in self._taxi_options().items():
            setattr(self._taxi, option, value)
        return self._taxi.kickoff()

    def _check_options(self) -> tuple[FlightOptions, CollectOptions]:
        require_seconds("taxi_timeout", self.taxi_timeout, optional=True)
        return super()._check_options()

    def _refuse_unusable(self) -> None:
        super()._refuse_unusable()
        self._taxi._refuse_unusable()

    # The taxi of a flight

    def _launch(self, flight: Flight) -> None:
        taxied = self._waiting
        if taxied is not None and taxied.done and taxied.success:
            flight.taxied_since = self._taxied_since()
        else:
            flight.taxis = True
        super()._launch(flight)

    def _begin_taxi(self, flight: Flight) -> None:
        try:
            with self._taxi_lock:
                status = self._waiting
            if status is None or (status.done and not status.success):
                status = self._taxi_kickoff()
            with self._taxi_lock:
                self._waiting = status
        except Exception as error:  # whatever it is, the flight must hear of it
            self._taxi_failed(flight, error)
            return
        status.add_callback(partial(self._taxi_over, flight))
        if flight.over:  # stopped meanwhile
            self._end_taxi("its flight was given up")

    def _taxi_over(self, flight: Flight, taxied: FlightStatus) -> None:
        error = taxied.exception(0)
        if error is None:
            flight.taxied_since = self._taxied_since()
            self._witness(flight, Flight.taxi_over)
        else:
            self._taxi_failed(flight, error)

    def _taxi_failed(self, flight: Flight, error: Exception) -> None:
        self._witness(flight, lambda flight, now: flight.taxi_failed(error, now))

    def _taxied_since(self) -> float | None:
        """IOC stamp of the taxi's Busy, if it was seen and is of the clock that the arrays' are compared with."""
        busy = self._taxi.timeline.get("busy")
        return None if busy is None or self._taxi.busy_host != self.busy_host else busy.stamp

    def _put_busy(self, flight: Flight) -> None:
        with self._taxi_lock:
            self._waiting = None  # it is flown
        super()._put_busy(flight)

    def _settle(self, sortie: Sortie) -> None:
        if sortie.flight.error is not None:
            self._end_taxi("its flight was given up")
        super()._settle(sortie)

    def _end_flight(self, why: str) -> None:
        super()._end_flight(why)
        self._end_taxi(why)
        self._taxi._end_flight(why)  # which waits until it went out

    def _end_taxi(self, why: str) -> None:
        with self._taxi_lock:
            self._waiting = None  # whatever moves it now
        self._taxi.end(why)
