"""Which channels a flyer's components get, by its way of events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ophyd import Signal

from ..channels.ca import CAArray, CABusy, CACount
from ..channels.choice import name_of, why_not_direct
from ..channels.signal_reader import join_channel_access, reads_in_its_own_way
from ..channels.signals import SignalArray, SignalBusy, SignalCount, SignalValue
from ..engine.collector import ArraySpec, Collector, ValueSpec
from ..engine.driver import FlightDriver, LatestDone
from ..engine.errors import FlightRefused
from ..engine.flight import Flight
from ..engine.ports import ArrayChannel, BusyChannel, BusyListener, CountChannel
from ..engine.progress import Progress
from ..engine.worker import Worker
from .columns import column_names, is_collected
from .records import Waveform

if TYPE_CHECKING:
    from .flyer import BusyFlyer

logger = logging.getLogger(__name__)

STOP_TIMEOUT = 2.0
"""Seconds that a value which is being read may need, where its channel is closed."""

OpenBusy = Callable[["Wiring", Signal, BusyListener], BusyChannel]
"""Opens the channel to a busy record."""


def open_busy(wiring: Wiring, signal: Signal, listener: BusyListener) -> BusyChannel:
    """Direct, or by the signal."""
    if wiring.direct:
        return CABusy(signal.pvname, listener)
    return SignalBusy(signal, wiring.worker, listener)


class Wiring:
    """The channels of one flyer: to its busy records, its columns, its values and what counts its points.

    Parameters
    ----------
    flyer : BusyFlyer
    open_busy : callable
        Opens the channel to its busy record.
    teller : Worker
        Where failures are told.
    ended : LatestDone
        Of the flyer.
    """

    def __init__(self, flyer: BusyFlyer, open_busy: OpenBusy, teller: Worker, ended: LatestDone) -> None:
        self.events = flyer.events
        self.flyer = flyer
        self._columns = column_names(type(flyer))
        waves = [getattr(flyer, f"{attr}.wave") for attr in self._collected()]
        states = flyer.busy_states
        self.direct = self._is_direct(states, waves)
        self.worker = Worker(f"{flyer.name} {'values' if self.direct else 'signals'}", join_channel_access)
        self._arrays: dict[str, ArrayChannel] = {}
        self._values: dict[str, SignalValue] = {}
        self.drivers = [
            FlightDriver(flyer.name, partial(open_busy, self, state), teller, ended=ended) for state in states
        ]
        self.driver = self.drivers[0]
        self._collector = self._collect()

    @property
    def collector(self) -> Collector:
        """Collects the columns, by the flyer's name and their kinds of now."""
        collector = self._collector
        if collector.name != self.flyer.name or collector.attrs != self._collected():
            self._collector = self._collect()
        return self._collector

    @property
    def channels(self) -> list[ArrayChannel | BusyChannel]:
        """All that a flight of now needs but those to values."""
        return [*(spec.channel for spec in self.collector.arrays), *(driver.channel for driver in self.drivers)]

    def refuse_unusable(self) -> None:
        """Refuse PVs that are not of the kind that is needed; `FlightRefused` says what they are."""
        problems = [channel.problem for channel in self.channels if channel.problem is not None]
        if problems:
            raise FlightRefused(f"{self.flyer.name}: {'; '.join(problems)}")

    def values(self, points: str | None) -> Sequence[ValueSpec]:
        """What is read once a flight, and what counts the points. A lazy component connects here, and may wait."""
        flyer, states = self.flyer, self.flyer.busy_states
        signals = {attr: getattr(flyer, attr) for attr in flyer.read_attrs if not self._is_of_column(attr)}
        emitted = [
            attr
            for attr, signal in signals.items()
            if isinstance(signal, Signal) and not any(signal is state for state in states)
        ]
        counter = [] if points is None or points in emitted else [points]
        return [self._value(attr, emitted=attr in emitted) for attr in (*emitted, *counter)]

    def progress_of(self, flight: Flight, watchers: Worker) -> Progress | None:
        """For whoever watches the flight; None where nobody knows how far it is.

        Raises
        ------
        ValueError
            A column is to count the points, and has no NORD.
        """
        options, flyer, channel = flight.options, self.flyer, self.driver.channel
        name = options.progress or (options.time_array if options.expected_points is not None else None)
        component = None if name is None else getattr(flyer, name)
        counter = getattr(component, "number_read", component)
        if counter is not None and getattr(counter, "missing", False):
            raise ValueError(
                f"{flyer.name}: {name_of(counter.parent.wave)} has no NORD, so {name!r} cannot count points in flight: "
                "progress has to name a signal that does"
            )
        expected = options.expected_time if counter is None else options.expected_points
        if counter is None and expected is None:
            return None
        return Progress(
            flyer.name,
            flight,
            watchers.do,
            None if counter is None else partial(self._listen_to, counter),
            lambda: getattr(flyer, expected).get() if isinstance(expected, str) else expected,
            lambda: channel.host,
        )

    def _listen_to(self, counter: Signal) -> CountChannel:
        """Begin to listen to what counts points in flight."""
        return CACount(counter.pvname) if self.direct and why_not_direct([counter]) is None else SignalCount(counter)

    def close(self) -> None:
        """Release the channels."""
        for driver in self.drivers:
            driver.close()
        for array in self._arrays.values():
            array.close()
        for value in self._values.values():
            value.close()
        self.worker.stop(STOP_TIMEOUT)

    def _is_direct(self, states: Sequence[Signal], waves: Sequence[Signal]) -> bool:
        if self.events == "ophyd":
            return False
        reason = self._why_not_direct(states, waves)
        if reason is not None:
            logger.warning("%s cannot have its events directly (%s): it takes ophyd's", self.flyer.name, reason)
        return reason is None

    @staticmethod
    def _why_not_direct(states: Sequence[Signal], waves: Sequence[Signal]) -> str | None:
        own = [f"{wave.name} has a get or read of its own" for wave in waves if reads_in_its_own_way(wave)]
        return why_not_direct([*states, *waves]) or next(iter(own), None)

    def _collect(self) -> Collector:
        name, specs = self.flyer.name, []
        for attr in self._collected():
            waveform = getattr(self.flyer, attr)
            channel = self._arrays.get(attr) or self._arrays.setdefault(attr, self._open_array(waveform))
            key = f"{name}_{attr.replace('.', '_')}"
            specs.append(ArraySpec(attr, key, channel, waveform.fresh, waveform.units, waveform.string))
        return Collector(name, specs, self.driver.channel)

    def _collected(self) -> list[str]:
        """Names of the columns whose kind is not omitted now."""
        return [attr for attr in self._columns if is_collected(self.flyer, attr)]

    def _is_of_column(self, attr: str) -> bool:
        return any(attr == column or attr.startswith(f"{column}.") for column in self._columns)

    def _value(self, attr: str, *, emitted: bool) -> ValueSpec:
        signal = getattr(self.flyer, attr)
        if attr not in self._values:
            self._values[attr] = SignalValue(signal, self.worker)
        return ValueSpec(attr, signal.name, self._values[attr], emitted)

    def _open_array(self, waveform: Waveform) -> ArrayChannel:
        if self.direct and self._why_not_direct([], [waveform.wave]) is None:  # others may be collected since
            return CAArray(waveform.wave.pvname, text=waveform.string)
        nord = getattr(waveform, "number_read", None)
        return SignalArray(waveform.wave, self.worker, nord, text=waveform.string)
