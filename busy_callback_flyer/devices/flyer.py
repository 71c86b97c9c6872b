"""BusyFlyer: bluesky's verbs and ophyd's components around a flight driver and a collector."""

from __future__ import annotations

import inspect
import logging
import numbers
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

from event_model import PartialEventPage
from ophyd import Component, Device, Kind, Signal

from ..channels import private_names
from ..channels.choice import name_of, state_of
from ..channels.signal_reader import join_channel_access
from ..engine.collector import Collector, ValueSpec
from ..engine.driver import LatestDone
from ..engine.errors import CollectError, FlightRefused
from ..engine.flight import Flight
from ..engine.form import Described
from ..engine.options import OPTIONS, FlyerOptions, Options, numpydoc, signature
from ..engine.ports import Channel
from ..engine.progress import Progress
from ..engine.replay import Replay
from ..engine.timeline import Timeline
from ..engine.worker import Worker
from . import events
from .columns import check_names, is_hinted, refuse_omitted_times, refuse_one_key_twice
from .configured import Configured, DeviceArguments
from .events import FlightEvents
from .left_over import refuse_left_overs
from .one_flight import OneFlight
from .records import BusyRecord, Waveform
from .status import FlightStatus
from .wiring import Wiring, open_busy

if TYPE_CHECKING:
    from typing_extensions import Unpack

logger = logging.getLogger(__name__)

# Seconds, or in newer versions of ophyd a stand-in for `Device.connection_timeout`.
_DEFAULT_TIMEOUT = inspect.signature(Device.wait_for_connection).parameters["timeout"].default

COLLECT_TIMEOUT = 0.5
"""Seconds that collect waits for arrays under way, where nobody waited for `complete` before: it blocks a RunEngine."""

STOP_TIMEOUT = 0.2
"""Seconds that stop waits for the put of Done to go out, and for the statuses to fail."""

CLOSE_TIMEOUT = 2.0
"""Seconds that subscribers and watchers may need, where the flyer is destroyed."""


class FlyerArguments(FlyerOptions, DeviceArguments, total=False):
    """Keyword arguments of `BusyFlyer`."""


