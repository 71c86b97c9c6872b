"""Every order of events: flights against a model of the world that they are told about.

`World` knows what is true: a busy record in its IOC, other clients of it, and what is on
its way to us and back. `EveryOrder` lets them act in any order, carries the news to a
`Flight` as its owner would, obeys its orders, and holds each against the truth. Neither
looks inside the flight: they know what it was told and what it answered.
"""

from __future__ import annotations

import enum
import itertools
from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from busy_callback_flyer.engine.errors import (
    FlightAborted,
    FlightError,
    FlightLost,
    FlightRefused,
    FlightTimeout,
)
from busy_callback_flyer.engine.flight import ANSWER_TIMEOUT, CALLBACK_GRACE, Flight, Order, Orders
from busy_callback_flyer.engine.options import Options
from busy_callback_flyer.engine.ports import BUSY, DONE, EPICS_EPOCH, Put, Reading

PV = "prj:mybusy"
CLOCK_OFFSET = 1.6e9  # far from every stamp of the IOC, so that the two clocks cannot be mixed up unseen
IOC_TIME = 1.7e9

TALLY: Counter[str] = Counter()


# What is true


class Kind(enum.Enum):
    """How the record takes a put-callback of Busy."""

    ORDINARY = "back at Done"
    CLEARS_ITSELF = "Done again inside its own processing: no event, and back at once"
    DISABLED = "DISA: back at once, and it stays Busy"
    REFUSING = "DISP: refused"


class Fate(enum.Enum):
    """What truly became of a put-callback of Busy."""

    UNSENT = "not sent"
    SENT = "under way to the IOC"
    QUEUED = "queued behind another client's"
    ALOFT = "flying"
    ENDED = "ended"
    REFUSED = "refused"
    GONE = "gone with the connection before it was served"
    CRASHED = "gone with the IOC"


class Taxi(enum.Enum):
    """What there is to do between the ground and the put."""

    NONE = "none"
    WANTED = "not begun"
    UNDER_WAY = "under way"
    OVER = "over"
    FAILED = "failed"


class AnyPut:
    """A put-callback of Busy, by any client."""

    def __init__(self) -> None:
        self.fate = Fate.UNSENT


class OurFlight(AnyPut):
    """A flight of ours: what it was told, what it ordered, and what it could not know."""

    def __init__(self, options: Options, now: float, known: Reading | None, taxi: Taxi, *, fence: bool) -> None:
        super().__init__()
        self.flight = Flight(PV, options, clock_offset=CLOCK_OFFSET)
        self.flight.taxis = taxi is Taxi.WANTED
        self.flight.needs_fence = self.fence_wanted = fence
        self.fencing_since: float | None = None
        self.taxi = taxi
        self.options = options
        self.known = known
        self.kicked_off_at = self.unconnected_since = now
        self.connection_went = False
        self.missing = ""  # stamps of arrays
        self.flight.awaits_stamps = lambda: self.missing
        self.set_back = False  # the IOC's clock, since the put
        self.cleared_at: float | None = None  # when Done was last written on the ground
        self.changed_at = now  # when the value that is known was first told
        self.put_at: float | None = None
        self.before: Reading | None = None
        self.busy_stamps: list[float] = []
        self.callback: Put | None = None
        self.callback_back = False
        self.callback_at = self.done_at = float("inf")
        self.lost_at: float | None = None
        self.rejoined = False
        self.came_back_changed = False
        self.aborted = False
        self.verdicts = 0

    @property
    def connected_by(self) -> float:
        """When it must be, before the put."""
        options = self.options
        timeout: float = options.reconnect_timeout if self.connection_went else options.start_timeout
        return self.unconnected_since + timeout

    def told(self, reading: Reading, now: float) -> None:
        if self.known is None or self.known.value != reading.value:
            self.changed_at = now
        self.known = reading
        if self.put_at is not None and reading.value == DONE:
            self.done_at = min(self.done_at, now)
        if self.put_at is None and reading.value != DONE:
            self.fencing_since = None  # in vain: it comes anew
        self.read(reading)

    def read(self, reading: Reading, *, asked: bool = False) -> None:
        before = self.before
        back = before is not None and reading.stamp < before.stamp
        still = before is not None and self.busy_stamps[-1:] == [before.stamp]
        late = back and not (asked or self.set_back or still)  # news of an earlier flight, by all that is known
        if self.put_at is not None and reading.value == BUSY and not late:
            self.set_back = self.set_back or back
            if reading.stamp not in self.busy_stamps:
                self.busy_stamps.append(reading.stamp)

    def told_of_loss(self, now: float) -> None:
        if self.put_at is None and self.known is not None:
            self.unconnected_since, self.connection_went = now, True
        if self.put_at is not None and self.lost_at is None:
            self.lost_at = now
        self.known = self.cleared_at = self.fencing_since = None
        self.rejoined = False

    def told_of_return(self, reading: Reading, now: float) -> None:
        if self.lost_at is not None:
            told = reading.value == BUSY and reading.stamp in self.busy_stamps
            moved = self.before is not None and reading.stamp != self.before.stamp
            self.rejoined = told and moved
            # An alarm may have moved the stamp since Busy: then either verdict will do.
            self.came_back_changed = not self.rejoined or len(self.busy_stamps) > 1
            if self.rejoined:
                self.lost_at = None
        self.told(reading, now)


class News(NamedTuple):
    """A monitor event under way; the first of its subscription tells of the connection."""

    first: bool
    reading: Reading


class Answer(NamedTuple):
    """What comes back for a request: a status of the put, or what the read found (None: it failed)."""

    ours: OurFlight
    order: Order
    status: Put = Put.SERVED
    reading: Reading | None = None


