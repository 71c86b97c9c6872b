"""TaxiFlyer: one busy record moves the hardware to the start, another flies ("taxi and fly")."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from event_model import PartialEventPage
from ophyd import Component, Signal

from ..channels.choice import name_of, state_of
from ..engine.collector import Collector
from ..engine.errors import FlightRefused
from ..engine.flight import Flight
from ..engine.freshness import Ground
from ..engine.options import TAXI_OPTIONS, FlyerOptions, Options, TaxiOptions, signature
from ..engine.ports import DONE
from ..engine.replay import Replay
from ..engine.taxi import Taxi
from ..engine.timeline import Timeline
from .configured import DeviceArguments
from .flyer import BusyFlyer
from .one_flight import OneFlight
from .records import BusyRecord
from .status import FlightStatus

if TYPE_CHECKING:
    from typing_extensions import Unpack


class TaxiArguments(TaxiOptions, DeviceArguments, total=False):
    """Keyword arguments of `TaxiFlyer`."""


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
        Seconds from the taxi's start, by `prepare` or `kickoff`, to its Done.
    **options
        Of `BusyFlyer`; `flight_timeout` counts from `kickoff`, also where that has to taxi first.

    Notes
    -----
    The arrays must have been written since the put of the taxi's Busy: a controller may fill some
    of them on the way. Where another client used one of the two records meanwhile, they must have
    been written since the put of Busy.

    What was prepared stays so until it is flown. Where the plan that prepared it was given up,
    `stop` or `unstage` forgets it; the flyer does by itself where the RunEngine was paused then.

    Examples
    --------
    >>> flyer = TaxiFlyer("prj:", name="flyer", taxi_timeout=60, flight_timeout=600)
    >>> yield from bps.prepare(flyer, None, wait=True)
    >>> yield from bp.fly([flyer])
    """

    taxi = Component(BusyRecord, "mytaxi", kind="config")

    OPTIONS = TAXI_OPTIONS

    def __init__(self, prefix: str = "", *, name: str, **options: Unpack[TaxiArguments]) -> None:
        super().__init__(prefix, name=name, **options)  # type: ignore[misc]
        self._prepared: FlightStatus | None = None  # by the latest `prepare`
        self._replaying = False  # the RunEngine resumed, and may say again what it said
        self._taxi = Taxi(self._wiring.drivers[1], self._taxi_kickoff)
        self._wiring.driver.taxi = self._taxi

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
            The PV is not of the kind that is needed, or `busy` is not Done.
        ValueError
            An option was set to what no flight can be flown with.
        """
        self._forget_what_was_given_up()
        known = self._prepared
        replayed = self._replaying and (self._taxi.waiting is not None or self._replay.resumed)
        if replayed and known is not None and (known.success or not known.done):
            return known
        if self.flying:
            raise RuntimeError(f"{self.name} is flying already: stop() ends it")
        self.flight_options()
        self.refuse_unusable()
        channel = self._wiring.driver.channel
        if channel.reading is not None and channel.reading.value != DONE:
            raise FlightRefused(
                f"{channel.pv} is not Done: to taxi would move what flies. Wait for that flight, or write Done"
            )
        self._prepared = cast(FlightStatus, self._taxi.go())
        return self._prepared

    def kickoff(self) -> FlightStatus:
        """Start a flight, see `BusyFlyer.kickoff`; where nothing was prepared, taxi first."""
        self._forget_what_was_given_up()
        self._replaying = False
        return super().kickoff()

    def complete(self) -> FlightStatus:
        """Wait, without blocking, for the flight's arrays, see `BusyFlyer.complete`."""
        self._replaying = False
        return super().complete()

    def collect_pages(self) -> Iterator[PartialEventPage]:
        """Yield the flight's arrays as event pages, see `BusyFlyer.collect_pages`."""
        self._replaying = False
        yield from super().collect_pages()

    def stage(self) -> Any:
        """Set what `stage_sigs` asks for."""
        self._replaying = False
        return super().stage()

    def unstage(self) -> Any:
        """End what is under way, and restore what `stage` set."""
        self._replaying = False
        return super().unstage()

    def resume(self) -> None:
        """The RunEngine resumes: a `prepare` or `kickoff` that it replays rejoins what is under way."""
        super().resume()
        self._replaying = True

    @property
    def taxi_timeline(self) -> Timeline:
        """The steps of the latest taxi; of the flight: `timeline`."""
        flight = self._taxi.driver.flight
        return Timeline() if flight is None else flight.timeline

    @property
    def busy_states(self) -> list[Signal]:
        """Signals of its busy records."""
        return [*super().busy_states, state_of(self.taxi)]

    def _forget_what_was_given_up(self) -> None:
        if self._replay.paused and not self.flying:  # and did not resume
            self._taxi.end("its plan was given up in a pause")

    def _taxi_kickoff(self) -> tuple[FlightStatus, Ground]:
        """The arrays may be filled on the way, so their ground is that of the taxi."""
        options = Options(**cast(FlyerOptions, self.options | {"flight_timeout": self.taxi_timeout}))
        flight = Flight(
            name_of(state_of(self.taxi)),
            options,
            clock_offset=time.time() - time.monotonic(),
            timeout_name="taxi_timeout",
        )
        driver, status = self._taxi.driver, FlightStatus(self, self._subscribers.do)
        collector = Collector(f"{self.name}_taxi", [], driver.channel)
        ground = self._wiring.collector.ground(options.points, self._wiring.values(options.points))
        one = OneFlight(
            flight, driver.channel, collector, ground, [], Replay(), status, None, lambda *_: None, self._teller.do
        )
        driver.launch(flight, one, ground)
        return status, ground


TaxiFlyer.__init__.__signature__ = signature(TaxiFlyer.__init__, TAXI_OPTIONS.values())  # type: ignore[attr-defined]