class BusyFlyer(Configured):
    """A flyer for fly scans that an external controller runs while a busy record is Busy.

    It has no thread of its own: the monitor event of the Busy→Done transition, together
    with the put-callback of Busy, finishes the status of `kickoff` in libca's own thread.
    Then the controller's arrays are asked for, and `complete` ends when they are in hand
    and found to be this flight's.

    Every `Waveform` component is a column with the data key ``{name}_{attribute}``, but those of kind
    omitted. Override, add or drop (``yArr = None``) components in a subclass, as with any Device. In a
    sub-device its name is dotted: ``time_array="detector.times"``, with the key ``{name}_detector_times``.

    Parameters
    ----------
    prefix : str
        Put before the components' PV names.
    name : str
        Of the flyer; the data keys begin with it.
    {options}

    The options are plain attributes too (`describe` is `describe_as`, being a Device's method)
    and can be set at any time, or by `configure`. The next kickoff checks and uses them; a flight
    keeps those of its kickoff to its last page.

    Attributes
    ----------
    SUB_FLIGHT_BUSY, SUB_FLIGHT_DONE, SUB_FLIGHT_FAILED : str
        Events to `subscribe` to, each once a flight: it began, it is finished, it failed. A
        subscriber is called with the keywords `timeline`, `timestamp` (seconds of the POSIX
        epoch), `obj`, `sub_type`, and after a failure `error`; in a thread of the flyer's
        subscribers, where it may take its time. Who subscribes later is not told of what was.

    Notes
    -----
    The RunEngine never stops a flyer. Where a plan is given up in flight, `unstage` writes
    Done; so stage the flyer, or use `busy_callback_flyer.plans.fly`, which does. A flyer that
    was not staged is stopped where it can know: given up while the RunEngine was paused. Else
    the flight goes on, and a warning is logged.

    An array is this flight's if it bears another stamp than when Busy was put. It is refused where
    another flight may have written it, or its connection was lost. Where it does not tell its stamp at
    the put, the flight is refused. Every wait has an end, except that for a record which stays Busy where
    no `flight_timeout` is set. If the record does not take a Done of ours, the exception and a warning
    say so.

    A flyer that is a component of another device is flown, and not read: whatever kind it is given, it is of
    kind config there, or omitted, so that reading the other device is no business of the flyer's.

    With ``events="ophyd"`` nobody tells what became of a put. A fresh read decides instead,
    and some things are harder to see: a refused put counts as flown if another client
    processed the record at that moment; a flight too short to be seen Busy, on an IOC whose
    stamps stand still, counts as refused; and a put that is queued in the IOC behind another
    client's flight cannot be taken back by `stop`.

    What this process put by pyepics or ophyd before a kickoff, to the IOC of the busy record, is served
    before Busy is put. What it puts after the kickoff may be served earlier than that, too: wait for
    Busy (`SUB_FLIGHT_BUSY`, or ``kickoff_finishes_on="busy"``) where the order matters.

    The RunEngine asks for a description once a run, and tells no flyer when a run begins. A flight of another
    `layout`, `array_length`, `stream_name` or `time_array` than was described is refused at kickoff with
    ``describe="flat"``, where the stream was declared before it; else at collect, and its arrays are kept.

    Callbacks added to the status of `kickoff` run in libca's thread. They must not block
    there, and they must not make blocking Channel Access calls; a warning names those that do.

    The RunEngine overwrites a page's ``time`` by the moment of collecting. A point's own time
    is in ``timestamps`` and in the time column's data (seconds since the flight's start).

    Examples
    --------
    >>> ifly = BusyFlyer("prj:", name="ifly", flight_timeout=60)
    >>> RE(bluesky.plans.fly([ifly]))
    """

    busy = Component(BusyRecord, "mybusy", kind="config")
    tArr = Component(Waveform, "t_array", kind="config")  # noqa: N815 - the tutorial's names are data keys
    xArr = Component(Waveform, "x_array", kind="config")  # noqa: N815
    yArr = Component(Waveform, "y_array", kind="config")  # noqa: N815

    SUB_FLIGHT_BUSY = events.BUSY
    SUB_FLIGHT_DONE = events.DONE
    SUB_FLIGHT_FAILED = events.FAILED

    OPTIONS = OPTIONS
    OPEN_BUSY = staticmethod(open_busy)
    """Opens the channel to the busy record."""

    def __init__(self, prefix: str = "", *, name: str, **options: Unpack[FlyerArguments]) -> None:
        super().__init__(prefix, name=name, **options)
        refuse_omitted_times(self)
        self._refuse_times_in_a_text()
        self._gone = False
        self._read_last = False
        self._checked: tuple[dict[str, Any], Options] | None = None
        self._replay = Replay()
        self._subscribers = Worker(f"{self.name} subscribers", join_channel_access)
        self._watchers = Worker(f"{self.name} watchers", join_channel_access)
        self._events = FlightEvents(self, self._subscribers)
        self._teller = Worker(f"{self.name} failures", join_channel_access)
        self._ended = LatestDone()
        self._wiring = Wiring(self, self.OPEN_BUSY, self._teller, self._ended)
        self._described = Described()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        shadowed = [attr for attr in cls.component_names if attr in cls.OPTIONS]
        if shadowed:
            raise TypeError(f"{cls.__name__}.{shadowed[0]} is an option of BusyFlyer: give this component another name")
        refuse_left_overs(cls, BusyFlyer)
        refuse_one_key_twice(cls)

    # bluesky's verbs

    def kickoff(self) -> FlightStatus:
        """Start a flight; or rejoin it, where the RunEngine resumed and replays the plan.

        Returns at once: what it asks of the IOC is sent, not waited for.

        Returns
        -------
        FlightStatus
            Finished on Busy→Done, or on Busy (`kickoff_finishes_on`). Its exception is a
            `FlightError`.

        Raises
        ------
        RuntimeError
            A flight is in progress, or the flyer was destroyed.
        FlightRefused
            A PV is not of the kind that is needed; or a stream was declared for events of another form.
        ValueError
            An option was set to what no flight can be flown with.
        """
        if self._gone:
            raise RuntimeError(f"{self.name} was destroyed: make a new flyer")
        earlier, (_, resumed) = self._latest, self._replay.verb()
        if resumed and earlier is not None:
            logger.info("%s: kickoff is a replay, and rejoins the flight", self.name)
            return earlier.kickoff
        if earlier is not None and self.flying:
            raise RuntimeError(f"{self.name} is flying already ({earlier.flight.state.value}): stop() ends it")
        options = self.flight_options()
        if options.describe == "flat":
            advice = "Set the options before declare_stream" + ", and collect the latest flight first" * self.kept
            form = self._wiring.collector.form(options, self._wiring.values(None))
            self._described.refuse_other(form, FlightRefused, f"{advice}: {self.name} was not kicked off")
        flight = Flight(name_of(state_of(self.busy)), options, clock_offset=time.time() - time.monotonic())
        wiring, values, progress = self._wiring_for(flight)
        shown = None if options.kickoff_finishes_on == "busy" else progress
        status = FlightStatus(self, self._subscribers.do, shown)
        channel, collector, publish = wiring.driver.channel, wiring.collector, self._events.publish
        ground = collector.ground(options.points, values)
        one = OneFlight(
            flight, channel, collector, ground, values, self._replay, status, progress, publish, self._teller.do
        )
        was_kept = earlier is not None and earlier.kept
        wiring.driver.launch(flight, one, ground)
        if earlier is not None:
            earlier.wait_no_longer("the next flight was kicked off")
        if was_kept:
            logger.warning("%s forgets the arrays of its latest flight: nobody collected them", self.name)
        return status

    def complete(self) -> FlightStatus:
        """Wait, without blocking, for the flight's arrays.

        Returns
        -------
        FlightStatus
            Finished when the arrays are in hand and found to be this flight's. Its exception
            is the flight's own, or a `CollectError`; `stop`, `unstage` and the next `kickoff`
            end the waiting by one. Called in flight while the RunEngine is
            paused, it means that the plan was given up: the flight is aborted, there is nothing
            to wait for, and the status is finished at once.

        Raises
        ------
        RuntimeError
            There is no flight to complete.
        """
        one = self._latest
        if one is None:
            raise RuntimeError(f"{self.name}: no flight to complete, kickoff() comes first")
        one.completed = True
        paused, _ = self._replay.verb()
        status = FlightStatus(self, self._subscribers.do, one.progress)
        if paused and not one.flight.over:
            self._end_flight("its plan was given up in a pause")
            status.set_finished()
        else:
            one.notify(status)
        return status

    def describe(self) -> Any:
        """Describe what `read` reads, which is no flight; until the next `describe_collect`, `hints` are of that."""
        self._read_last = True
        return super().describe()

    def describe_collect(self) -> dict[str, Any]:
        """Describe what `collect_pages` yields, in the form that `describe` asks for.

        Layout "rows": a number a point. Layout "array": arrays of the declared length, and how
        many of their elements count. A flight that was not collected yet is described as it was flown.
        Waits for columns that were never connected, as long as a Device waits.

        Raises
        ------
        TimeoutError
            Names the PVs that are missing.
        FlightRefused
            A PV holds no numbers.
        """
        self._read_last = False
        one = self._uncollected
        options = self.flight_options() if one is None else one.flight.options
        collector, values = self._emitted(one)
        channels = [spec.channel for spec in collector.arrays]
        unknown = [channel for channel in channels if not channel.ready and channel.dtype is None]
        self._wait_ready(unknown, self.connection_timeout, time.monotonic())
        keys = collector.describe(options, values)
        self._described.form = collector.form(options, values)
        return keys if options.describe == "flat" else {options.stream_name or collector.name: keys}

    def collect_pages(self) -> Iterator[PartialEventPage]:
        """Yield the flight's arrays as event pages, once; an event a point.

        Yields nothing before the flight is done, after one that failed, for one without
        points, and where they were collected already. Of arrays on their way it waits for 0.5 s
        at most: wait for `complete` first.

        The RunEngine calls it too where a plan is given up in flight. While the RunEngine is
        paused, nothing else is to call it, and the flight is aborted; otherwise it may as well be
        a plan that looks for data from time to time, so it goes on, and a warning is logged.

        Raises
        ------
        CollectError
            The arrays could not be had, are not here yet, or are not this flight's; or the flight is
            of another form than its stream was described with.
        """
        one, (paused, _) = self._latest, self._replay.verb()
        if one is None:
            return
        flight = one.flight
        if not flight.over:
            self._collected_in_flight(one, paused)
        if not flight.finished:
            return
        if one.kept:
            form = one.collector.form(flight.options, one.values)
            advice = f"The arrays are kept: busy_callback_flyer.plans.recover({self.name}) files them in another run"
            self._described.refuse_other(form, CollectError, advice)
        data = one.outcome.take(COLLECT_TIMEOUT)
        if data is not None and data.points:
            yield from one.collector.pages(data, flight.timeline, flight.options)
            flight.timeline.mark("collected", time.monotonic())

    def stop(self, *, success: bool = False) -> None:
        """End the flight in progress, if there is one: writes Done, and its status fails with `FlightAborted`."""
        self._end_flight("stop() was called")
        super().stop(success=success)

    def stage(self) -> Any:
        """Set what `stage_sigs` asks for."""
        self._replay.verb()
        return super().stage()

    def unstage(self) -> Any:
        """End the flight in progress, as `stop` does, and restore what `stage` set."""
        self._replay.verb()
        self._end_flight("unstage() was called")
        return super().unstage()

    def pause(self) -> None:
        """The RunEngine pauses: the flight goes on, or is aborted (`on_pause`)."""
        super().pause()
        self._replay.pause()
        one = self._latest
        if one is not None and one.completed and one.outcome.nothing:
            one.outcome.taken = True
        if (one.flight.options.on_pause if one is not None and self.flying else self.on_pause) == "abort":
            self._end_flight("the RunEngine paused, and on_pause='abort'")

    def resume(self) -> None:
        """The RunEngine resumes: a `kickoff` that it replays rejoins the flight."""
        super().resume()
        one = self._latest
        self._replay.resume(known_to_be_over=one is None or one.known_to_be_over)

    # What else a Device offers

    @property
    def timeline(self) -> Timeline:
        """The steps of the latest flight: client's times and IOC's stamps; empty where there is none."""
        one = self._latest
        return Timeline() if one is None else one.flight.timeline

    @property
    def flown_in(self) -> str | None:
        """Uid of the run of the latest flight, where its plan has told it; `plans.fly` does."""
        one = self._latest
        return None if one is None else one.run

    @flown_in.setter
    def flown_in(self, run: str) -> None:
        one = self._latest
        if one is not None:
            one.run = run

    @property
    def flying(self) -> bool:
        """Whether a flight is in progress, from its kickoff on."""
        return self._wiring.driver.flying

    @property
    def kept(self) -> bool:
        """Whether the latest flight left arrays that nobody has collected."""
        one = self._latest
        return one is not None and one.kept

    def offer_again(self) -> None:
        """Let the next collect have the arrays of the latest flight, though they may have been collected.

        Raises
        ------
        RuntimeError
            There is no flight, or it is not over, or it failed.
        CollectError
            Its arrays could not be had, or are not to be trusted.
        """
        one = self._latest
        if one is None:
            raise RuntimeError(f"{self.name} has no arrays to offer: it has not flown since it was made or kicked off")
        if not one.flight.over:
            raise RuntimeError(f"{self.name} has no arrays to offer yet: its flight is in progress")
        if one.flight.error is not None:
            raise RuntimeError(f"{self.name} has no arrays to offer: its flight failed") from one.flight.error
        one.outcome.offer_again(COLLECT_TIMEOUT)

    @property
    def kind(self) -> Kind:
        """What it is to its parent: of kind config at most, as it is flown, and not read."""
        kind: Kind = super().kind
        return kind if self.parent is None else kind & ~Kind.hinted

    @kind.setter
    def kind(self, kind: Kind | str | int) -> None:
        Device.kind.fset(self, kind)

    @property
    def hints(self) -> dict[str, Any]:
        """The columns and the values of kind hinted; where no column is, all but texts and the times.

        Where the flyer is read like any device (`describe` came last), ophyd's own: of what `read` gives.
        """
        read: dict[str, Any] = super().hints
        if self._read_last:
            return read
        one = self._uncollected
        collector, values = self._emitted(one)
        time_array = self.time_array if one is None else one.flight.options.time_array
        hinted = [spec.key for spec in collector.arrays if is_hinted(getattr(self, spec.attr))]
        columns = hinted or [key for attr, key in collector.numbers.items() if attr != time_array]
        emitted = [value.key for value in values if value.emitted]
        return {"fields": columns + [key for key in read["fields"] if key in emitted]}

    @property
    def plot_md(self) -> dict[str, Any]:
        """Run metadata with which BestEffortCallback plots the signals against the position.

        That is the first column; or the time, if one column only is none.
        """
        columns = dict(self._wiring.collector.numbers)
        time_key = columns.pop(self.time_array or "", None)
        keys = list(columns.values())
        if len(keys) < 2 and time_key is not None:
            keys.insert(0, time_key)
        return {"hints": {"dimensions": [([key], self.stream_name or self.name) for key in keys[:1]]}}

    @property
    def busy_states(self) -> list[Signal]:
        """Signals of its busy records."""
        return [state_of(self.busy)]

    def settings(self) -> dict[str, Any]:
        """What stands in the configuration beside the components: the options, and the arrays' PVs."""
        return {f"{spec.key}_pv": spec.channel.pv for spec in self._wiring.collector.arrays} | super().settings()

    def check_options(self) -> None:
        """Refuse options that no flight can be flown with; those that name a component must name one.

        Raises
        ------
        ValueError
            It names the option.
        """
        super().check_options()
        check_names(self)

    def flight_options(self) -> Options:
        """The options as they are set now, checked, for a flight; see `check_options`."""
        given = self.options
        if self._checked is None or self._checked[0] != given:
            self.check_options()
            self._refuse_times_in_a_text()
            self._checked = given, Options(**cast(FlyerOptions, given))
        refuse_omitted_times(self)  # a kind can be set at any time
        return self._checked[1]

    def refuse_unusable(self) -> None:
        """Refuse PVs that are not of the kind that is needed.

        Raises
        ------
        FlightRefused
            It says what they are.
        """
        self._wiring.refuse_unusable()

    def wait_for_connection(self, all_signals: bool = False, timeout: Any = _DEFAULT_TIMEOUT) -> None:
        """Wait until every PV is connected.

        Raises
        ------
        TimeoutError
            Names every PV that is missing.
        FlightRefused
            A PV is connected but not of the kind that is needed.
        """
        if timeout is not None and not isinstance(timeout, numbers.Real):
            timeout = self.connection_timeout
        timeout = None if timeout is None else float(timeout)  # locks take no number of numpy
        since = time.monotonic()
        super().wait_for_connection(all_signals=all_signals, timeout=timeout)
        self._wait_ready(self._wiring.channels, timeout, since)

    def destroy(self) -> None:
        """End the flight in progress, and release the channels; no other flight can be kicked off."""
        self.stop()
        self._gone = True
        self._wiring.close()
        for worker in (self._subscribers, self._watchers, self._teller):
            worker.stop(CLOSE_TIMEOUT)
        super().destroy()

    # How it is joined together

    @property
    def _latest(self) -> OneFlight | None:
        return cast("OneFlight | None", self._wiring.driver.observer)

    @property
    def _uncollected(self) -> OneFlight | None:
        """The latest flight, unless the plan knows that it is over."""
        one = self._latest
        return None if one is None or one.known_to_be_over else one

    def _emitted(self, one: OneFlight | None) -> tuple[Collector, Sequence[ValueSpec]]:
        """What collects a flight, or the next one, and the values beside it."""
        return (self._wiring.collector, self._wiring.values(None)) if one is None else (one.collector, one.values)

    def _wiring_for(self, flight: Flight) -> tuple[Wiring, Sequence[ValueSpec], Progress | None]:
        """Channels, values and progress of a flight; other channels for another way of events, if all is well."""
        before = wiring = self._wiring
        if flight.options.events != before.events:
            wiring = Wiring(self, self.OPEN_BUSY, self._teller, self._ended)
        try:
            wiring.refuse_unusable()
            values = wiring.values(flight.options.points)
            progress = wiring.progress_of(flight, self._watchers)
        except Exception:
            if wiring is not before:
                wiring.close()
            raise
        if wiring is not before:
            taxi = before.driver.taxi
            if taxi is not None:
                wiring.driver.taxi, taxi.driver = taxi, wiring.drivers[1]
            self._wiring = wiring
            before.close()
        return wiring, values, progress

    def _refuse_times_in_a_text(self) -> None:
        """Only the component itself knows, so it has to be there."""
        if self.time_array is not None and getattr(self, self.time_array).string:
            raise ValueError(f"time_array={self.time_array!r}: must be None or a column of numbers, and this is a text")

    def _wait_ready(self, channels: Sequence[Channel], timeout: float | None, since: float) -> None:
        for channel in channels:
            channel.wait_ready(None if timeout is None else max(0.0, since + timeout - time.monotonic()))
        self.refuse_unusable()
        missing = ", ".join(channel.pv for channel in channels if not channel.ready)
        if missing:
            raise TimeoutError(f"{self.name}: not connected within {timeout} s: {missing}")

    def _end_flight(self, why: str) -> None:
        self._wiring.driver.abort(why)
        if self._latest is not None:
            self._latest.wait_no_longer(why)
        for driver in self._wiring.drivers:
            driver.wait(STOP_TIMEOUT)

    def _collected_in_flight(self, one: OneFlight, paused: bool) -> None:
        if paused:
            self._end_flight("its plan was given up in a pause")
        elif not one.collected_in_flight and not private_names.is_staged(self):  # else it is unstaged at last
            one.collected_in_flight = True
            logger.warning(
                "%s was collected in flight, so there is nothing to emit yet. If its plan was given up, the flight "
                "goes on until %s is Done: stop() ends it; busy_callback_flyer.plans.fly does so by itself",
                self.name,
                one.flight.pv,
            )


BusyFlyer.__doc__ = (BusyFlyer.__doc__ or "").replace("    {options}", numpydoc(OPTIONS.values()))
BusyFlyer.__init__.__signature__ = signature(BusyFlyer.__init__, OPTIONS.values())  # type: ignore[attr-defined]