class World:
    """A busy record in its IOC, and what is on its way between it and us."""

    def __init__(self, kind: Kind, *, frozen: bool, booted: bool, telling: bool = True) -> None:
        self.kind = kind
        self.telling = telling  # what became of a put: the callback brings its status
        self.frozen = frozen  # TSE=-2 and nobody sets the time
        self.time = IOC_TIME
        self.disp = False  # puts are refused, since somebody wanted that
        self.times_set_back = 0
        self.record = Reading(DONE, EPICS_EPOCH, 3, "UDF") if booted else Reading(DONE, IOC_TIME)
        self.notify: AnyPut | None = None
        self.waiting: deque[AnyPut] = deque()
        self.aloft: list[AnyPut] = []
        self.busies: list[tuple[float, AnyPut | None]] = []  # every Busy, and by whom
        self.up = True
        self.done_since_return = True
        self.requests: deque[tuple[Order, OurFlight]] = deque()
        self.replies: deque[Answer] = deque()  # in the order of the requests
        self.callbacks: list[Answer] = []  # they travel apart from events and replies
        self.events: deque[News] = deque()
        self.at_loss: deque[Answer | None] = deque()  # None: the connection event

    # The IOC

    def put(self, value: int) -> None:
        """A plain put that is not refused, by anybody."""
        if value == BUSY and self.kind is Kind.CLEARS_ITSELF:
            self._process(DONE)
        else:
            self._process(value)
            if value == BUSY:
                self.busies.append((self.record.stamp, None))

    def put_busy_with_callback(self, put: AnyPut) -> None:
        if self.notify is not None:
            put.fate = Fate.QUEUED
            self.waiting.append(put)
            return
        if self.kind is Kind.CLEARS_ITSELF:
            put.fate = Fate.ENDED
            self._process(DONE)
            self._answer(put, Put.SERVED)
        else:
            put.fate = Fate.ALOFT
            self.aloft.append(put)
            if self.kind is Kind.DISABLED:
                self._answer(put, Put.SERVED)
            else:
                self.notify = put
            self._process(BUSY)
        self.busies.append((self.record.stamp, put))

    def alarm(self, severity: int, alarm: str, *, processed: bool) -> None:
        """The record's alarm changes, and its value does not."""
        stamp = self._stamp() if processed else self.record.stamp
        self.record = self.record._replace(severity=severity, alarm=alarm, stamp=stamp)
        self._post()

    def set_back(self, seconds: float) -> None:
        """The clock is set back. Real stamps never meet again by chance; so these do not, either."""
        self.times_set_back += 1
        self.time -= seconds + 0.001 * self.times_set_back

    def _stamp(self) -> float:
        self.time += 0.5
        return self.record.stamp if self.frozen else self.time

    def _process(self, value: int) -> None:
        changed = (value, 0, "") != (self.record.value, self.record.severity, self.record.alarm)
        self.record = Reading(value, self._stamp())
        if changed:
            self._post()
        if value != DONE:
            return
        self.done_since_return = True
        for put in self.aloft:
            put.fate = Fate.ENDED
        self.aloft.clear()
        if self.notify is not None:
            self._answer(self.notify, Put.SERVED)
            self._next_flight()

    def _next_flight(self) -> None:
        self.notify = None
        if self.waiting:
            self.put_busy_with_callback(self.waiting.popleft())

    def _post(self) -> None:
        if self.up:
            self.events.append(News(False, self.record))

    def _answer(self, put: AnyPut, status: Put) -> None:
        if isinstance(put, OurFlight):
            self.callbacks.append(Answer(put, Order.PUT_BUSY, status))

    # Our circuit

    @property
    def under_way(self) -> list[str]:
        """What can be the next to arrive, here or there."""
        wires = {"loss": self.at_loss, "event": self.events, "reply": self.replies, "callback": self.callbacks}
        some = [wire for wire, things in wires.items() if things]
        return [*some, "request"] if self.requests and not self._blocked else some

    @property
    def _blocked(self) -> bool:
        """Whether a second put-callback of ours holds up the circuit behind one that is pending."""
        pending = [self.notify, *self.waiting]
        return self.requests[0][0] is Order.PUT_BUSY and any(isinstance(put, OurFlight) for put in pending)

    def reading(self, ours: OurFlight) -> bool:
        """Whether a read for this flight is under way."""
        asked = (Order.READ, ours) in self.requests
        return asked or any(answer.order is Order.READ and answer.ours is ours for answer in self.replies)

    def request(self, order: Order, ours: OurFlight) -> None:
        if self.up:
            self.requests.append((order, ours))
            if order is Order.PUT_BUSY:
                ours.fate = Fate.SENT
        elif order is Order.PUT_BUSY:
            ours.fate = Fate.GONE
            self.at_loss.append(Answer(ours, order, Put.LOST))
        elif order is Order.READ:
            self.at_loss.append(Answer(ours, order))

    def serve(self) -> None:
        """The IOC takes the next request from the circuit."""
        order, ours = self.requests.popleft()
        if order is Order.READ:
            self.replies.append(Answer(ours, order, reading=self.record))
        elif order is Order.FORGET:
            self.forget(ours)
        elif self.kind is Kind.REFUSING or self.disp:
            if order is Order.PUT_BUSY:
                ours.fate = Fate.REFUSED
            self.replies.append(Answer(ours, order, Put.REFUSED))
        elif order is Order.PUT_BUSY:
            self.put_busy_with_callback(ours)
        else:
            self.put(DONE)

    def forget(self, put: AnyPut) -> None:
        """A channel is closed: its put-callback is cancelled, wherever it is."""
        if put in self.waiting:
            self.waiting.remove(put)
            put.fate = Fate.GONE
        elif self.notify is put:
            self._next_flight()

    def coalesce(self, index: int) -> None:
        """A queued event falls to a newer one."""
        first = self.events[index].first
        del self.events[index]
        self.events[index] = News(first, self.events[index].reading)

    def lose(self, *, crash: bool, order: tuple[int, ...]) -> None:
        """The circuit goes down, with the IOC or without; what was under way on it vanishes."""
        self.up = False
        answered = (Order.PUT_BUSY, Order.READ)
        unserved = [Answer(ours, kind) for kind, ours in self.requests if kind in answered]
        unanswered = [Answer(put, Order.PUT_BUSY) for put in (self.notify, *self.waiting) if isinstance(put, OurFlight)]
        for answer in unserved:
            if answer.order is Order.PUT_BUSY:
                answer.ours.fate = Fate.GONE
        replies = [answer for answer in self.replies if answer.order in answered]
        requested: list[Answer | None] = [*unserved, *unanswered, *replies, *self.callbacks]
        failed = [answer and answer._replace(status=Put.LOST, reading=None) for answer in [*requested, None]]
        turn = dict(zip((Order.PUT_BUSY, Order.READ, None), order, strict=True))
        self.at_loss.extend(sorted(failed, key=lambda answer: turn[answer and answer.order]))
        for wire in (self.requests, self.replies, self.callbacks, self.events):
            wire.clear()
        if crash:
            for put in (*self.aloft, *self.waiting):
                put.fate = Fate.CRASHED
            self.notify = None
            self.aloft.clear()
            self.waiting.clear()
            self.record = Reading(DONE, self.record.stamp if self.frozen else EPICS_EPOCH, 3, "UDF")
            return
        for put in self.waiting:
            if isinstance(put, OurFlight):
                put.fate = Fate.GONE
        self.waiting = deque(put for put in self.waiting if not isinstance(put, OurFlight))
        if isinstance(self.notify, OurFlight):  # the server cancels it, and the record stays Busy
            self._next_flight()

    def come_back(self) -> None:
        self.up = True
        self.events.append(News(True, self.record))
        self.done_since_return = self.record.value == DONE


