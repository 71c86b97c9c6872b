"""TaxiFlyer: one busy record moves the hardware to the start, another flies ("taxi and fly")."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

from ophyd import Component

from .arrays import CollectOptions
from .flight import Flight, FlightOptions, Timeline, require_seconds
from .flyer import OPTIONS, BusyFlyer
from .records import BusyRecord
from .status import FlightStatus

__all__ = ["TaxiFlyer"]

_SHARED = ("when_busy", "reset_settle", "start_timeout", "on_timeout", "reconnect_timeout", "on_pause", "events")
"""Options that hold for both records."""


class _Taxi(BusyFlyer):
    """Waits for the taxi record as any flyer does for its own: the same rules, and no arrays."""

    busy = tArr = xArr = yArr = None  # noqa: N815

    def __init__(self, record: BusyRecord, *, name: str, **options: Any) -> None:
        self.busy = record
        super().__init__("", name=name, time_array=None, **options)

    @property
    def fresh_since(self) -> float | None:
        """IOC stamp of the taxi's Busy."""
        sortie = self._sortie
        return None if sortie is None else sortie.flight.fresh_since


class TaxiFlyer(BusyFlyer):
    """A flyer whose hardware is moved to the start by a busy record of its own.

    While `taxi` is Busy the controller moves to the start, while `busy` is Busy it flies. Both
    are waited for by the rules of `BusyFlyer`, and with its options. After a taxi that failed
    nothing is flown.

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
        self._taxi = _Taxi(self.taxi, name=f"{self.name}_taxi", flight_timeout=taxi_timeout)
        self._taxi_lock = threading.Lock()
        self._taxied: FlightStatus | None = None  # not flown yet

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
            The PV is not of the kind that is needed.
        ValueError
            An option was set to what no flight can be flown with.
        """
        replayed = self._resumed
        if self.flying and not replayed:
            raise RuntimeError(f"{self.name} is flying already: stop() ends it")
        self._check_options()
        status = self._begin_taxi()
        if not replayed:  # else it has been flown, or is known
            with self._taxi_lock:
                self._taxied = status
        return status

    def _begin_taxi(self) -> FlightStatus:
        for option in _SHARED:
            setattr(self._taxi, option, getattr(self, option))
        self._taxi.flight_timeout = self.taxi_timeout
        return self._taxi.kickoff()

    @property
    def taxi_timeline(self) -> Timeline:
        """The steps of the latest taxi; of the flight: `timeline`."""
        return self._taxi.timeline

    def wait_for_connection(self, *args: Any, **kwargs: Any) -> None:
        """Wait until every PV is connected, see `BusyFlyer.wait_for_connection`."""
        super().wait_for_connection(*args, **kwargs)
        self._taxi.wait_for_connection(*args, **kwargs)

    def pause(self) -> None:
        """The RunEngine pauses: what is under way goes on, or is aborted (`on_pause`)."""
        self._taxi.pause()
        super().pause()

    def resume(self) -> None:
        """The RunEngine resumes: a `prepare` or `kickoff` that it replays rejoins what is under way."""
        self._taxi.resume()
        super().resume()

    def destroy(self) -> None:
        """End what is under way, and release the channels."""
        super().destroy()
        self._taxi.destroy()

    def _check_options(self) -> tuple[FlightOptions, CollectOptions]:
        require_seconds("taxi_timeout", self.taxi_timeout, optional=True)
        return super()._check_options()

    def _refuse_unusable(self) -> None:
        super()._refuse_unusable()
        self._taxi._refuse_unusable()

    def _launch(self, flight: Flight) -> None:
        self._witness(flight, Flight.taxi)
        with self._taxi_lock:
            status, self._taxied = self._taxied, None
        if status is None or (status.done and not status.success):
            try:
                status = self._begin_taxi()
            except Exception as error:
                self._taxi_failed(flight, error)
                return
        status.add_callback(partial(self._take_off, flight))

    def _take_off(self, flight: Flight, taxied: FlightStatus) -> None:
        error = taxied.exception(0)
        if error is None:
            flight.taxied_since = self._taxi.fresh_since
            super()._launch(flight)
        else:
            self._taxi_failed(flight, error)

    def _taxi_failed(self, flight: Flight, error: Exception) -> None:
        self._witness(flight, lambda flight, now: flight.taxi_failed(error, now))

    def _end_flight(self, why: str) -> None:
        super()._end_flight(why)
        with self._taxi_lock:
            self._taxied = None  # whatever moves it now
        self._taxi._end_flight(why)
