"""BusyFlyer: bluesky's verbs, joined from the flight, the channels, the deadlines and the pages."""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Literal, cast

from event_model import PartialEventPage
from ophyd import Component, Device, EpicsSignalRO, Signal
from ophyd.device import DEVICE_RESERVED_ATTRS, Staged

from .arrays import Arrays, CollectOptions, column_names
from .channel import (
    ArrayLine,
    BusyChannel,
    BusyLine,
    BusySignal,
    CountChannel,
    CountSignal,
    Worker,
    name_of,
    state_of,
    why_not_direct,
)
from .deadlines import Alarm
from .flight import (
    BUSY,
    DONE,
    Flight,
    FlightOptions,
    FlightRefused,
    Order,
    Orders,
    Reading,
    Timeline,
    require_one_of,
)
from .progress import Progress
from .records import BusyRecord, Waveform
from .sortie import Sortie
from .status import FlightStatus

__all__ = ["BusyFlyer", "make_flyer"]

logger = logging.getLogger(__name__)

# Seconds, or in newer versions of ophyd a stand-in for `Device.connection_timeout`.
_DEFAULT_TIMEOUT = inspect.signature(Device.wait_for_connection).parameters["timeout"].default

COLLECT_TIMEOUT = 5.0
"""Seconds that collect waits for arrays under way, where nobody waited for `complete` before."""

STOP_TIMEOUT = 2.0
"""Seconds that stop waits for the put of Done to go out, where another thread is at it."""


OPTIONS = (
    "kickoff_finishes_on",
    "when_busy",
    "reset_settle",
    "start_timeout",
    "flight_timeout",
    "on_timeout",
    "reconnect_timeout",
    "on_pause",
    "time_array",
    "time_origin",
    "points",
    "fresh_timeout",
    "on_stale",
    "on_ragged",
    "layout",
    "array_length",
    "page_size",
    "describe",
    "stream_name",
    "progress",
    "expected_points",
    "expected_time",
    "events",
)
"""Options of `BusyFlyer` that can be set later."""