# What is told, and what must be true then

OPTIONS = st.builds(
    Options,
    when_busy=st.sampled_from(["reset", "wait", "fail"]),
    reset_settle=st.sampled_from([0.1, 0.0, 1.0]),
    start_timeout=st.sampled_from([5.0, 5.0, 5.0, 30.0, 30.0, 30.0, 0.5, 0.0]),
    flight_timeout=st.sampled_from([None, None, None, None, 600.0, 60.0, 3.0, 0.0]),
    on_timeout=st.sampled_from(["reset", "leave"]),
    reconnect_timeout=st.sampled_from([15.0, 2.0, 15.0, 0.0]),
)
ACTS = st.sampled_from(
    ["Done", "Busy", "Busy with callback", "alarm", "alarm, processed", "2", "DISP", "back by 2 s", "back by 20 years"]
)
TAXIS = st.sampled_from([Taxi.NONE, Taxi.NONE, Taxi.NONE, Taxi.WANTED])
SELDOM = st.integers(0, 9).map(lambda number: number == 9)


def record_says(flight: Flight, reading: Reading, now: float, *, quick: bool, rings_in_time: bool = False) -> Orders:
    """As the driver tells it."""
    orders = None
    if quick and reading.value == DONE:
        orders = flight.quick_done(reading, now, rings_in_time=rings_in_time)
    return flight.record_says(reading, now) if orders is None else orders


def put_returned(flight: Flight, put: Put, now: float, *, quick: bool) -> Orders:
    """As the driver tells it."""
    orders = flight.quick_callback(now) if quick and put is Put.SERVED else None
    return flight.put_returned(put, "Channel write request", now) if orders is None else orders


