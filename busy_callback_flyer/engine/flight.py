"""One Busy→Done cycle as a state machine: no EPICS, no thread, no clock.

Theory of operation
-------------------
A :class:`Flight` is told what was witnessed and answers with what to do next. Whoever owns
it (``driver.py``) carries the news from the busy record to it and its orders back. Nothing
here waits or calls out, so every order of events can be tried in microseconds.

::

                      ┌────────────┐ connected
      kickoff ───────►│ CONNECTING ├───────────┐
         │            └────────────┘           │
         │ record is known                     ▼
         ├──────────────────────────── Done ───────┐
         │ Busy                                    │
         ▼                                         ▼
    ┌──────────┐ Done  ┌──────────┐ time up  ┌───────────┐
    │ CLEARING ├──────►│ SETTLING ├─────────►│   SENT    │ put-callback of 1 is out
    └──────────┘       └──────────┘          └─────┬─────┘
     written Done ("reset") or                     │ Busy seen
     left to end ("wait")                          ▼
                              ┌──────┐ lost  ┌───────────┐
                              │ LOST │◄──────┤  FLYING   │
                              └──┬───┘──────►└─────┬─────┘
              not back, or back  │  back, Busy     │ evidence complete
              as something else  │  with the same  │
                                 ▼  stamp          ▼
                              failed            finished

Two waits may come between the ground and SENT: for a taxi (TAXIING); and for what this
process put before on another circuit, and for arrays that the put could overtake (FENCING).

A flight is *finished* by evidence only:

* our put-callback came back normally, and a Busy and then a Done event were seen since
  our put. The two travel separately and arrive in either order;
* or, where the callback is back and Busy was never seen (a flight too short for an
  event, a coalesced queue), a read sent *afterwards* answers Done;
* or, where Done was seen and the callback stays away (`CALLBACK_GRACE`), a fresh read
  answers Done. If it answers Busy, the Done was another client's;
* where the control layer does not tell what became of the put (`put_returned` with None),
  a fresh read decides in every case, and a record that did not even change its stamp has
  refused the put.

A stamp alone, an alarm alone, a cached value, the event that a new subscription brings
and the echo of our own put are no evidence. A lost connection is never a finish: the
flight may be rejoined only if the record comes back Busy with the very stamp it had.

Other clients can fly the same record. A Busy that follows a Done begins a flight anew, as
long as our put-callback is away: until then what ended was somebody else's. If it is back
while the record is Busy again, the flight that ended before was ours.

Every flight ends, except one whose record stays Busy on a live connection where no
`flight_timeout` is set. That bounds everything from `kickoff` on. Where a flight ends
before its time, Done is written if the verdict asks for it; but first the put-callback is
taken back (`Order.FORGET`), because it may be queued in the IOC, and the Done that ends the
flight before would start it.

All times given to a flight are seconds of one monotonic clock; stamps are the IOC's own,
in seconds of the POSIX epoch.

The quick way (`Flight.quick_callback`, `Flight.quick_done`) takes the two pieces of news with
which most flights end: whichever comes first is stored and no more, and the second decides.
It must give the same verdict and timeline as the other way; a property test holds that.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable

from .errors import FlightAborted, FlightError, FlightLost, FlightRefused, FlightTimeout
from .options import Options
from .ports import BUSY, DONE, NEVER, Put, Reading
from .timeline import Timeline, Times, dated

CALLBACK_GRACE = 0.1
"""Seconds that a put-callback may trail the Done event before a read decides."""

ANSWER_TIMEOUT = 5.0
"""Seconds that a read may need to decide a flight, however often it has to be repeated."""


class Order(enum.Enum):
    """What the owner of a flight is asked to do, in the order given, outside its lock."""

    TAXI = "taxi, then tell that it is over, or failed"
    FENCE = "wait for earlier puts of this process and for arrays that the put could overtake, then tell it"
    PUT_BUSY = "put 1 with callback, behind a question for the arrays' stamps"
    PUT_DONE = "put 0, without callback, and tell where that failed"
    FORGET = "take the put-callback back, if it is pending"
    READ = "read the record afresh"
    FINISH = "tell the verdict"


Orders = tuple[Order, ...]
_NOTHING: Orders = ()
_VERDICT: Orders = (Order.FINISH,)

_Deadline = Callable[[float], Orders]


def _says(value: int) -> str:
    return {DONE: "Done", BUSY: "Busy"}.get(value, f"{value}, neither Busy nor Done")


class State(enum.Enum):
    """Where a flight is; see the diagram above."""

    NEW = "not kicked off"
    TAXIING = "waiting for the taxi"
    CONNECTING = "waiting for the record to connect"
    CLEARING = "waiting for the record to become Done before the flight"
    SETTLING = "waiting for the controller to settle after a reset"
    FENCING = "waiting for earlier puts of this process to be served, and for the arrays' stamps"
    SENT = "waiting for Busy"
    FLYING = "waiting for Done"
    LOST = "waiting for the connection to come back"
    FINISHED = "finished"
    FAILED = "failed"


class Flight:
    """One Busy→Done cycle: told what was witnessed, it answers what to do, and once the verdict.

    Parameters
    ----------
    pv : str
        Name of the busy record's PV, for messages.
    options : Options
        How to fly.
    clock_offset : float
        Wall-clock time minus the monotonic clock of the times given, in seconds; used by
        the timeline only.
    timeout_name : str
        What its owner calls `flight_timeout`, for messages.

    Attributes
    ----------
    state : State
    error : FlightError or None
        Why the flight failed.
    awaits_ground_read : bool
        Set it where a read is sent ahead of the put (`ground_read`).
    needs_fence : bool
        Set it where something has to be waited for just before the put (`Order.FENCE`).
    taxis : bool
        Set it where something else has to be done just before the put (`Order.TAXI`).
    reconnects : bool
        Set it where the record was connected before, and may need `reconnect_timeout`.
    settled_from : float
        Set it to when the controller of an earlier flight, which was ended, will have settled.
    awaits_stamps : callable
        Set it to what says which arrays have not told their stamps of before the put; empty: none.
    foreign_done : float or None
        Stamp of the latest Done, since our put, of another client's flight; infinite where it is not known.
    timeline : Timeline
    """

    def __init__(
        self,
        pv: str,
        options: Options | None = None,
        *,
        clock_offset: float = 0.0,
        timeout_name: str = "flight_timeout",
    ) -> None:
        self.pv = pv
        self.options = options or Options()
        self._timeout_name = timeout_name
        self.timeline = Timeline(clock_offset, pv)
        self.state = State.NEW
        self.error: FlightError | None = None
        self.awaits_ground_read = False
        self.needs_fence = False
        self.taxis = False
        self.reconnects = False
        self.settled_from = 0.0
        self.awaits_stamps: Callable[[], str] = lambda: ""
        self.foreign_done: float | None = None
        self._begun = False
        self.before: Reading | None = None  # the record just before our put
        self._last: Reading | None = None
        self._last_seen: Reading | None = None  # for messages: a lost connection does not take it back
        self._kickoff_at = 0.0
        self._state_since = 0.0
        self._put_at = 0.0
        self._not_written: str | None = None  # why Done was not, on the ground
        self._busy: Reading | None = None
        self._busy_by_read = False  # a Done event after that may be an older one
        self._busy_stamp: float | None = None  # the latest; an alarm moves it
        self._done: Reading | None = None
        # Busy and Done since our put, with another Busy after; and `foreign_done` as it was then
        self._ended: tuple[dict[str, Times], float | None] | None = None
        self._ask_at: float | None = None  # when a read is due
        self._in_doubt_since: float | None = None  # a read is to decide
        self._callback_back = False
        self._callback_tells = True  # what became of the put
        self._stamps_move = True
        self._set_back = False  # the IOC's clock, since the ground
        self._was_neither = False  # Busy nor Done, by the latest event
        self._rejoined = False  # our put-callback went down with an earlier connection
        self._read_pending = False
        self._read_is_later = False  # than the callback

    # What the owner asks

    @property
    def over(self) -> bool:
        """Whether the verdict has fallen."""
        return self.state in (State.FINISHED, State.FAILED)

    @property
    def finished(self) -> bool:
        """Whether the flight ended well."""
        return self.state is State.FINISHED

    @property
    def began(self) -> bool:
        """Whether the record was seen Busy since our put."""
        return self._begun and not self.awaits_ground_read

    @property
    def airborne(self) -> bool:
        """Whether our put is out and the flight is not over."""
        return self.state in (State.SENT, State.FLYING, State.LOST)

    @property
    def may_be_over(self) -> bool:
        """Whether its callback is back and Done unseen: the record may fly for another client by now."""
        return "callback" in self.timeline and self._done is None

    def still_flies(self, reading: Reading | None) -> bool:
        """Whether a fresh read shows the very Busy of this flight."""
        return reading is not None and reading.value == BUSY and reading.stamp == self._busy_stamp

    @property
    def callback_missing(self) -> bool:
        """Whether it ended well and its put-callback, which could have come, was not back by then."""
        return self.finished and not (self._callback_back or self._rejoined)

    @property
    def next_deadline(self) -> float | None:
        """When to call `deadline`, in the clock of the times given; None: never."""
        times = [when for when, _ in self._deadlines()]
        return min(times) if times else None

    # Witnesses

    def taxi_over(self, now: float) -> Orders:
        """The taxi that was ordered has come to its end, well."""
        if self.state is not State.TAXIING:
            return _NOTHING
        self.taxis = False
        return self._go_on(now)

    def fence_passed(self, now: float) -> Orders:
        """What this process put before was served, and the arrays answered that were asked ahead of the put."""
        if self.state is not State.FENCING:
            return _NOTHING
        self.needs_fence = False
        return self._go_on(now)

    def done_not_written(self, why: str, now: float) -> Orders:
        """The record did not take the Done that was put, or may not have taken it."""
        if self.error is None:
            self._not_written = why
        else:
            text = str(self.error).rstrip(".")
            self.error = self.timeline.error = type(self.error)(f"{text}. Done could not be written: {why}.")
        return _NOTHING

    def taxi_failed(self, error: Exception, now: float) -> Orders:
        """The taxi that was ordered has failed: nothing is flown."""
        if self.state is not State.TAXIING:
            return _NOTHING
        kind = type(error) if isinstance(error, FlightError) else FlightRefused
        orders = self._fail(kind, now, f"not flown, as the taxi failed ({error})")
        assert self.error is not None
        self.error.__cause__ = error
        return orders

    def kickoff(self, now: float, last: Reading | None) -> Orders:
        """Begin; `last` is the latest news by monitor, None where the record is not connected."""
        if self.over:
            return _NOTHING
        self._kickoff_at = now
        self._last = self._last or last  # what came since the flight was made is newer
        return self._go_on(now)

    def record_says(self, reading: Reading, now: float) -> Orders:
        """A monitor event came, other than the first of a subscription."""
        self._last = reading
        anew, self._was_neither = self._was_neither, reading.value not in (DONE, BUSY)
        if self.state is State.CLEARING and reading.value == DONE:
            if self.options.when_busy == "reset":
                self.settled_from = max(self.settled_from, now + self.options.reset_settle)
            return self._take_off(reading, now)
        if self.state in (State.SETTLING, State.FENCING) and reading.value != DONE:
            return self._on_ground(reading, now)
        if self.state not in (State.SENT, State.FLYING):
            return _NOTHING
        if reading.value == BUSY:
            return self._busy_says(reading, now, anew=anew)
        return self._done_says(reading, now) if reading.value == DONE else _NOTHING  # 2 and more are neither

    def ground_read(self, reading: Reading | None, now: float) -> Orders:
        """A read sent ahead of the put came back: what the record said at the last moment; None: it failed.

        Of use where nobody tells what became of the put, and its traces are all there is.
        What was seen before it is not of this flight.
        """
        self.awaits_ground_read = False
        if reading is not None and self.state in (State.SENT, State.FLYING):
            self.before, self._begun = reading, False
            self.foreign_done = math.inf if reading.value == BUSY else None
            self._busy, self._busy_stamp, self._ended, self._stamps_move = None, None, None, True
            self._forget_done()
            self.timeline.forget("busy")
            self._enter(State.SENT, now)
        return _NOTHING

    def put_returned(self, put: Put, message: str, now: float) -> Orders:
        """Our put came back; `message` is what the channel says of it."""
        if not self.airborne:
            return _NOTHING
        if put is Put.LOST:
            return self.connection_lost(now)
        if put is Put.REFUSED:
            return self._fail(FlightRefused, now, f"the put of Busy was refused: {message}")
        if self.state is State.LOST or (self._rejoined and put is not Put.SERVED):
            return _NOTHING  # it went down with its connection, which looks the same where nobody tells
        self._callback_back, self._callback_tells = True, put is Put.SERVED
        if self.state is State.SENT:
            self._in_doubt_since = now
        if put is not Put.SENT:
            self.timeline.mark("callback", now)
        return self._weigh(now)

    def read_answers(self, reading: Reading | None, now: float) -> Orders:
        """The read that was ordered came back; None: it failed."""
        later, self._read_pending = self._read_is_later, False
        if self.state not in (State.SENT, State.FLYING):
            return _NOTHING
        if reading is None or reading.value not in (DONE, BUSY):
            self._last = reading or self._last
            self._ask_at = now + CALLBACK_GRACE
            return _NOTHING
        if reading.value == BUSY:
            return self._read_says_busy(reading, later, now)
        if self._callback_back and not later:
            return self._read()
        if self.state is State.SENT and not self._callback_back:  # our put may be queued behind a flight that ended
            return _NOTHING
        return self._read_says_done(reading, now)

    def record_read(self, reading: Reading, now: float) -> Orders:
        """A channel without monitor read the record by itself, later than the put."""
        if self.state is State.FLYING:
            return self.read_answers(reading, now)
        return self.record_says(reading, now) if self.state in (State.CLEARING, State.SETTLING) else _NOTHING

    def connection_lost(self, now: float) -> Orders:
        """The channel was disconnected."""
        self._last, self._last_seen = None, self._last or self._last_seen
        self._read_pending = False
        if self.over or self.state in (State.NEW, State.CONNECTING, State.LOST):
            return _NOTHING
        if not self.airborne:
            self.reconnects = True
            return _NOTHING if self.state is State.TAXIING else self._enter(State.CONNECTING, now)
        if self._busy is None:  # nothing to know it by when it comes back
            return self._fail(
                FlightLost, now, "the connection was lost before Busy was seen: fly again once the IOC is back"
            )
        return self._enter(State.LOST, now)

    def connected(self, reading: Reading, now: float) -> Orders:
        """The channel is connected; `reading` is the event that its new subscription brought."""
        self._last = reading
        if self.state is State.CONNECTING:
            return self._on_ground(reading, now)
        if self.state is not State.LOST:  # we knew already: the news was under way at kickoff
            return self.record_says(reading, now)
        if reading.value != BUSY or reading.stamp != self._busy_stamp or not self._stamps_move:
            said = _says(reading.value) + ", maybe in another flight" * (reading.value == BUSY)
            return self._fail(FlightLost, now, f"the connection was lost, and the record came back {said}: fly again")
        self._done, self._ended, self._ask_at, self._in_doubt_since = None, None, None, None
        self._callback_back, self._rejoined = False, True
        return self._enter(State.FLYING, now)

    def deadline(self, now: float) -> Orders:
        """Time has passed; early or superfluous calls do no harm."""
        for when, action in sorted(self._deadlines(), key=lambda item: item[0]):
            if when <= now:
                return action(now)
        return _NOTHING

    def abort(self, now: float, why: str = "abort was asked for") -> Orders:
        """End the flight; Done is written only where our put is out."""
        if self.over:
            return _NOTHING
        return self._fail(FlightAborted, now, why, end=self.state in (State.SENT, State.FLYING))

    def refuse(self, now: float, why: str) -> Orders:
        """The record turned out to be no busy record."""
        return _NOTHING if self.over else self._fail(FlightRefused, now, why)

    # The quick way: the two pieces of news that most flights end with. What is None takes the other way.

    def quick_callback(self, now: float) -> Orders | None:
        """Our put-callback came back served: `put_returned`, where nothing else is to be weighed."""
        if self.state is not State.FLYING or self._ended is not None or self._busy_by_read:
            return None
        self._callback_back = self._callback_tells = True
        self.timeline.mark("callback", now)
        if self._done is None:
            return _NOTHING
        self.state = State.FINISHED
        return _VERDICT

    def quick_done(self, reading: Reading, now: float, *, rings_in_time: bool) -> Orders | None:
        """An event says Done: `record_says`, where nothing else is to be weighed.

        Without the callback the news is stored only if a deadline rings in time for the read
        that is then due (`CALLBACK_GRACE`).
        """
        if self.state is not State.FLYING or self._done is not None or self._busy_by_read:
            return None
        if self._callback_back:
            if not self._callback_tells:
                return None
            self.state = State.FINISHED
            orders = _VERDICT
        elif rings_in_time and not self._rejoined:
            self._ask_at, self._in_doubt_since = now + CALLBACK_GRACE, now
            orders = _NOTHING
        else:
            return None
        self._done = self._last = reading
        self.timeline.mark("done", now, reading.stamp)
        return orders

    # Steps

    def _enter(self, state: State, now: float) -> Orders:
        self.state, self._state_since = state, now
        return _NOTHING

    def _on_ground(self, reading: Reading, now: float) -> Orders:
        if reading.value == DONE:
            return self._take_off(reading, now)
        if self.options.when_busy == "fail":
            return self._fail(
                FlightRefused,
                now,
                f"when_busy='fail', and the record is already {_says(reading.value)}: wait for that flight, or write "
                "Done",
                at_once=True,
            )
        self._enter(State.CLEARING, now)
        self._not_written = None
        return (Order.PUT_DONE,) if self.options.when_busy == "reset" else _NOTHING

    def _go_on(self, now: float) -> Orders:
        """From where it was called away on the ground; the record may have changed since."""
        return self._enter(State.CONNECTING, now) if self._last is None else self._on_ground(self._last, now)

    def _take_off(self, reading: Reading | None, now: float) -> Orders:
        if now < self.settled_from:
            return self._enter(State.SETTLING, now)
        if self.taxis:
            self._enter(State.TAXIING, now)
            return (Order.TAXI,)
        if self.needs_fence:
            self._enter(State.FENCING, now)
            return (Order.FENCE,)
        self.before = reading
        self._put_at = now
        self.timeline.mark("put", now)
        self._enter(State.SENT, now)
        return (Order.PUT_BUSY,)

    def _busy_says(self, reading: Reading, now: float, *, anew: bool) -> Orders:
        if self._is_late(reading):
            # Late news of an earlier flight. Or the IOC's clock was set back: only a read can tell.
            if self.state is State.SENT:
                self._ask_at = now + CALLBACK_GRACE
            return _NOTHING
        if self._done is not None:  # another flight, and ours may be either
            if self._ended_a_flight(self._done):
                self._ended = self.timeline.noted("busy", "done"), self.foreign_done
                self.foreign_done = self._done.stamp
            self._forget_done()
        elif self.state is State.FLYING and not self._busy_by_read and not anew:
            self._busy_stamp = reading.stamp  # nothing but an alarm
            return _NOTHING
        self._see_busy(reading, now)
        return self._weigh(now)

    def _ended_a_flight(self, done: Reading) -> bool:
        """Whether this Done came after the Busy that we know; after a read it may be older."""
        assert self._busy is not None
        return not self._busy_by_read or (self._stamps_move and done.stamp > self._busy.stamp)

    def _is_late(self, reading: Reading) -> bool:
        """Whether this Busy looks like news of an earlier flight."""
        return (
            self._stamps_move and not self._set_back and self.before is not None and reading.stamp < self.before.stamp
        )

    def _done_says(self, reading: Reading, now: float) -> Orders:
        if self.state is State.SENT and self.before is not None and self.before.value == BUSY:
            self.foreign_done = reading.stamp  # of the flight that our put is queued behind
        if self.state is State.SENT or self._done is not None:
            return _NOTHING
        if self._restarted(reading) and not self._busy_by_read:  # else it is late news, and a read tells
            return self._lose_by_restart(now)
        self._done, self._ask_at, self._in_doubt_since = reading, now + CALLBACK_GRACE, now
        self.timeline.mark("done", now, reading.stamp)
        return self._weigh(now)

    def _read_says_busy(self, reading: Reading, later: bool, now: float) -> Orders:
        if self._callback_back and later and not self._busy_by_read:  # it flies for somebody else
            if self._done is not None:
                return self._finish(now)
            if self._ended is not None:
                return self._finish_the_ended(now)
        if self._done is not None and self._ended_a_flight(self._done):
            self.foreign_done = self._done.stamp
        if self.state is State.SENT or self._done is not None:
            self._see_busy(reading, now)
            self._busy_by_read = True
        self._forget_done()
        self._ended = None
        if self._last is not None and self._last.value == DONE:  # that may be the newer news
            self._ask_at = now + CALLBACK_GRACE
        self._last = reading
        return _NOTHING

    def _read_says_done(self, reading: Reading, now: float) -> Orders:
        if self._restarted(reading):
            return self._lose_by_restart(now)
        untold = self._callback_back and not self._callback_tells
        if untold and self._busy is None and self.before is not None and reading.stamp == self.before.stamp:
            return self._fail(
                FlightRefused,
                now,
                "the put of Busy left no trace in the record: was it refused (DISP, or access security), "
                "or do its stamps stand still?",
            )
        if self._done is None or self._busy_by_read:
            self.timeline.mark("done", now, reading.stamp)
        return self._finish(now)

    def _restarted(self, reading: Reading) -> bool:
        """Whether this Done is of an IOC that was started anew, where nobody told of the loss."""
        if self._callback_tells or not self._callback_back or self._busy is None or self.before is None:
            return False
        return self._stamps_move and reading.stamp in (NEVER, self.before.stamp)

    def _lose_by_restart(self, now: float) -> Orders:
        why = "the record says a Done of before the flight, its IOC was restarted: fly again"
        return self._fail(FlightLost, now, why)

    def _see_busy(self, reading: Reading, now: float) -> None:
        self._busy, self._busy_stamp, self._busy_by_read = reading, reading.stamp, False
        self._in_doubt_since = None
        self._begun = True
        moved = self._stamps_move = self.before is None or reading.stamp != self.before.stamp
        self._set_back = self.before is not None and reading.stamp < self.before.stamp
        self.timeline.stamps_stand_still = not moved
        self.timeline.mark("busy", now, reading.stamp if moved else None)
        self.timeline.t0_note = (
            "IOC stamp of Busy" if moved else "client's time of the put: the IOC's stamps stand still"
        )
        self._enter(State.FLYING, now)

    def _forget_done(self) -> None:
        self._done, self._ask_at, self._in_doubt_since = None, None, None
        self.timeline.forget("done")

    def _weigh(self, now: float) -> Orders:
        """Is the evidence complete? If not, what would complete it?"""
        if self._callback_back and self._done is not None and self._callback_tells and not self._busy_by_read:
            return self._finish(now)
        undecided = self._busy is None or self._done is not None or self._ended is not None
        if undecided and (self._callback_back or (self._rejoined and self._done is not None)):
            return self._read()
        return _NOTHING

    def _read(self) -> Orders:
        if self._read_pending:
            return _NOTHING
        self._read_pending, self._read_is_later, self._ask_at = True, self._callback_back, None
        return (Order.READ,)

    def _finish(self, now: float) -> Orders:
        self._enter(State.FINISHED, now)
        return _VERDICT

    def _finish_the_ended(self, now: float) -> Orders:
        """The record flies again, for somebody else: ours was the flight before."""
        assert self._ended is not None
        times, self.foreign_done = self._ended
        self.timeline.restore(times)
        return self._finish(now)

    def _fail(
        self, kind: type[FlightError], now: float, why: str, *, end: bool = False, at_once: bool = False
    ) -> Orders:
        if self.state is State.NEW:
            self._kickoff_at = self._state_since = now
        over = self._done is not None and self._callback_back
        self.error = kind(f"{self.pv}: {why}{self._circumstances(now, at_once=at_once)}.")
        self.timeline.mark("failed", now)
        self.timeline.error = self.error
        self._enter(State.FAILED, now)
        if not end:
            return _VERDICT
        # First FORGET: a put that is queued behind another client's would start with that Done.
        return (Order.FORGET, Order.FINISH) if over else (Order.FORGET, Order.PUT_DONE, Order.FINISH)

    def _circumstances(self, now: float, *, at_once: bool) -> str:
        last = self._last or self._last_seen
        seen = (
            "nothing"
            if last is None
            else f"{_says(last.value)}, " + ("never processed" if last.stamp == NEVER else f"stamp {dated(last.stamp)}")
        )
        if last is not None and (last.severity or last.alarm):  # to be disabled may be of no severity
            seen += f", alarm severity {last.severity} {last.alarm}"
        if at_once:
            return f"; last seen: {seen}"
        waited = f"{now - self._kickoff_at:.3g} s after kickoff, {self.state.value} for {now - self._state_since:.3g} s"
        return f"; {waited}; last seen: {seen}"

    # Deadlines

    @property
    def _patience(self) -> tuple[str, float]:
        """How long a connection may take on the ground, and by which option."""
        name = "reconnect_timeout" if self.reconnects else "start_timeout"
        return name, getattr(self.options, name)

    def _deadlines(self) -> list[tuple[float, _Deadline]]:
        options, since = self.options, self._state_since
        if self.over or self.state is State.NEW:
            return []
        times: list[tuple[float, _Deadline]] = []
        if options.flight_timeout is not None:
            times.append((self._kickoff_at + options.flight_timeout, self._flight_timeout))
        if self.state is State.CONNECTING:
            times.append((since + self._patience[1], self._no_connection))
        if self.state is State.CLEARING and options.when_busy == "reset":
            times.append((since + options.start_timeout, self._not_cleared))
        if self.state is State.FENCING:
            times.append((since + self._patience[1], self._not_fenced))
        if self.state is State.SETTLING:
            times.append((self.settled_from, lambda now: self._take_off(self._last, now)))
        if self.state is State.LOST:
            times.append((since + options.reconnect_timeout, self._not_back))
        if self.state is State.SENT and not self._callback_back:
            times.append((self._put_at + options.start_timeout, self._no_sign_of_life))
        if self.state in (State.SENT, State.FLYING):
            if self._ask_at is not None and not self._read_pending:
                times.append((self._ask_at, lambda now: self._read()))
            if self._in_doubt_since is not None:
                times.append((self._in_doubt_since + ANSWER_TIMEOUT, self._no_answer))
            if self.awaits_stamps():
                times.append((self._put_at + options.start_timeout, self._no_stamps))
        return times

    def _no_connection(self, now: float) -> Orders:
        name, seconds = self._patience
        what = "the connection was lost before the put of Busy, and not back" if self.reconnects else "not connected"
        return self._fail(
            FlightTimeout, now, f"{what} within {name}={seconds:g} s: is the IOC up, and the PV's name right?"
        )

    def _not_cleared(self, now: float) -> Orders:
        why = self._not_written or "does another client put Busy?"
        return self._fail(
            FlightTimeout,
            now,
            f"Done was put, but the record stayed {self._last and _says(self._last.value)} for "
            f"{self.options.start_timeout:g} s: {why}",
        )

    def _not_fenced(self, now: float) -> Orders:
        name, seconds = self._patience
        arrays = self.awaits_stamps()
        if arrays:
            return self._refuse_for_stamps(now, arrays, name, seconds)
        return self._fail(
            FlightTimeout,
            now,
            f"what this process put before was not served within {name}={seconds:g} s, so "
            "Busy was not put: does the IOC answer, or does a callback of another PV block?",
        )

    def _no_stamps(self, now: float) -> Orders:
        return self._refuse_for_stamps(now, self.awaits_stamps(), "start_timeout", self.options.start_timeout)

    def _refuse_for_stamps(self, now: float, arrays: str, name: str, seconds: float) -> Orders:
        why = f"nobody could tell which arrays are this flight's: {arrays} within {name}={seconds:g} s"
        return self._fail(FlightRefused, now, why, end=self.airborne)

    def _no_sign_of_life(self, now: float) -> Orders:
        return self._time_out(
            now,
            f"no sign of life within start_timeout={self.options.start_timeout:g} s of the put of Busy: "
            "does the IOC answer?",
        )

    def _no_answer(self, now: float) -> Orders:
        return self._time_out(
            now,
            f"maybe over, but no read that would tell was answered within {ANSWER_TIMEOUT:g} s: does the IOC answer?",
        )

    def _flight_timeout(self, now: float) -> Orders:
        return self._time_out(
            now,
            f"not Done within {self._timeout_name}={self.options.flight_timeout:g} s of kickoff: "
            + ("does the controller run, and is that long enough?" if self.airborne else "Busy was not put"),
        )

    def _time_out(self, now: float, why: str) -> Orders:
        end = self.options.on_timeout == "reset" and self.state in (State.SENT, State.FLYING)
        return self._fail(FlightTimeout, now, why, end=end)

    def _not_back(self, now: float) -> Orders:
        return self._fail(
            FlightLost,
            now,
            "the connection was lost in flight and not back within "
            f"reconnect_timeout={self.options.reconnect_timeout:g} s: does the IOC run?",
        )