class BusyFlyer(Device):
    """A flyer for fly scans that an external controller runs while a busy record is Busy.

    It has no thread of its own: the monitor event of the Busy→Done transition, together
    with the put-callback of Busy, finishes the status of `kickoff` in libca's own thread.
    Then the controller's arrays are asked for, and `complete` ends when they are in hand
    and found to be this flight's.

    Every `Waveform` component is a column with the data key ``{name}_{attribute}``.
    Override, add or drop (``yArr = None``) components in a subclass, as with any Device.

    Parameters
    ----------
    prefix : str
        Put before the components' PV names.
    name : str
        Of the flyer; the data keys begin with it.
    kickoff_finishes_on : {"done", "busy"}
        When the status of `kickoff` finishes: on Busy→Done, so that what follows it in a plan
        comes after the flight; or as soon as the record is Busy, which is bluesky's own
        convention, needed to fly several at once by `bp.fly`, and for `fly_during_wrapper`.
    when_busy : {"reset", "wait", "fail"}
        What to do where the record is Busy at kickoff: write Done and wait for it, then
        `reset_settle` more; wait for it to end; or refuse.
    reset_settle : float
        Seconds between a reset and the flight.
    start_timeout : float
        Seconds from the put of Busy to a sign of life; also those that the record may need
        to connect, where it is not connected at kickoff.
    flight_timeout : float or None
        Seconds from the put of Busy to Done. Set it: without it a flight whose controller
        died stays in the air as long as its IOC lives.
    on_timeout : {"reset", "leave"}
        Whether to write Done after a timeout.
    reconnect_timeout : float
        Seconds that a lost connection may last in flight.
    on_pause : {"continue", "abort"}
        Where the RunEngine pauses in flight (Ctrl-C twice, a suspender): let it fly, and
        rejoin it on resume; or end it, and the plan sees `FlightAborted`. The flight's
        deadlines do not pause.
    time_array : str or None
        The column that holds the points' times.
    time_origin : {"absolute", "relative"}
        Whether those are seconds of the POSIX epoch, or since the flight's start.
    points : str or None
        Name of a component, a signal whose value after the flight is the number of points, where
        NORD does not tell: the arrays' first points are the flight's. Other values that are read
        once a flight are taken as they are, whenever they were written.
    fresh_timeout : float
        Seconds after Done that the arrays may need to be as new as the flight.
    on_stale : {"error", "warn"}
        Where an array is older than the flight, or another flight came before it was read:
        fail, or log a warning and pass it on.
    on_ragged : {"error", "warn", "truncate"}
        Where the arrays differ in length: fail, or keep as many points as all have, with or
        without a logged warning.
    layout : {"rows", "array"}
        An event a point, or one event whose cells are the arrays, as numpy arrays.
    array_length : int or None
        Elements of each cell of layout "array": shorter arrays are padded, by NaN or by 0 for
        integers, and the key ``{name}_{attribute}_nord`` says how many count. None: each
        record's NELM.
    page_size : int
        Most points in one event page of layout "rows".
    describe : {"nested", "flat"}
        Form of `describe_collect`: ``{stream: {key: ...}}``, which `bp.fly` needs, or
        ``{key: ...}``, which ``declare_stream(flyer, name=..., collect=True)`` needs.
    stream_name : str or None
        Name of the data stream; None: the flyer's. BestEffortCallback's table wants "primary".
    progress : str or None
        Name of a component that counts points in flight, a signal or a column (its NORD), for whoever
        watches a status, as progress bars do; None: the time column, where `expected_points` is given. It
        is listened to only while somebody watches (by ophyd's events, from then on).
    expected_points : int or str or None
        How many there will be, or the name of a component, a signal that says so.
    expected_time : float or str or None
        Seconds that a flight takes, or the name of a signal that says so: where no points are expected, the
        progress is that of time.
    events : {"direct", "ophyd"}
        Where the news comes from: straight from libca, or from the components' own signals,
        of whatever control layer (or a fake device), in a worker thread of the flyer. Where
        the first cannot be had, the flyer takes the second and logs a warning.

    The options are plain attributes too (`describe` is `describe_as`, being a Device's method)
    and can be set at any time, or by `configure`; the next kickoff uses and checks them.

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

    With ``events="ophyd"`` nobody tells what became of a put. A fresh read decides instead,
    and some things are harder to see: a refused put counts as flown if another client
    processed the record at that moment; a flight too short to be seen Busy, on an IOC whose
    stamps stand still, counts as refused; and a put that is queued in the IOC behind another
    client's flight cannot be taken back by `stop`.

    Callbacks added to the status of `kickoff` run in libca's thread: they must not block
    there, and they must not make blocking Channel Access calls.

    Of a page's ``time`` the RunEngine keeps nothing: it writes the moment of collecting. A
    point's own time is in ``timestamps`` and in the time column's data (seconds since the
    flight's start).

    Examples
    --------
    >>> ifly = BusyFlyer("prj:", name="ifly", flight_timeout=60)
    >>> RE(bluesky.plans.fly([ifly]))
    """

    busy = Component(BusyRecord, "mybusy", kind="config")
    tArr = Component(Waveform, "t_array", kind="config")  # noqa: N815 - the tutorial's names are data keys
    xArr = Component(Waveform, "x_array", kind="config")  # noqa: N815
    yArr = Component(Waveform, "y_array", kind="config")  # noqa: N815

    SUB_FLIGHT_BUSY = "flight_busy"
    SUB_FLIGHT_DONE = "flight_done"
    SUB_FLIGHT_FAILED = "flight_failed"

    _options: tuple[str, ...] = OPTIONS

    def __init__(
        self,
        prefix: str = "",
        *,
        name: str,
        kickoff_finishes_on: Literal["done", "busy"] = "done",
        when_busy: Literal["reset", "wait", "fail"] = "reset",
        reset_settle: float = 0.1,
        start_timeout: float = 5.0,
        flight_timeout: float | None = None,
        on_timeout: Literal["reset", "leave"] = "reset",
        reconnect_timeout: float = 15.0,
        on_pause: Literal["continue", "abort"] = "continue",
        time_array: str | None = "tArr",
        time_origin: Literal["absolute", "relative"] = "absolute",
        points: str | None = None,
        fresh_timeout: float = 1.0,
        on_stale: Literal["error", "warn"] = "error",
        on_ragged: Literal["error", "warn", "truncate"] = "error",
        layout: Literal["rows", "array"] = "rows",
        array_length: int | None = None,
        page_size: int = 2000,
        describe: Literal["nested", "flat"] = "nested",
        stream_name: str | None = None,
        progress: str | None = None,
        expected_points: int | str | None = None,
        expected_time: float | str | None = None,
        events: Literal["direct", "ophyd"] = "direct",
        **kwargs: Any,
    ) -> None:
        self.kickoff_finishes_on = kickoff_finishes_on
        self.when_busy = when_busy
        self.reset_settle = reset_settle
        self.start_timeout = start_timeout
        self.flight_timeout = flight_timeout
        self.on_timeout = on_timeout
        self.reconnect_timeout = reconnect_timeout
        self.on_pause = on_pause
        self.time_array = time_array
        self.time_origin = time_origin
        self.points = points
        self.fresh_timeout = fresh_timeout
        self.on_stale = on_stale
        self.on_ragged = on_ragged
        self.layout = layout
        self.array_length = array_length
        self.page_size = page_size
        self.describe_as = describe
        self.stream_name = stream_name
        self.progress = progress
        self.expected_points = expected_points
        self.expected_time = expected_time
        self.events = events
        self._check_options()
        self._configured_at = time.time()
        super().__init__(prefix, name=name, **kwargs)
        self._lock = threading.Lock()  # guards the flight; never held while libca or a callback is entered
        self._sortie: Sortie | None = None
        self._gone = False
        self._paused = False  # by the RunEngine, which neither resumed nor went on since
        self._resumed = False  # and the plan's messages may be replayed
        self._errands: deque[tuple[Order, Flight]] = deque()  # in the order of the flights' orders
        self._errand_runner: int | None = None  # the thread
        self._errands_done = threading.Condition(self._lock)
        self._alarm = Alarm(lambda: self._witness(None, Flight.deadline))
        self._subscribers = Worker(f"{self.name} subscribers")
        self._watchers = Worker(f"{self.name} watchers")
        self._open_channels()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        shadowed = [attr for attr in cls.component_names if attr in cls._options]
        if shadowed:
            raise TypeError(f"{cls.__name__}.{shadowed[0]} is an option of BusyFlyer: give this component another name")
        if hasattr(cls, "collect") and cls.collect_pages is BusyFlyer.collect_pages:
            raise TypeError(
                f"{cls.__name__}.collect would never be called: delete it, and describe_collect with it. "
                "BusyFlyer.collect_pages emits every Waveform component by itself."
            )

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
            A PV is not of the kind that is needed.
        ValueError
            An option was set to what no flight can be flown with.
        """
        if self._gone:
            raise RuntimeError(f"{self.name} was destroyed: make a new flyer")
        earlier, replayed = self._sortie, self._resumed
        self._plan_goes_on()
        if replayed and earlier is not None:
            logger.info("%s: kickoff is a replay, and rejoins the flight", self.name)
            return earlier.kickoff
        with self._lock:
            self._wait_for_errands()  # the Done of an earlier flight
            if self._sortie is not None and self.flying:
                raise RuntimeError(f"{self.name} is flying already ({self._sortie.flight.state.value}): stop() ends it")
            self._sortie = None  # what an earlier flight left is never passed on as this one's
        if earlier is not None and earlier.kept:
            logger.warning("%s forgets the arrays of its latest flight: nobody collected them", self.name)
        options, collecting = self._check_options()
        if self.events != self._opened_for:
            self._close_channels()
            self._open_channels()
        self._refuse_unusable()
        flight = Flight(name_of(state_of(self.busy)), options, clock_offset=time.time() - time.monotonic())
        progress, ends_on_busy = self._progress_of(flight), self.kickoff_finishes_on == "busy"
        sortie = Sortie(
            flight,
            self._new_status(None if ends_on_busy else progress),
            collecting,
            self._arrays.values(collecting),
            progress,
            kickoff_ends_on_busy=ends_on_busy,
        )
        with self._lock:
            if self._sortie is not None:
                raise RuntimeError(f"{self.name} was kicked off by another thread at the same time")
            self._sortie = sortie
        self._launch(flight)
        return sortie.kickoff

    def complete(self) -> FlightStatus:
        """Wait, without blocking, for the flight's arrays.

        Returns
        -------
        FlightStatus
            Finished when the arrays are in hand and found to be this flight's. Its exception
            is the flight's own, or a `CollectError`. Called in flight while the RunEngine is
            paused, it means that the plan was given up: the flight is aborted, there is nothing
            to wait for, and the status is finished at once.

        Raises
        ------
        RuntimeError
            There is no flight to complete.
        """
        sortie = self._sortie
        if sortie is None:
            raise RuntimeError(f"{self.name}: no flight to complete, kickoff() comes first")
        sortie.completed = True
        given_up = self._paused and not sortie.flight.over
        self._plan_goes_on()
        status = self._new_status(sortie.progress)
        if given_up:
            self._end_flight("its plan was given up in a pause")
            status.set_finished()
        else:
            sortie.notify(status)
        return status

    def describe_collect(self) -> dict[str, Any]:
        """Describe what `collect_pages` yields, in the form that `describe` asks for.

        Layout "rows": a number a point. Layout "array": arrays of the declared length, and how
        many of their elements count.
        """
        keys = self._arrays.describe(self._collect_options())
        return keys if self.describe_as == "flat" else {self._stream: keys}

    def collect_pages(self) -> Iterator[PartialEventPage]:
        """Yield the flight's arrays as event pages, once; an event a point.

        Yields nothing before the flight is done, after one that failed, for one without
        points, and where they were collected already.

        The RunEngine calls it too where a plan is given up in flight. While the RunEngine is
        paused, nothing else is to call it, and the flight is aborted; otherwise it may as well be
        a plan that looks for data from time to time, so it goes on, and a warning is logged.

        Raises
        ------
        CollectError
            The arrays could not be had, or are not this flight's.
        """
        sortie, paused = self._sortie, self._paused
        self._plan_goes_on()
        if sortie is None:
            return
        if not sortie.flight.over:
            self._collected_in_flight(sortie, paused)
        if not sortie.flight.finished:
            return
        harvest = sortie.take(COLLECT_TIMEOUT + sortie.collecting.fresh_timeout)
        if harvest is not None and harvest.points:
            timeline = sortie.flight.timeline
            yield from self._arrays.pages(harvest, timeline, self._collect_options())
            timeline.mark("collected", time.monotonic())

    def stop(self, *, success: bool = False) -> None:
        """End the flight in progress, if there is one: writes Done, and its status fails with `FlightAborted`."""
        self._end_flight("stop() was called")
        super().stop(success=success)

    def stage(self) -> Any:
        """Set what `stage_sigs` asks for."""
        self._plan_goes_on()
        return super().stage()

    def unstage(self) -> Any:
        """End the flight in progress, as `stop` does, and restore what `stage` set."""
        self._plan_goes_on()
        self._end_flight("unstage() was called")
        return super().unstage()

    def pause(self) -> None:
        """The RunEngine pauses: the flight goes on, or is aborted (`on_pause`)."""
        super().pause()
        self._paused, self._resumed = True, False
        sortie = self._sortie
        if sortie is not None and sortie.has_ended:
            sortie.taken = True
        if self.on_pause == "abort":
            self._end_flight("the RunEngine paused, and on_pause='abort'")

    def resume(self) -> None:
        """The RunEngine resumes: a `kickoff` that it replays rejoins the flight."""
        super().resume()
        self._paused = False
        sortie = self._sortie
        # What was collected is over. A failure that a status told is known to the plan: a kickoff is another try.
        self._resumed = sortie is not None and not sortie.taken and not sortie.failure_told

    # What else a Device offers

    @property
    def timeline(self) -> Timeline:
        """The steps of the latest flight: client's times and IOC's stamps; empty where there is none."""
        sortie = self._sortie
        return Timeline() if sortie is None else sortie.flight.timeline

    @property
    def flown_in(self) -> str | None:
        """Uid of the run of the latest flight, where its plan has told it; `plans.fly` does."""
        sortie = self._sortie
        return None if sortie is None else sortie.run

    @flown_in.setter
    def flown_in(self, run: str) -> None:
        sortie = self._sortie
        if sortie is not None:
            sortie.run = run

    @property
    def flying(self) -> bool:
        """Whether a flight is in progress, from its kickoff on."""
        sortie = self._sortie
        return sortie is not None and not sortie.flight.over

    @property
    def kept(self) -> bool:
        """Whether the latest flight left arrays that nobody has collected."""
        sortie = self._sortie
        return sortie is not None and sortie.kept

    def offer_again(self) -> None:
        """Let the next collect have the arrays of the latest flight, though they may have been collected.

        Raises
        ------
        RuntimeError
            There is no flight, or it is not over, or it failed.
        CollectError
            Its arrays could not be had, or are not to be trusted.
        """
        sortie = self._sortie
        if sortie is None:
            raise RuntimeError(f"{self.name} has no arrays to offer: it has not flown since it was made or kicked off")
        if not sortie.flight.over:
            raise RuntimeError(f"{self.name} has no arrays to offer yet: its flight is in progress")
        if sortie.flight.error is not None:
            raise RuntimeError(f"{self.name} has no arrays to offer: its flight failed") from sortie.flight.error
        sortie.offer_again(COLLECT_TIMEOUT + sortie.collecting.fresh_timeout)

    @property
    def hints(self) -> dict[str, Any]:
        """The columns, the one of times excepted."""
        return {"fields": [self._arrays.key(attr) for attr in self._numbers() if attr != self.time_array]}

    @property
    def plot_md(self) -> dict[str, Any]:
        """Run metadata with which BestEffortCallback plots the signals against the position.

        That is the first column; or the time, if one column only is none.
        """
        columns = [attr for attr in self._numbers() if attr != self.time_array]
        if len(columns) < 2 and self.time_array in self._arrays.lines:
            columns.insert(0, self.time_array)
        return {"hints": {"dimensions": [([self._arrays.key(attr)], self._stream) for attr in columns[:1]]}}

    def _numbers(self) -> list[str]:
        """Names of the columns that are no text."""
        return [attr for attr in self._arrays.lines if not getattr(self, attr).string]

    def read_configuration(self) -> dict[str, Any]:
        """The components' own, the arrays' PVs, and the options that are set."""
        configuration = dict(super().read_configuration())
        for key, value in self._settings().items():
            configuration.setdefault(key, {"value": value, "timestamp": self._configured_at})
        return configuration

    def describe_configuration(self) -> dict[str, Any]:
        """Describe what `read_configuration` reads."""
        description = dict(super().describe_configuration())
        for key, value in self._settings().items():
            dtype = "string" if isinstance(value, str) else "integer" if isinstance(value, int) else "number"
            description.setdefault(key, {"source": type(self).__name__, "dtype": dtype, "shape": []})
        return description

    def configure(self, d: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Set options by name, and the components' own configuration.

        Parameters
        ----------
        d : dict
            New values, by name.

        Returns
        -------
        old, new : dict
            `read_configuration` before and after.

        Raises
        ------
        ValueError
            An option that no flight can be flown with; none is changed then.
        """
        unknown = d.keys() - {*self._options, *self.configuration_attrs}
        if unknown:
            raise ValueError(f"{self.name} has nothing to configure that is named {', '.join(sorted(unknown))}")
        options = {name: value for name, value in d.items() if name in self._options}
        before = {name: getattr(self, _attribute(name)) for name in options}
        old = self.read_configuration()
        try:
            self._set_options(options)
            self._check_options()
        except Exception:
            self._set_options(before)
            raise
        super().configure({name: value for name, value in d.items() if name not in self._options})
        return old, self.read_configuration()

    def _set_options(self, options: dict[str, Any]) -> None:
        for name, value in options.items():
            setattr(self, _attribute(name), value)
        self._configured_at = time.time()

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {f"{self.name}_{attr}_pv": line.pv for attr, line in self._arrays.lines.items()}
        options = {name: getattr(self, _attribute(name)) for name in self._options}
        return settings | {f"{self.name}_{name}": value for name, value in options.items() if value is not None}

    def wait_for_connection(self, all_signals: bool = False, timeout: Any = _DEFAULT_TIMEOUT) -> None:
        """Wait until every PV is connected.

        Raises
        ------
        TimeoutError
            Names every PV that is missing.
        FlightRefused
            A PV is connected but not of the kind that is needed.
        """
        if timeout is not None and not isinstance(timeout, int | float):
            timeout = self.connection_timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        super().wait_for_connection(all_signals=all_signals, timeout=timeout)
        for channel in self._channels():
            channel.wait_ready(None if deadline is None else max(0.0, deadline - time.monotonic()))
        self._refuse_unusable()
        missing = ", ".join(channel.pv for channel in self._channels() if not channel.ready)
        if missing:
            raise TimeoutError(f"{self.name}: not connected within {timeout} s: {missing}")

    def destroy(self) -> None:
        """End the flight in progress, and release the channels; no other flight can be kicked off."""
        self.stop()
        self._gone = True
        self._close_channels()
        self._subscribers.stop(STOP_TIMEOUT)
        self._watchers.stop(STOP_TIMEOUT)
        super().destroy()

    # The lines to the records

    @property
    def busy_states(self) -> list[Signal]:
        """Signals of its busy records."""
        return [state_of(self.busy)]

    def _open_channels(self) -> None:
        state = state_of(self.busy)
        self._opened_for = self.events
        self._worker: Worker | None = None
        if self.events == "ophyd":
            self._worker = Worker(f"{self.name} signals")
        else:
            waves = [getattr(self, attr).wave for attr in column_names(type(self))]
            reason = why_not_direct([state, *waves])
            if reason is not None:
                logger.warning("%s cannot have its events directly (%s): it takes ophyd's", self.name, reason)
                self._worker = Worker(f"{self.name} signals")
        self._arrays = Arrays(self, self._worker)
        self._open_busy(state)

    @property
    def busy_host(self) -> str | None:
        """Who serves the busy record, where that is known."""
        return self._channel.host

    def read_after(self, answer: Callable[[Reading | None], None]) -> None:
        """Read the busy record behind what was asked for before; `answer` gets None where it could not be had."""
        self._channel.read(answer)

    def _open_busy(self, state: Signal) -> None:
        news = _News(self)
        self._channel: BusyLine = (
            BusyChannel(state.pvname, news) if self._worker is None else BusySignal(state, self._worker, news)
        )

    def _close_channels(self) -> None:
        for channel in self._channels():
            channel.close()
        self._arrays.stop()

    # The flight's orders, carried out; PollingFlyer has its own way of each

    def _launch(self, flight: Flight) -> None:
        self._forget_put()  # of a flight that was left to itself
        channel = self._channel
        flight.awaits_ground_read = isinstance(channel, BusySignal)
        self._witness(flight, lambda flight, now: flight.kickoff(now, channel.reading if channel.ready else None))

    def _begin_taxi(self, flight: Flight) -> None:
        """Of a flyer that taxis."""
        raise NotImplementedError

    def _put_busy(self, flight: Flight) -> None:
        def answer(status: int | None, message: str) -> None:
            self._witness(flight, lambda flight, now: flight.put_returned(status, message, now))

        if isinstance(self._channel, BusySignal):
            self._channel.read(
                lambda reading: self._witness(flight, lambda flight, now: flight.ground_read(reading, now))
            )
        self._channel.put_callback(BUSY, answer)

    def _put_done(self) -> None:
        self._channel.put(DONE)

    def _forget_put(self) -> None:
        """Take back a put-callback that nobody waits for any more.

        It may still be queued in the IOC behind another client's, and would start a flight.
        """
        self._channel.forget_put()

    def _read_busy(self, flight: Flight) -> None:
        self._channel.read(lambda reading: self._witness(flight, lambda flight, now: flight.read_answers(reading, now)))

    # Between the flight and the world

    def _witness(self, flight: Flight | None, tell: Callable[[Flight, float], Orders]) -> None:
        """Tell the flight (any, or just this one) what was seen, and do what it orders."""
        now = time.monotonic()
        with self._lock:
            sortie = self._sortie
            if sortie is None or (flight is not None and sortie.flight is not flight):
                return
            orders = tell(sortie.flight, now)
            begins = sortie.flight.began and not sortie.began
            sortie.began = sortie.flight.began
            self._alarm.set(None if sortie.flight.over else sortie.flight.next_deadline)
            self._errands.extend((order, sortie.flight) for order in orders if order is not Order.SETTLE)
        if self._errands:
            self._run_errands()
        if begins:
            self._begin(sortie)
        if Order.SETTLE in orders:
            self._settle(sortie)

    def _run_errands(self) -> None:
        """Carry the orders out one after another, in whichever thread does so already: no put may overtake another."""
        while True:
            with self._lock:
                if self._errand_runner is not None or not self._errands:
                    return
                self._errand_runner = threading.get_ident()
                order, flight = self._errands.popleft()
            try:
                if order is Order.TAXI:
                    self._begin_taxi(flight)
                elif order is Order.PUT_BUSY:
                    self._put_busy(flight)
                elif order is Order.PUT_DONE:
                    self._put_done()
                elif order is Order.FORGET:
                    self._forget_put()
                elif order is Order.READ:
                    self._read_busy(flight)
            except Exception:  # a deadline will tell
                logger.exception("%s could not %s", self.name, order.value)
            finally:
                with self._lock:
                    self._errand_runner = None
                    self._errands_done.notify_all()

    def _wait_for_errands(self) -> None:
        """Wait until the orders of before went out; to be called with the lock held."""
        if self._errand_runner != threading.get_ident():
            self._errands_done.wait_for(lambda: not self._errands and self._errand_runner is None, STOP_TIMEOUT)

    def _begin(self, sortie: Sortie) -> None:
        if sortie.kickoff_ends_on_busy:
            sortie.end_kickoff()
        self._publish(sortie, self.SUB_FLIGHT_BUSY)

    def _settle(self, sortie: Sortie) -> None:
        error = sortie.flight.error
        if error is not None:
            logger.info("%s: %s", self.name, error)
            if sortie.somebody_waits:
                sortie.failure_told = True
                self._resumed = False  # the plan sees it: a kickoff after that is no replay
            sortie.land(error)
            sortie.end_kickoff(error)
            if sortie.began:
                self._publish(sortie, self.SUB_FLIGHT_BUSY)  # its own thread may not have come to it
            self._publish(sortie, self.SUB_FLIGHT_FAILED, error=error)
            return
        sortie.flight.timeline.mark("finished", time.monotonic())
        sortie.end_kickoff()
        self._arrays.fetch(sortie.flight, sortie.collecting, sortie.values, sortie.land)
        self._publish(sortie, self.SUB_FLIGHT_BUSY)  # a flight may be too short to be seen
        self._publish(sortie, self.SUB_FLIGHT_DONE)

    def _publish(self, sortie: Sortie, event: str, **details: Any) -> None:
        """Tell those who have subscribed by now. ophyd's `_run_subs` would tell who comes later, too."""
        with self._lock:
            if event in sortie.published:
                return
            sortie.published.add(event)
            subscribers = list(self._callbacks[event])
        if subscribers:
            timeline = sortie.flight.timeline
            times = {
                self.SUB_FLIGHT_BUSY: timeline.t0,
                self.SUB_FLIGHT_DONE: timeline.when("done"),
                self.SUB_FLIGHT_FAILED: timeline.when("failed"),
            }
            details.update(timeline=timeline, obj=self, sub_type=event, timestamp=times[event])
            self._subscribers.do(partial(self._tell_subscribers, subscribers, event, details))

    def _tell_subscribers(self, subscribers: list[int], event: str, details: dict[str, Any]) -> None:
        for subscriber in subscribers:
            callback = self._callbacks[event].get(subscriber)  # None: it has unsubscribed
            if callback is not None:
                callback(**details)

    def _end_flight(self, why: str) -> None:
        self._witness(None, lambda flight, now: flight.abort(now, why))
        with self._lock:  # another thread may be about to put it, behind the Busy of the flight
            self._wait_for_errands()
        if self._worker is not None:
            self._worker.wait(STOP_TIMEOUT)

    def _plan_goes_on(self) -> None:
        """A verb was called: what it does depends on a pause or resume just before it, what comes later does not."""
        self._paused = self._resumed = False

    def _collected_in_flight(self, sortie: Sortie, paused: bool) -> None:
        if paused:
            self._end_flight("its plan was given up in a pause")
        elif not sortie.was_collected_in_flight and self._staged is Staged.no:  # else it is unstaged at last
            sortie.was_collected_in_flight = True
            logger.warning(
                "%s was collected in flight, so there is nothing to emit yet. If its plan was given up, the flight "
                "goes on until %s is Done: stop() ends it; busy_callback_flyer.plans.fly does so by itself",
                self.name,
                sortie.flight.pv,
            )

    def _new_status(self, progress: Progress | None) -> FlightStatus:
        return FlightStatus(self, self._subscribers.do, progress)

    def _progress_of(self, flight: Flight) -> Progress | None:
        """For whoever watches the flight; None where nobody knows how far it is."""
        counter = self._counter()
        expected = self.expected_time if counter is None else self.expected_points
        if counter is None and expected is None:
            return None
        return Progress(
            self.name,
            flight,
            self._watchers.do,
            None if counter is None else partial(self._listen_to, counter),
            lambda: getattr(self, expected).get() if isinstance(expected, str) else expected,
            lambda: self.busy_host,
        )

    def _counter(self) -> Signal | None:
        """What counts points in flight."""
        name = self.progress if self.progress is not None or self.expected_points is None else self.time_array
        component = None if name is None else getattr(self, name)
        return getattr(component, "number_read", component)

    def _listen_to(self, counter: Signal) -> CountChannel | CountSignal:
        direct = self._worker is None and why_not_direct([counter]) is None
        return CountChannel(counter.pvname) if direct else CountSignal(counter)

    # Names and options

    @property
    def _stream(self) -> str:
        return self.stream_name or self.name

    def _channels(self) -> list[ArrayLine | BusyLine]:
        return [*self._arrays.lines.values(), self._channel]

    def _refuse_unusable(self) -> None:
        problems = [channel.problem for channel in self._channels() if channel.problem is not None]
        if problems:
            raise FlightRefused(f"{self.name}: {'; '.join(problems)}")

    def _check_options(self) -> tuple[FlightOptions, CollectOptions]:
        columns = column_names(type(self))
        if self.time_array is not None and self.time_array not in columns:
            raise ValueError(
                f"time_array={self.time_array!r}: must be None or the name of a Waveform component "
                f"({', '.join(columns)})"
            )
        require_one_of("kickoff_finishes_on", self.kickoff_finishes_on, "done", "busy")
        require_one_of("on_pause", self.on_pause, "continue", "abort")
        require_one_of("events", self.events, "direct", "ophyd")
        require_one_of("describe", self.describe_as, "nested", "flat")
        for option in ("time_array", "points", "stream_name"):
            if not isinstance(getattr(self, option), str | None):
                raise ValueError(f"{option}={getattr(self, option)!r}: must be None or a name")
        if self.points is not None and not (columns and self._is_signal(self.points)):
            raise ValueError(
                f"points={self.points!r}: must be None or the name of a component that is a signal, beside arrays"
            )
        self._check_progress(columns)
        flying = FlightOptions(
            when_busy=self.when_busy,
            reset_settle=self.reset_settle,
            start_timeout=self.start_timeout,
            flight_timeout=self.flight_timeout,
            on_timeout=self.on_timeout,
            reconnect_timeout=self.reconnect_timeout,
        )
        return flying, self._collect_options()

    def _check_progress(self, columns: list[str]) -> None:
        if self.progress is not None and self.progress not in columns and not self._is_signal(self.progress):
            raise ValueError(
                f"progress={self.progress!r}: must be None or the name of a component, a signal or a column"
            )
        if self.expected_points is not None and self.progress is None and self.time_array is None:
            raise ValueError("expected_points is of no use without progress, the name of what counts points")
        for option, kinds in (("expected_points", int), ("expected_time", int | float)):
            value = getattr(self, option)
            if value is None or self._is_signal(value):
                continue
            if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value < float("inf"):
                raise ValueError(f"{option}={value!r}: must be None, a number above 0, or the name of a signal")

    def _is_signal(self, name: object) -> bool:
        """Whether a component of that name is a signal."""
        component = getattr(type(self), name, None) if isinstance(name, str) else None
        return issubclass(getattr(component, "cls", object), Signal)

    def _collect_options(self) -> CollectOptions:
        return CollectOptions(
            time_array=self.time_array,
            time_origin=self.time_origin,
            points=self.points,
            fresh_timeout=self.fresh_timeout,
            on_stale=self.on_stale,
            on_ragged=self.on_ragged,
            layout=self.layout,
            array_length=self.array_length,
            page_size=self.page_size,
        )