class EveryOrder(RuleBasedStateMachine):
    """One world, and our flights in it, one after another.

    Few rules with many ways each: a run leaves out about half of them, which is good for
    finding what happens when news stays away, and bad for what needs many at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.world = World(Kind.ORDINARY, frozen=False, booted=False)
        self.now = 50.0
        self.cache: Reading | None = None  # the channel's latest news
        self.ours: OurFlight | None = None
        self.loss_untold = False
        self.quick = False  # the quick way comes first
        self.ended_at = -1e9  # a flight, by a Done of ours
        self.was_connected = False

    @initialize(
        kind=st.sampled_from([*[Kind.ORDINARY] * 5, *Kind]),
        frozen=st.sampled_from([False, False, False, True]),
        booted=st.booleans(),
        telling=st.sampled_from([True, True, False]),
        unconnected=SELDOM,
        before=st.sampled_from([(), ("Busy",), ("Busy", "Done"), ("Busy with callback", "Done"), ("alarm",)])
        | st.lists(ACTS, max_size=4).map(tuple),
        options=OPTIONS,
        quick=st.booleans(),
    )
    def begin(
        self,
        kind: Kind,
        frozen: bool,
        booted: bool,
        telling: bool,
        unconnected: bool,
        before: tuple[str, ...],
        options: Options,
        quick: bool,
    ) -> None:
        self.quick = quick
        self.world = World(kind, frozen=frozen, booted=booted, telling=telling)
        self.world.up = not unconnected
        self.cache = None if unconnected else self.world.record
        for act in before:
            self.others_act(act, severity=1)
        self._kickoff(options)

    # The owner

    def _tell(self, ours: OurFlight, say: Callable[[Flight], Orders]) -> None:
        """Tell a flight something, hold its answer against what it knows, and obey."""
        TALLY["witnesses"] += 1
        flight, was_over = ours.flight, ours.flight.over
        orders = say(flight)
        if was_over:
            assert orders == (), f"{orders} after the verdict"
        for order in orders:
            if order is Order.FINISH:
                ours.verdicts += 1
                continue
            if order is Order.FORGET:
                assert ours.put_at is not None, "nothing was put that could be taken back"
                assert Order.FINISH in orders, "the put was taken back without a verdict"
                self.world.request(order, ours)
                continue
            assert ours.known is not None, f"{order} where the connection is known to be lost"
            if order is Order.TAXI:
                assert ours.taxi is Taxi.WANTED, f"a taxi was ordered that is {ours.taxi.value}"
                assert ours.put_at is None, "it taxis in flight"
                assert ours.known.value == DONE, "it taxis while the record is known to be Busy"
                ours.taxi = Taxi.UNDER_WAY
                continue
            if order is Order.FENCE:
                assert ours.fence_wanted, "a fence that nobody needs"
                assert ours.put_at is None, "a fence in flight"
                ours.fencing_since = self.now
                continue
            if order is Order.PUT_BUSY:
                assert not ours.fence_wanted, "Busy was put ahead of what was put before"
                assert ours.taxi in (Taxi.NONE, Taxi.OVER), f"Busy was put while its taxi is {ours.taxi.value}"
                assert ours.put_at is None, "Busy was put twice in one flight"
                assert ours.known.value == DONE, "Busy was put while the record was known to be Busy"
                if ours.cleared_at is not None:
                    settled = ours.changed_at + ours.options.reset_settle
                    assert self.now >= settled, "Busy was put before the controller had settled"
                assert self.now >= self.ended_at + ours.options.reset_settle, (
                    "Busy was put too soon after a Done of ours"
                )
                ours.put_at, ours.before = self.now, ours.known
            elif order is Order.PUT_DONE:
                self._check_put_done(ours, orders)
            else:
                assert ours.put_at is not None, "a read before the put"
                assert not self.world.reading(ours), "a read while another is under way"
            self.world.request(order, ours)
        assert ours.verdicts == int(flight.over), f"{ours.verdicts} verdicts while {flight.state}"
        if flight.over and not was_over:
            TALLY["finished" if flight.finished else type(flight.error).__name__] += 1
            self._check_finished(ours) if flight.finished else self._check_failed(ours)
        ours.came_back_changed = False

    def _check_put_done(self, ours: OurFlight, orders: Orders) -> None:
        if ours.put_at is None:
            assert ours.options.when_busy == "reset", "Done was written into another client's flight"
            assert ours.known is not None
            assert ours.known.value != DONE, "Done was written to a record known to be Done"
            assert not ours.flight.over, "Done was written for a flight that never took off"
            ours.cleared_at = self.now
            return
        assert Order.FINISH in orders, "Done was written in flight without a verdict that asks for it"
        self.ended_at = self.now
        error = ours.flight.error
        timed_out = isinstance(error, FlightTimeout) and ours.options.on_timeout == "reset"
        stampless = isinstance(error, FlightRefused) and ours.missing
        asked_for = timed_out or stampless or isinstance(error, FlightAborted)
        assert asked_for, f"Done was written though nobody asked for it: {error!r}"

    def _check_finished(self, ours: OurFlight) -> None:
        flight = ours.flight
        assert flight.error is None
        assert ours.put_at is not None, "finished before it began"
        assert ours.lost_at is None, "finished after a loss, and not rejoined by the very stamp"
        ended = ours.fate is Fate.ENDED
        if ours.rejoined:
            # The stamp is all that there is to go by; whether our put was ever served nobody can tell.
            TALLY["finished after rejoining"] += 1
            ended = ended or self.world.done_since_return
        if ours.fate is Fate.REFUSED and not self.world.telling:
            # Another's trace in the record cannot be told from ours.
            touched = ours.before is not None and self.world.record.stamp != ours.before.stamp
            ended = touched or bool(self.world.busies)
        assert ended, f"finished, while in truth our put is {ours.fate.value} and the record {self.world.record}"
        assert "done" in flight.timeline
        assert flight.timeline["done"].stamp is not None, "finished, but nobody knows when"
        assert flight.timeline.t0 in (*ours.busy_stamps, ours.put_at + CLOCK_OFFSET), "t0 is of nothing we were told"
        self._check_stamps(ours)

    def _check_stamps(self, ours: OurFlight) -> None:
        """Where nobody else flew, the stamps are those of our flight and of no other."""
        assert ours.put_at is not None
        assert ours.before is not None
        since = ours.before.stamp
        if self.world.times_set_back:
            return
        others = [stamp for stamp, put in self.world.busies if put is not ours and stamp > since]
        if self.world.frozen:
            assert ours.flight.timeline.t0 == ours.put_at + CLOCK_OFFSET
        elif not others and not ours.rejoined and ours.fate is Fate.ENDED:
            (true,) = [stamp for stamp, put in self.world.busies if put is ours]
            TALLY["stamps"] += 1
            told = [stamp for stamp in ours.busy_stamps if stamp >= true]  # the later ones by an alarm
            assert ours.flight.timeline.t0 in (ours.put_at + CLOCK_OFFSET, *told), "t0 is another's"
            done = ours.flight.timeline["done"].stamp
            assert done is not None
            assert done >= true, "the Done of an earlier flight"

    def _check_failed(self, ours: OurFlight) -> None:
        """Nothing fails without cause."""
        error, options, known, put_at = ours.flight.error, ours.options, ours.known, ours.put_at
        overall = options.flight_timeout is not None and self.now >= ours.kicked_off_at + options.flight_timeout
        patience = options.reconnect_timeout if ours.connection_went else options.start_timeout
        stampless = ours.missing and isinstance(error, FlightRefused) and ours.missing in str(error)
        if ours.taxi is Taxi.FAILED:
            assert put_at is None, "it flew after a taxi that failed"
            justified = error is not None and error.__cause__ is not None
        elif isinstance(error, FlightAborted):
            justified = ours.aborted
        elif stampless and put_at is not None:
            justified = self.now >= put_at + options.start_timeout
        elif stampless:
            justified = ours.fencing_since is not None and self.now >= ours.fencing_since + patience
        elif isinstance(error, FlightTimeout) and overall:
            justified = True
        elif isinstance(error, FlightRefused):
            occupied = put_at is None and options.when_busy == "fail" and known is not None and known.value != DONE
            # Where nobody tells, a record that shows no trace of the put counts as refusing.
            traceless = self.world.frozen or ours.fate is Fate.REFUSED
            no_trace = not self.world.telling and ours.callback_back and traceless
            justified = ours.callback == Put.REFUSED or occupied or no_trace
        elif isinstance(error, FlightLost):
            away = ours.lost_at is not None and self.now >= ours.lost_at + options.reconnect_timeout
            justified = away or ours.came_back_changed or (ours.lost_at is not None and not ours.busy_stamps)
        elif put_at is not None:
            # It looked over for long, and no read told.
            late = self.now >= min(ours.callback_at, ours.done_at) + ANSWER_TIMEOUT
            no_sign = not ours.busy_stamps and not ours.callback_back
            justified = late or (no_sign and self.now >= put_at + options.start_timeout)
        elif known is None:
            justified = self.now >= ours.connected_by
        else:
            cleared, fencing = ours.cleared_at, ours.fencing_since
            justified = cleared is not None and self.now >= cleared + options.start_timeout
            justified = justified or (fencing is not None and self.now >= fencing + patience)
        assert justified, f"failed without cause: {error!r}"
        check_message(error)

    # Who acts

    def _kickoff(self, data: st.DataObject | Options, *, news_under_way: bool = False) -> None:
        world = self.world
        if self.loss_untold:  # the channel would look connected, and nothing would ever tell otherwise
            return
        if world.kind is Kind.DISABLED and (world.events or world.requests):
            # Where a callback proves nothing, another's Busy and Done that are late cannot be told from ours.
            return
        if news_under_way and world.events:  # the channel has it, and is about to tell the flight
            self.cache = world.events[0].reading
        last = self.cache
        options = data if isinstance(data, Options) else data.draw(OPTIONS, label="options")
        taxi = data.draw(TAXIS, label="taxi") if isinstance(data, st.DataObject) else Taxi.NONE
        fence = isinstance(data, st.DataObject) and data.draw(st.booleans(), label="fence")
        self.ours = ours = OurFlight(options, self.now, last, taxi, fence=fence)
        self.was_connected = self.was_connected or last is not None
        ours.flight.reconnects = ours.connection_went = self.was_connected and last is None
        ours.flight.settled_from = self.ended_at + options.reset_settle
        if isinstance(data, st.DataObject) and data.draw(SELDOM, label="stamps missing"):
            ours.missing = "prj:x_array does not answer"
        self._tell(ours, lambda flight: flight.kickoff(self.now, last))

    @rule(
        act=st.sampled_from(["time", "ring", "deadline", "deadline"]),
        patience=st.sampled_from([0.001, CALLBACK_GRACE, 1.0, CALLBACK_GRACE, 1.0, 20.0]),
        abort=SELDOM,
        news_under_way=st.booleans(),
        data=st.data(),
    )
    def owner_acts(self, act: str, patience: float, abort: bool, news_under_way: bool, data: st.DataObject) -> None:
        """Time passes, the alarm clock rings (early, late, for nothing, in time), the next flight starts."""
        ours = self.ours
        if ours is None or ours.flight.over:
            self._kickoff(data, news_under_way=news_under_way)
        elif abort:
            self._abort(ours)
        elif act == "ring":
            self._ring(ours)
        elif act == "time":
            self.now += patience
        else:
            due = ours.flight.next_deadline
            if due is not None and due <= self.now + patience:
                self._next_deadline(ours)

    @rule(failure=st.sampled_from([None, None, FlightTimeout("of the taxi"), ConnectionError("whatever")]))
    def taxi_ends(self, failure: Exception | None) -> None:
        """Also one that nobody asked for, or that is over already: that is no news."""
        if self.ours is not None:
            self._taxi_ends(self.ours, failure)

    def _taxi_ends(self, ours: OurFlight, failure: Exception | None = None) -> None:
        if ours.taxi is Taxi.UNDER_WAY:
            TALLY["taxis"] += 1
            ours.taxi = Taxi.OVER if failure is None else Taxi.FAILED
            ours.unconnected_since = max(ours.unconnected_since, self.now)  # before, nobody looked
        if failure is None:
            self._tell(ours, lambda flight: flight.taxi_over(self.now))
        else:
            self._tell(ours, lambda flight: flight.taxi_failed(failure, self.now))

    @rule()
    def fence_passes(self) -> None:
        """One that was asked for, and not in vain."""
        if self.ours is not None:
            self._fence_passes(self.ours)

    @rule()
    def stamps_come(self) -> None:
        """Late, but they do."""
        if self.ours is not None:
            self.ours.missing = ""

    def _fence_passes(self, ours: OurFlight) -> None:
        if ours.fencing_since is not None:
            ours.fence_wanted, ours.fencing_since = False, None
            TALLY["fences"] += 1
            self._tell(ours, lambda flight: flight.fence_passed(self.now))

    def _abort(self, ours: OurFlight) -> None:
        ours.aborted = True
        self._tell(ours, lambda flight: flight.abort(self.now))

    def _ring(self, ours: OurFlight) -> None:
        self._tell(ours, lambda flight: flight.deadline(self.now))

    def _next_deadline(self, ours: OurFlight) -> None:
        """What comes due is done with after a few rings, or an alarm clock would ring for ever."""
        due = ours.flight.next_deadline
        assert due is not None
        self.now = max(self.now, due)
        for _ in range(4):
            self._ring(ours)
            due = ours.flight.next_deadline
            if due is None or due > self.now:
                return
        pytest.fail(f"a deadline stays in the past: {due} at {self.now}, {ours.flight.state}")

    @rule(act=ACTS | st.just("Done"), severity=st.integers(0, 3))
    def others_act(self, act: str, severity: int) -> None:
        """Other clients: the controller at the end of a flight, ours or one that was reset, or an operator."""
        world = self.world
        if act == "Done":
            world.put(DONE)
        elif act.startswith("alarm"):
            world.alarm(severity, "LINK", processed=act != "alarm")
        elif act.startswith("back"):
            world.set_back(2.0 if act.endswith("2 s") else 20 * 365 * 86400.0)
        elif act == "DISP":
            world.disp = not world.disp
        elif act == "2":
            if world.kind is Kind.ORDINARY:
                world.put(2)
        elif world.kind is Kind.DISABLED:
            pass  # their Busy would be no event either
        elif act == "Busy":
            world.put(BUSY)
        else:
            world.put_busy_with_callback(AnyPut())

    # What travels

    @rule(data=st.data(), fault=SELDOM)
    def something_travels(self, data: st.DataObject, fault: bool) -> None:
        world = self.world
        what = [*world.under_way, "coalescing"] if len(world.events) > 1 else world.under_way
        if not what:
            return
        chosen = data.draw(st.sampled_from(what))
        if chosen == "coalescing":
            world.coalesce(data.draw(st.integers(0, len(world.events) - 2)))
        else:
            self._travels(chosen, fault=fault)

    @rule(
        first=st.sampled_from(["event", "callback", "reply", "request"]),
        late=st.sampled_from(["nothing", "callback", "event", "reply"]),
        most=st.sampled_from([99, 4, 2]),
        data=st.data(),
    )
    def much_travels(self, first: str, late: str, most: int, data: st.DataObject) -> None:
        """Much that is under way arrives, and the next flight starts: deep states are far, step by step."""
        self._all_arrives(first, late, most)
        if self.ours is None or self.ours.flight.over:
            self._kickoff(data)

    def _all_arrives(self, first: str = "loss", late: str = "nothing", most: int = 99) -> None:
        for _ in range(most):
            under_way = [what for what in self.world.under_way if what != late]
            if not under_way:
                return
            self._travels(first if first in under_way else under_way[0])

    def _travels(self, what: str, *, fault: bool = False) -> None:
        """One thing arrives; with a fault an event comes twice, a read fails or a callback is swallowed."""
        world = self.world
        if what == "request":
            world.serve()
        elif what == "event":
            news = world.events.popleft()
            if fault:
                world.events.appendleft(News(False, news.reading))
            self._event_arrives(news)
        elif what == "loss":
            answer = world.at_loss.popleft()
            if answer is None:
                self._loss_arrives()
            elif not (fault and answer.order is Order.READ):
                self._answer_arrives(answer)
        elif what == "callback":
            answer = world.callbacks.pop(0)
            if not fault:
                self._answer_arrives(answer)
        else:
            answer = world.replies.popleft()
            self._answer_arrives(answer._replace(reading=None) if fault else answer)

    def _event_arrives(self, news: News) -> None:
        self.cache = news.reading
        ours = self.ours
        if ours is None:
            return
        if news.first:
            ours.told_of_return(news.reading, self.now)
            self._tell(ours, lambda flight: flight.connected(news.reading, self.now))
        else:
            ours.told(news.reading, self.now)
            self._tell(ours, lambda flight: record_says(flight, news.reading, self.now, quick=self.quick))

    def _answer_arrives(self, answer: Answer) -> None:
        ours, reading = answer.ours, answer.reading
        if answer.order is Order.PUT_BUSY:
            ours.callback = status = answer.status if self.world.telling else Put.UNTOLD
            ours.callback_back, ours.callback_at = True, self.now
            if status == Put.LOST:
                ours.told_of_loss(self.now)
            self._tell(ours, lambda flight: put_returned(flight, status, self.now, quick=self.quick))
            return
        if answer.order is Order.PUT_DONE:
            TALLY["refused Done"] += 1
            self._tell(ours, lambda flight: flight.done_not_written("refused", self.now))
            return
        if reading is not None:
            ours.read(reading, asked=True)
            if self.cache is not None and reading.stamp >= self.cache.stamp:
                self.cache = reading
        self._tell(ours, lambda flight: flight.read_answers(reading, self.now))

    def _loss_arrives(self) -> None:
        self.cache = None
        if self.ours is not None:
            self.ours.told_of_loss(self.now)
            self._tell(self.ours, lambda flight: flight.connection_lost(self.now))

    @rule(
        how=st.sampled_from(["goes", "IOC goes", "blinks", "blinks", "nothing"]),
        order=st.sampled_from(list(itertools.permutations(range(3)))),
        callback_only=SELDOM,
    )
    def connection_changes(self, how: str, order: tuple[int, ...], callback_only: bool) -> None:
        world = self.world
        if not world.up:
            self._connection_comes()
        elif how != "nothing":
            world.lose(crash=how == "IOC goes", order=order)
            told = [answer for answer in world.at_loss if answer is not None and answer.order is Order.PUT_BUSY]
            if callback_only and world.telling and any(answer.ours is self.ours for answer in told):
                world.at_loss.remove(None)
                self.loss_untold = True
            if how == "blinks":
                self._all_arrives()
                self._connection_comes()

    def _connection_comes(self) -> None:
        if not self.world.at_loss:  # libca tells all of the loss first
            self.world.come_back()
            self.loss_untold = False

    # What holds at every moment

    @invariant()
    def never_silent(self) -> None:
        TALLY["steps"] += 1
        ours, world = self.ours, self.world
        if ours is None or ours.flight.over:
            return
        options, due = ours.options, ours.flight.next_deadline
        if due is None:
            allowed = options.when_busy == "wait" if ours.put_at is None else options.flight_timeout is None
            lasts = ours.taxi is Taxi.UNDER_WAY or (world.up and world.record.value != DONE and allowed)
            assert world.under_way or lasts, (
                f"silent for ever: {ours.flight.state}, in truth {world.record}, up: {world.up}"
            )
        for what, limit in self._limits(ours):
            assert due is not None, f"{what} is not watched: {ours.flight.state}"
            assert due <= limit, f"{what} is watched too late: {due} instead of {limit}"

    def _limits(self, ours: OurFlight) -> list[tuple[str, float]]:
        """When the verdict must fall at the latest, as things stand."""
        options, limits = ours.options, []
        if options.flight_timeout is not None:
            limits.append(("the flight", ours.kicked_off_at + options.flight_timeout))
        if ours.put_at is None:
            if ours.known is None and ours.taxi is not Taxi.UNDER_WAY:
                limits.append(("connecting", ours.connected_by))
            return limits
        if ours.missing and ours.lost_at is None:
            limits.append(("stamps of arrays", ours.put_at + options.start_timeout))
        if ours.lost_at is not None:
            limits.append(("reconnecting", ours.lost_at + options.reconnect_timeout))
        elif not ours.busy_stamps and not ours.callback_back:
            limits.append(("a sign of life", ours.put_at + options.start_timeout))
        return limits

    def teardown(self) -> None:
        """When the world has come to rest on a live connection, the flight is over."""
        ours, world = self.ours, self.world
        if ours is None:
            return
        for _ in range(50):
            self._all_arrives()
            if not world.up:
                self._connection_comes()
            elif world.record.value != DONE:
                world.put(DONE)
            elif ours.taxi is Taxi.UNDER_WAY:
                self._taxi_ends(ours)
            elif ours.fencing_since is not None:
                self._fence_passes(ours)
            elif ours.flight.over or ours.flight.next_deadline is None:
                break
            else:
                self._next_deadline(ours)
        assert ours.flight.over, f"all is at rest, and the flight still is {ours.flight.state}"
        self._abort(ours)


def check_message(error: FlightError | None) -> None:
    """An error names the PV, what was awaited, and how long."""
    text = str(error)
    assert text.startswith(f"{PV}: "), text
    assert " s after kickoff, waiting for " in text or "when_busy='fail'" in text, text  # that is refused at once
    assert "last seen: " in text, text


PROFILE = settings(
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)
SEEN = (
    "finished",
    "finished after rejoining",
    "taxis",
    "fences",
    "refused Done",
    *(kind.__name__ for kind in FlightError.__subclasses__()),
)


@pytest.mark.timeout(3600)  # a failure is made small before it is shown, which takes its time
@pytest.mark.parametrize(
    ("examples", "length", "steps", "of_each"),
    [
        (500, 50, 7_000, 0),  # too few for the rarest
        pytest.param(1_500, 50, 20_000, 10, marks=pytest.mark.slow),
        pytest.param(2_500, 60, 100_000, 10, marks=pytest.mark.slow),
    ],
)
def test_every_order_of_events(examples: int, length: int, steps: int, of_each: int) -> None:
    TALLY.clear()
    profile = settings(PROFILE, max_examples=examples, stateful_step_count=length)
    run_state_machine_as_test(EveryOrder, settings=profile)
    assert TALLY["steps"] >= steps, TALLY
    assert not [verdict for verdict in SEEN if TALLY[verdict] < of_each], f"hardly any of these came about: {TALLY}"


# One ordinary flight, in every order that its news can take

BEFORE, BUSY_SEEN, DONE_SEEN = Reading(DONE, IOC_TIME), Reading(BUSY, IOC_TIME + 1), Reading(DONE, IOC_TIME + 2)
ORDERS = [
    order
    for order in itertools.permutations(("busy", "done", "callback", "answer"))
    if order.index("busy") < order.index("done") and order.index("callback") < order.index("answer")
]


@settings(derandomize=True, deadline=None)
@given(
    order=st.sampled_from(ORDERS),
    pauses=st.lists(st.floats(1e-6, 2.0), min_size=4, max_size=4),
    noise=st.lists(st.sampled_from(["nothing", "again", "alarm", "ring"]), min_size=4, max_size=4),
)
def test_an_ordinary_flight_finishes_once(order: tuple[str, ...], pauses: list[float], noise: list[str]) -> None:
    """The callback comes before, between or after the events, and the read that it may cause when it likes."""
    flight = Flight(PV, clock_offset=CLOCK_OFFSET)
    now, last, asked = 10.0, BEFORE, False
    told = [*flight.kickoff(now, last)]
    busy_seen_first = False
    for news, pause, disturbance in zip(order, pauses, noise, strict=True):
        now += pause
        orders: Orders = ()
        if news == "callback":
            orders = flight.put_returned(Put.SERVED, "", now)
        elif news == "answer":
            orders = flight.read_answers(DONE_SEEN, now) if asked else ()
        else:
            last = BUSY_SEEN if news == "busy" else DONE_SEEN
            busy_seen_first = busy_seen_first or not flight.over
            orders = flight.record_says(last, now)
        asked = asked or Order.READ in orders
        told += orders
        if disturbance == "again":
            told += flight.record_says(last, now)
        elif disturbance == "alarm":
            told += flight.record_says(last._replace(severity=2, alarm="LINK"), now)
        elif disturbance == "ring":
            told += flight.deadline(now)
        asked = asked or Order.READ in told
    assert flight.finished
    assert told.count(Order.FINISH) == 1
    assert told.count(Order.PUT_BUSY) == 1
    assert Order.PUT_DONE not in told
    assert flight.timeline.t0 == (BUSY_SEEN.stamp if busy_seen_first else 10.0 + CLOCK_OFFSET)


# What no world would tell

WITNESSES: dict[str, Callable[[Flight, Reading, float], Orders]] = {
    "event": lambda flight, reading, now: flight.record_says(reading, now),
    "connected": lambda flight, reading, now: flight.connected(reading, now),
    "lost": lambda flight, reading, now: flight.connection_lost(now),
    "read": lambda flight, reading, now: flight.read_answers(reading, now),
    "read failed": lambda flight, reading, now: flight.read_answers(None, now),
    "put back": lambda flight, reading, now: flight.put_returned(Put.SERVED, "", now),
    "put refused": lambda flight, reading, now: flight.put_returned(Put.REFUSED, "refused", now),
    "put disconnected": lambda flight, reading, now: flight.put_returned(Put.LOST, "disconnected", now),
    "deadline": lambda flight, reading, now: flight.deadline(now),
    "abort": lambda flight, reading, now: flight.abort(now),
    "refuse": lambda flight, reading, now: flight.refuse(now, "it is no busy record"),
}
READINGS = st.builds(
    Reading,
    value=st.sampled_from([DONE, BUSY]),
    stamp=st.sampled_from([EPICS_EPOCH, IOC_TIME, IOC_TIME + 1]),
    severity=st.integers(0, 3),
    alarm=st.sampled_from(["", "LINK"]),
)


@settings(max_examples=500, derandomize=True, deadline=None)
@given(
    options=OPTIONS,
    last=st.none() | READINGS,
    witnesses=st.lists(st.tuples(st.sampled_from(sorted(WITNESSES)), READINGS, st.floats(0, 8)), max_size=40),
)
def test_whatever_it_is_told(
    options: Options, last: Reading | None, witnesses: list[tuple[str, Reading, float]]
) -> None:
    """A flight gives one verdict and is silent then, however absurd the news; never finished on less than evidence."""
    flight, now = Flight(PV, options), 0.0
    told = [*flight.kickoff(now, last)]
    read_under_way = False
    evidence = {"put back": False, "Done read": False}
    for name, reading, pause in witnesses:
        now += pause
        over = flight.over
        if name == "put back" or (name == "read" and reading.value == DONE):
            evidence["put back" if name == "put back" else "Done read"] |= Order.PUT_BUSY in told
        orders = WITNESSES[name](flight, reading, now)
        assert not (over and orders)
        if name in ("read", "read failed", "lost", "put disconnected"):
            read_under_way = False
        if Order.READ in orders:
            assert not read_under_way, "a read while another is under way"
            read_under_way = True
        told += orders
    assert told.count(Order.FINISH) == int(flight.over)
    assert told.count(Order.PUT_BUSY) <= 1
    if flight.finished:
        assert any(evidence.values())
    elif flight.over:
        check_message(flight.error)


@settings(max_examples=1000, derandomize=True, deadline=None)
@given(
    options=OPTIONS,
    last=st.none() | READINGS,
    witnesses=st.lists(
        st.tuples(
            st.sampled_from([*sorted(WITNESSES), *["event", "put back"] * 5]), READINGS, st.floats(0, 1), st.booleans()
        ),
        max_size=30,
    ),
)
def test_the_quick_way_gives_what_the_other_gives(
    options: Options, last: Reading | None, witnesses: list[tuple[str, Reading, float, bool]]
) -> None:
    """After every piece of news: the same orders, state, deadline, verdict and timeline."""
    quick, other, now = Flight(PV, options), Flight(PV, options), 0.0
    assert quick.kickoff(now, last) == other.kickoff(now, last)
    for name, reading, pause, rings_in_time in witnesses:
        now += pause
        if name == "event":
            orders = record_says(quick, reading, now, quick=True, rings_in_time=rings_in_time)
        elif name == "put back":
            orders = put_returned(quick, Put.SERVED, now, quick=True)
        else:
            orders = WITNESSES[name](quick, reading, now)
        assert orders == WITNESSES[name](other, reading, now)
        assert quick.state is other.state
        assert quick.next_deadline == other.next_deadline
        assert str(quick.error) == str(other.error)
        assert str(quick.timeline) == str(other.timeline)
        assert list(quick.timeline) == list(other.timeline)


STEPS_OF_NEWS: list[tuple[str, Reading]] = [
    ("event", Reading(BUSY, IOC_TIME + 1)),
    ("event", Reading(DONE, IOC_TIME + 2)),
    ("event", Reading(BUSY, IOC_TIME + 3)),
    ("event", Reading(DONE, IOC_TIME + 4)),
    ("put back", BEFORE),
    ("read", Reading(BUSY, IOC_TIME + 1)),
    ("read", Reading(DONE, IOC_TIME + 2)),
    ("deadline", BEFORE),
]


def fly_both_ways(steps: tuple[tuple[str, Reading], ...], *, rings_in_time: bool) -> None:
    quick, other, now = Flight(PV), Flight(PV), 0.0
    assert quick.kickoff(now, BEFORE) == other.kickoff(now, BEFORE)
    for name, reading in steps:
        now += 0.07
        if name == "event":
            orders = record_says(quick, reading, now, quick=True, rings_in_time=rings_in_time)
        elif name == "put back":
            orders = put_returned(quick, Put.SERVED, now, quick=True)
        else:
            orders = WITNESSES[name](quick, reading, now)
        assert orders == WITNESSES[name](other, reading, now), steps
        assert (quick.state, quick.next_deadline) == (other.state, other.next_deadline), steps
    assert list(quick.timeline) == list(other.timeline), steps


@pytest.mark.parametrize("length", [4, pytest.param(6, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_the_quick_way_in_every_order_of_so_many_news(length: int) -> None:
    for number, steps in enumerate(itertools.product(STEPS_OF_NEWS, repeat=length)):
        fly_both_ways(steps, rings_in_time=number % 2 == 0)


@settings(derandomize=True, deadline=None)
@given(kicked_off_at=st.floats(0, 1e6), waited=st.floats(0.001, 1e4), way=st.sampled_from(["abort", "refuse", "put"]))
def test_an_error_says_how_long(kicked_off_at: float, waited: float, way: str) -> None:
    flight = Flight(PV)
    flight.kickoff(kicked_off_at, BEFORE)
    now = kicked_off_at + waited
    if way == "abort":
        flight.abort(now)
    elif way == "refuse":
        flight.refuse(now, "it is no busy record")
    else:
        flight.put_returned(Put.REFUSED, "refused", now)
    check_message(flight.error)
    assert f"; {now - kicked_off_at:.3g} s after kickoff" in str(flight.error)


# Sequences that the model brought to light, made small


def sent() -> Flight:
    flight = Flight(PV)
    assert flight.kickoff(0.0, BEFORE) == (Order.PUT_BUSY,)
    return flight


def test_a_stamp_that_stands_still_is_nothing_to_know_a_flight_by() -> None:
    flight = sent()
    frozen = BEFORE._replace(value=BUSY)
    flight.record_says(frozen, 0.1)
    flight.connection_lost(1.0)
    assert flight.connected(frozen, 3.0) == (Order.FINISH,)
    assert type(flight.error) is FlightLost


def test_a_wait_behind_another_flight_does_not_shorten_that_for_the_connection() -> None:
    flight = Flight(PV, Options(when_busy="wait", start_timeout=5.0))
    flight.kickoff(0.0, BUSY_SEEN)
    flight.connection_lost(100.0)
    assert flight.next_deadline == 115.0, "reconnect_timeout"
    assert flight.deadline(105.1) == ()
    assert flight.connected(DONE_SEEN, 110.0) == (Order.PUT_BUSY,)


def test_a_read_that_fails_where_busy_was_unseen_is_tried_again() -> None:
    flight = sent()
    assert flight.put_returned(Put.SERVED, "", 0.1) == (Order.READ,)
    flight.read_answers(None, 0.2)
    assert flight.next_deadline == pytest.approx(0.2 + CALLBACK_GRACE)
    assert flight.deadline(0.4) == (Order.READ,)
    assert flight.read_answers(DONE_SEEN, 0.5) == (Order.FINISH,)


def test_a_done_event_that_overtakes_the_answer_of_a_read_counts_where_busy_was_unseen() -> None:
    flight = sent()
    assert flight.put_returned(Put.SERVED, "", 0.1) == (Order.READ,)
    flight.record_says(DONE_SEEN, 0.2)
    flight.read_answers(BUSY_SEEN, 0.3)
    assert flight.next_deadline == pytest.approx(0.3 + CALLBACK_GRACE)
    assert flight.deadline(0.5) == (Order.READ,)
    assert flight.read_answers(DONE_SEEN, 0.6) == (Order.FINISH,)


def test_a_done_event_that_overtakes_the_answer_of_a_read_counts_in_flight() -> None:
    """Another's flight ended just after our put went out; ours is over before the answer is here."""
    flight = sent()
    flight.record_says(BUSY_SEEN, 0.1)
    flight.record_says(DONE_SEEN, 0.2)
    assert flight.deadline(0.2 + CALLBACK_GRACE) == (Order.READ,)
    flight.record_says(DONE_SEEN._replace(stamp=DONE_SEEN.stamp + 2), 0.4)
    flight.read_answers(DONE_SEEN._replace(value=BUSY, stamp=DONE_SEEN.stamp + 1), 0.5)
    assert flight.next_deadline == pytest.approx(0.5 + CALLBACK_GRACE)
    assert flight.deadline(0.7) == (Order.READ,)


def test_a_late_alarm_of_the_record_on_the_ground_does_not_finish_a_flight_known_by_a_read() -> None:
    """DISA: the callback is back at once and proves nothing."""
    flight = sent()
    assert flight.put_returned(Put.SERVED, "", 0.1) == (Order.READ,)
    flight.read_answers(BUSY_SEEN, 0.2)
    flight.record_says(BEFORE._replace(severity=1), 0.3)
    assert not flight.over
    flight.read_answers(BUSY_SEEN, 0.4)
    flight.record_says(BUSY_SEEN, 0.5)
    assert flight.record_says(DONE_SEEN, 1.0) == (Order.FINISH,)


def test_a_read_that_vanished_with_its_connection_is_not_waited_for() -> None:
    flight = sent()
    flight.record_says(BUSY_SEEN, 0.1)
    flight.record_says(DONE_SEEN, 0.2)
    assert flight.deadline(0.2 + CALLBACK_GRACE) == (Order.READ,)
    flight.connection_lost(0.5)
    flight.connected(BUSY_SEEN, 1.0)
    assert flight.record_says(DONE_SEEN, 2.0) == (Order.READ,)