class _News:
    """What the busy record's channel has to tell, passed on to the flight in progress."""

    def __init__(self, flyer: BusyFlyer) -> None:
        self._flyer = flyer

    def connected(self, reading: Reading) -> None:
        self._flyer._witness(None, lambda flight, now: flight.connected(reading, now))

    def connection_lost(self) -> None:
        self._flyer._witness(None, Flight.connection_lost)

    def record_says(self, reading: Reading) -> None:
        self._flyer._witness(None, lambda flight, now: flight.record_says(reading, now))

    def unusable(self, problem: str) -> None:
        self._flyer._witness(None, lambda flight, now: flight.refuse(now, problem))


def _attribute(option: str) -> str:
    """Where an option is kept: `describe` is a method of every Device."""
    return "describe_as" if option == "describe" else option


class _BareFlyer(BusyFlyer):
    """Without the columns of the tutorial, which would come first."""

    tArr = xArr = yArr = None  # noqa: N815


def make_flyer(
    name: str,
    *,
    busy: str,
    arrays: Mapping[str, str | Mapping[str, Any]],
    signals: Mapping[str, str] | None = None,
    time_array: str | None = None,
    **options: Any,
) -> BusyFlyer:
    """Make a flyer from PV names alone, as a configuration file has them.

    Parameters
    ----------
    name : str
        Of the flyer; the data keys begin with it.
    busy : str
        The busy record's PV.
    arrays : mapping
        Columns in order: the PV of each, or a mapping with ``pv`` and options of `Waveform`.
    signals : mapping, optional
        PVs of values that are read once a flight, one data key each.
    time_array : str, optional
        The column that holds the points' times.
    **options
        Of `BusyFlyer`.

    Raises
    ------
    ValueError
        A column's name is no name for an attribute of an ophyd Device.

    Examples
    --------
    >>> make_flyer("ifly", busy="prj:mybusy", arrays={"x": "prj:x_array", "y": "prj:y_array"})
    """
    signals = signals or {}
    names = [*arrays, *signals]
    taken = {*dir(BusyFlyer), *DEVICE_RESERVED_ATTRS, *OPTIONS, "describe_as", "log", "prefix", "time"}
    taken |= {f"{attr}_nord" for attr in arrays}
    for attr in names:
        usable = attr.isidentifier() and not attr.startswith("_") and names.count(attr) == 1
        if not usable or attr in taken - set(column_names(BusyFlyer)):
            raise ValueError(f"{attr!r} cannot name a column of {name}: a word is needed that no ophyd Device uses")
    components: dict[str, Any] = {}
    components["busy"] = Component(BusyRecord, busy, kind="config")
    for attr, array in arrays.items():
        how = {"pv": array} if isinstance(array, str) else dict(array)
        if "pv" not in how:
            raise ValueError(f"the column {attr!r} of {name} has no pv")
        components[attr] = Component(Waveform, how.pop("pv"), kind="config", **how)
    for attr, pv in signals.items():
        components[attr] = Component(EpicsSignalRO, pv, kind="normal")
    return cast(
        BusyFlyer, type("MadeFlyer", (_BareFlyer,), components)("", name=name, time_array=time_array, **options)
    )
