"""The flight's rules, one by one: no EPICS, no waiting."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from busy_callback_flyer.channels.epics import alarm_text
from busy_callback_flyer.engine import flight as flight_module
from busy_callback_flyer.engine.errors import FlightAborted, FlightError, FlightLost, FlightRefused, FlightTimeout
from busy_callback_flyer.engine.flight import ANSWER_TIMEOUT, CALLBACK_GRACE, Flight, Order, State
from busy_callback_flyer.engine.options import Options
from busy_callback_flyer.engine.ports import BUSY, DONE, EPICS_EPOCH, NEVER, Put, Reading
from busy_callback_flyer.engine.timeline import STEPS, dated

GROUND = Reading(DONE, 1000.0)
BUSY_SEEN = Reading(BUSY, 1001.0)
DONE_SEEN = Reading(DONE, 1002.0)


def launched(last: Reading | None = GROUND, **options: Any) -> Flight:
    flight = Flight("prj:mybusy", Options(**options))
    orders = flight.kickoff(0.0, last)
    if last is GROUND:
        assert orders == (Order.PUT_BUSY,)
    return flight


def flying(**options: Any) -> Flight:
    flight = launched(**options)
    assert flight.record_says(BUSY_SEEN, 0.1) == ()
    assert flight.state is State.FLYING
    return flight


def assert_failed(flight: Flight, kind: type[FlightError], *words: str) -> None:
    assert flight.over
    assert not flight.finished
    assert type(flight.error) is kind
    for word in ("prj:mybusy", *words):
        assert word in str(flight.error)


# Rule 1: finished by evidence only


def test_callback_then_done_finishes_once() -> None:
    flight = flying()
    assert flight.put_returned(Put.SERVED, "", 1.0) == ()
    assert not flight.over
    assert flight.record_says(DONE_SEEN, 1.1) == (Order.FINISH,)
    assert flight.finished
    assert flight.record_says(BUSY_SEEN, 1.2) == ()
    assert flight.record_says(DONE_SEEN, 1.3) == ()
    assert flight.put_returned(Put.SERVED, "", 1.4) == ()
    assert flight.connection_lost(1.5) == ()
    assert flight.abort(1.6) == ()
    assert flight.finished


def test_done_then_callback_finishes() -> None:
    flight = flying()
    assert flight.record_says(DONE_SEEN, 1.0) == ()
    assert not flight.over
    assert flight.put_returned(Put.SERVED, "", 1.05) == (Order.FINISH,)
    assert flight.finished


def test_done_event_without_busy_is_no_evidence() -> None:
    flight = launched()
    assert flight.record_says(DONE_SEEN, 0.1) == ()
    assert not flight.over
    assert flight.put_returned(Put.SERVED, "", 0.2) == (Order.READ,), "only a read may tell"


def test_alarm_change_alone_is_no_evidence() -> None:
    flight = flying()
    assert flight.put_returned(Put.SERVED, "", 0.5) == ()
    assert flight.record_says(BUSY_SEEN._replace(severity=2, stamp=1001.5), 0.6) == ()
    assert not flight.over
    grounded = launched()
    assert grounded.record_says(GROUND._replace(severity=3), 0.1) == ()
    assert grounded.state is State.SENT


def test_callback_without_busy_is_decided_by_a_read() -> None:
    flight = launched()
    assert flight.put_returned(Put.SERVED, "", 0.1) == (Order.READ,)
    assert flight.read_answers(DONE_SEEN, 0.2) == (Order.FINISH,)
    assert flight.finished
    assert flight.timeline["done"].stamp == DONE_SEEN.stamp


def test_read_that_answers_busy_means_flying() -> None:
    flight = launched()
    flight.put_returned(Put.SERVED, "", 0.1)
    assert flight.read_answers(BUSY_SEEN, 0.2) == ()
    assert flight.state is State.FLYING
    assert flight.record_says(BUSY_SEEN, 0.3) == ()
    assert flight.record_says(DONE_SEEN, 1.0) == (Order.FINISH,)


def test_failed_read_is_no_evidence() -> None:
    flight = launched()
    flight.put_returned(Put.SERVED, "", 0.1)
    assert flight.read_answers(None, 0.2) == ()
    assert not flight.over


def test_done_with_callback_pending_is_decided_by_a_read_after_grace() -> None:
    flight = flying()
    flight.record_says(DONE_SEEN, 1.0)
    assert flight.next_deadline == pytest.approx(1.0 + CALLBACK_GRACE)
    assert flight.deadline(1.0 + CALLBACK_GRACE / 2) == ()
    assert flight.deadline(1.0 + CALLBACK_GRACE) == (Order.READ,)
    assert flight.read_answers(DONE_SEEN, 1.2) == (Order.FINISH,)


def test_failed_read_after_grace_is_tried_again_later() -> None:
    flight = flying()
    flight.record_says(DONE_SEEN, 1.0)
    flight.deadline(1.1)
    assert flight.next_deadline == pytest.approx(1.0 + ANSWER_TIMEOUT), "one read at a time"
    flight.read_answers(None, 1.2)
    assert flight.next_deadline == pytest.approx(1.2 + CALLBACK_GRACE)
    flight.connection_lost(1.25)
    assert flight.next_deadline == pytest.approx(1.25 + 15), "there is nobody to read from"


def test_read_overtaken_by_done_is_asked_again() -> None:
    """The answer Busy comes after a Done event that is newer: nobody would tell again."""
    flight = flying()
    flight.record_says(DONE_SEEN, 1.0)
    flight.deadline(1.1)
    assert flight.read_answers(BUSY_SEEN, 1.2) == ()
    assert flight.deadline(1.2 + CALLBACK_GRACE) == (Order.READ,)
    assert flight.read_answers(DONE_SEEN, 1.4) == (Order.FINISH,)


def test_done_event_behind_a_read_that_answered_busy_is_checked() -> None:
    """Events may lag behind reads: that Done can be from before our put."""
    flight = launched()
    flight.put_returned(Put.SERVED, "", 0.1)
    assert flight.read_answers(BUSY_SEEN, 0.2) == ()
    assert flight.record_says(Reading(DONE, 1000.5), 0.3) == (Order.READ,)
    assert not flight.over


def test_failed_read_is_tried_again_where_busy_is_unseen() -> None:
    flight = launched()
    flight.put_returned(Put.SERVED, "", 0.1)
    flight.read_answers(None, 0.2)
    assert flight.deadline(0.2 + CALLBACK_GRACE) == (Order.READ,)


def test_stamps_that_stand_still_identify_no_flight() -> None:
    flight = launched()
    still = Reading(BUSY, GROUND.stamp)
    flight.record_says(still, 0.1)
    flight.connection_lost(1.0)
    assert flight.connected(still, 2.0) == (Order.FINISH,)
    assert_failed(flight, FlightLost)


def test_done_of_another_client_does_not_finish() -> None:
    flight = flying()
    flight.record_says(DONE_SEEN, 1.0)
    flight.deadline(1.0 + CALLBACK_GRACE)
    assert flight.read_answers(Reading(BUSY, 1002.5), 1.2) == ()
    assert not flight.over
    assert "done" not in flight.timeline
    flight.record_says(Reading(BUSY, 1002.5), 1.25)
    flight.record_says(Reading(DONE, 1003.0), 2.0)
    assert flight.put_returned(Put.SERVED, "", 2.01) == (Order.FINISH,)


# Other clients fly the same record

OTHERS_BUSY, OTHERS_DONE = Reading(BUSY, 1000.2), Reading(DONE, 1000.4)


def test_a_flight_queued_before_ours_is_not_ours() -> None:
    """Its events come after our put; the stamps are to be those of our own flight."""
    flight = launched()
    assert flight.record_says(OTHERS_BUSY, 0.1) == ()
    assert flight.record_says(OTHERS_DONE, 0.2) == ()
    assert flight.record_says(BUSY_SEEN, 0.21) == ()
    assert flight.next_deadline is None, "no read is needed any more"
    assert flight.record_says(DONE_SEEN, 1.0) == ()
    assert flight.put_returned(Put.SERVED, "", 1.01) == (Order.FINISH,)
    assert flight.timeline.t0 == BUSY_SEEN.stamp
    assert flight.timeline["done"].stamp == DONE_SEEN.stamp
    assert flight.foreign_done == OTHERS_DONE.stamp, "what is older is not ours"


def test_a_flight_queued_before_ours_and_found_by_a_read() -> None:
    flight = launched()
    flight.record_says(OTHERS_BUSY, 0.1)
    flight.record_says(OTHERS_DONE, 0.2)
    assert flight.deadline(0.2 + CALLBACK_GRACE) == (Order.READ,)
    assert flight.read_answers(BUSY_SEEN, 0.4) == ()
    assert flight.timeline.t0 == BUSY_SEEN.stamp
    assert flight.foreign_done == OTHERS_DONE.stamp


def test_a_flight_queued_behind_ours_does_not_delay_it() -> None:
    """It starts within a millisecond of our Done, so its Busy may come before our callback."""
    flight = flying()
    assert flight.record_says(DONE_SEEN, 1.0) == ()
    theirs = Reading(BUSY, 1002.001)
    assert flight.record_says(theirs, 1.001) == ()
    assert flight.put_returned(Put.SERVED, "", 1.002) == (Order.READ,)
    assert flight.read_answers(theirs, 1.003) == (Order.FINISH,)
    assert flight.finished
    assert flight.timeline.t0 == BUSY_SEEN.stamp
    assert flight.timeline["done"].stamp == DONE_SEEN.stamp
    assert flight.foreign_done is None, "ours was the first"


def test_a_late_done_behind_a_read_of_busy_ends_no_flight() -> None:
    """DISA: the callback is back at once and proves nothing. An alarm of before comes late, then our Busy."""
    flight = launched()
    flight.put_returned(Put.SERVED, "", 0.1)
    assert flight.read_answers(BUSY_SEEN, 0.2) == ()
    assert flight.record_says(GROUND._replace(severity=1), 0.3) == (Order.READ,)
    assert flight.record_says(BUSY_SEEN, 0.31) == ()
    assert flight.read_answers(BUSY_SEEN, 0.4) == ()
    assert not flight.over


def test_a_callback_between_our_busy_and_our_done_behind_another_flight() -> None:
    flight = launched()
    for when, reading in enumerate((OTHERS_BUSY, OTHERS_DONE, BUSY_SEEN), start=1):
        flight.record_says(reading, 0.01 * when)
    assert flight.put_returned(Put.SERVED, "", 0.05) == (Order.READ,), "whose Busy was it?"
    assert flight.read_answers(DONE_SEEN, 0.06) == (Order.FINISH,)
    assert flight.timeline.t0 == BUSY_SEEN.stamp
    assert flight.timeline["done"].stamp == DONE_SEEN.stamp


def test_late_news_of_an_earlier_flight_is_not_of_ours() -> None:
    """The earlier flight was found Done by a read, which its events did not overtake."""
    flight = launched()
    assert flight.record_says(Reading(BUSY, 999.0), 0.1) == ()
    assert flight.state is State.SENT
    assert flight.record_says(GROUND, 0.11) == ()
    assert flight.record_says(BUSY_SEEN, 0.15) == ()
    assert flight.record_says(Reading(BUSY, 999.5), 0.16) == ()
    assert flight.timeline.t0 == BUSY_SEEN.stamp


def test_a_clock_that_was_set_back_hides_no_flight() -> None:
    """Its Busy looks like late news: a read tells."""
    flight = launched()
    back = Reading(BUSY, 900.0)
    assert flight.record_says(back, 0.1) == ()
    assert flight.deadline(0.1 + CALLBACK_GRACE) == (Order.READ,)
    assert flight.read_answers(back, 0.3) == ()
    assert flight.state is State.FLYING
    assert flight.next_deadline is None, "start_timeout is no matter any more"
    assert flight.record_says(Reading(DONE, 901.0), 8.0) == ()
    assert flight.put_returned(Put.SERVED, "", 8.01) == (Order.READ,)
    assert flight.read_answers(Reading(DONE, 901.0), 8.02) == (Order.FINISH,)
    assert flight.finished


def test_a_read_sent_before_the_callback_came_does_not_decide() -> None:
    flight = launched()
    flight.record_says(Reading(BUSY, 900.0), 0.1)
    assert flight.deadline(0.3) == (Order.READ,)
    assert flight.read_answers(GROUND, 0.35) == (), "our put may wait behind a flight that just ended"
    flight.record_says(Reading(BUSY, 900.0), 0.4)
    assert flight.deadline(0.6) == (Order.READ,)
    assert flight.put_returned(Put.SERVED, "", 0.7) == ()
    assert flight.read_answers(DONE_SEEN, 0.8) == (Order.READ,)
    assert flight.read_answers(DONE_SEEN, 0.9) == (Order.FINISH,)


# A control layer that does not tell what became of the put


def test_untold_callback_is_decided_by_a_read() -> None:
    flight = flying()
    assert flight.put_returned(Put.UNTOLD, "", 1.0) == ()
    assert flight.record_says(DONE_SEEN, 1.1) == (Order.READ,)
    assert not flight.over
    assert flight.read_answers(DONE_SEEN, 1.2) == (Order.FINISH,)
    assert flight.finished


def test_untold_callback_of_a_refused_put() -> None:
    flight = launched()
    assert flight.put_returned(Put.UNTOLD, "", 0.1) == (Order.READ,)
    assert flight.read_answers(GROUND, 0.2) == (Order.FINISH,)
    assert_failed(flight, FlightRefused, "no trace", "DISP")


def test_untold_callback_of_a_refused_put_after_others_were_there() -> None:
    """What was known at kickoff is not what the record said when Busy was put."""
    flight = launched()
    assert flight.ground_read(OTHERS_DONE, 0.05) == ()
    assert flight.put_returned(Put.UNTOLD, "", 0.1) == (Order.READ,)
    assert flight.read_answers(OTHERS_DONE, 0.2) == (Order.FINISH,)
    assert_failed(flight, FlightRefused, "no trace")
    failed = launched()
    assert failed.ground_read(None, 0.05) == ()
    assert failed.before == GROUND


def test_late_news_ahead_of_the_read_before_the_put_is_not_of_ours() -> None:
    flight = launched()
    flight.record_says(OTHERS_BUSY, 0.01)
    flight.record_says(OTHERS_DONE, 0.02)
    assert flight.ground_read(OTHERS_DONE, 0.03) == ()
    assert flight.state is State.SENT
    assert flight.next_deadline == pytest.approx(5.0), "start_timeout, and no read that is due"
    assert flight.put_returned(Put.UNTOLD, "", 0.1) == (Order.READ,)
    assert flight.read_answers(DONE_SEEN, 0.2) == (Order.FINISH,)
    assert flight.finished
    assert "busy" not in flight.timeline
    assert flight.timeline["done"].stamp == DONE_SEEN.stamp
    assert flight.foreign_done is None, "it was over before the read ahead of our put"


def test_untold_callback_of_a_short_flight() -> None:
    flight = launched()
    assert flight.put_returned(Put.UNTOLD, "", 0.1) == (Order.READ,)
    assert flight.read_answers(DONE_SEEN, 0.2) == (Order.FINISH,)
    assert flight.finished


def test_untold_callback_of_a_lost_connection() -> None:
    """pyepics says success; the read fails, and then the loss is told."""
    flight = flying()
    assert flight.put_returned(Put.UNTOLD, "", 1.0) == ()
    assert flight.connection_lost(1.01) == ()
    assert flight.connected(BUSY_SEEN, 3.0) == ()
    assert flight.put_returned(Put.UNTOLD, "", 3.1) == (), "a callback of the old connection is late"
    assert flight.record_says(DONE_SEEN, 4.0) == (Order.READ,)
    assert flight.read_answers(DONE_SEEN, 4.1) == (Order.FINISH,)


def test_untold_callback_after_the_loss_proves_nothing() -> None:
    flight = flying()
    flight.record_says(DONE_SEEN, 0.5)
    flight.connection_lost(1.0)
    assert flight.put_returned(Put.UNTOLD, "", 1.01) == ()
    assert flight.state is State.LOST


@pytest.mark.parametrize("by", ["event", "read"])
def test_untold_restart_of_the_ioc(by: str) -> None:
    flight = flying()
    flight.put_returned(Put.UNTOLD, "", 1.0)
    booted = Reading(DONE, NEVER, 3)
    if by == "event":
        assert flight.record_says(booted, 3.0) == (Order.FINISH,)
    else:
        assert flight.record_says(DONE_SEEN, 3.0) == (Order.READ,)
        assert flight.read_answers(booted, 3.1) == (Order.FINISH,)
    assert_failed(flight, FlightLost, "restarted")


@pytest.mark.parametrize("heard", [False, True], ids=["unheard", "heard"])
def test_untold_callback_with_a_flight_queued_behind(heard: bool) -> None:
    """The read finds the other's Busy, maybe before its event is heard."""
    flight = flying()
    flight.record_says(DONE_SEEN, 1.0)
    theirs = Reading(BUSY, 1002.001)
    if heard:
        flight.record_says(theirs, 1.001)
    assert flight.put_returned(Put.UNTOLD, "", 1.002) == (Order.READ,)
    assert flight.read_answers(theirs, 1.003) == (Order.FINISH,)
    assert flight.finished
    assert flight.timeline.t0 == BUSY_SEEN.stamp
    assert flight.timeline["done"].stamp == DONE_SEEN.stamp


def test_untold_done_of_before_that_a_read_of_busy_overtook_is_late_news() -> None:
    flight = launched()
    flight.put_returned(Put.UNTOLD, "", 0.1)
    assert flight.read_answers(BUSY_SEEN, 0.2) == ()
    assert flight.record_says(GROUND, 0.3) == (Order.READ,)
    assert flight.read_answers(BUSY_SEEN, 0.4) == ()
    assert flight.record_says(BUSY_SEEN, 0.5) == ()
    assert flight.record_says(DONE_SEEN, 1.0) == (Order.READ,)
    assert flight.read_answers(DONE_SEEN, 1.1) == (Order.FINISH,)
    assert flight.finished


# Rule 2: a lost IOC is not a finished flight


@pytest.mark.parametrize("witness", ["callback", "connection"])
def test_loss_is_no_finish(witness: str) -> None:
    flight = flying()
    if witness == "callback":
        flight.put_returned(Put.LOST, "Virtual circuit disconnect", 1.0)
    else:
        flight.connection_lost(1.0)
    assert flight.state is State.LOST
    assert flight.connection_lost(1.1) == ()
    assert flight.put_returned(Put.LOST, "", 1.1) == ()
    assert flight.next_deadline == pytest.approx(16.0)
    assert flight.deadline(16.0) == (Order.FINISH,)
    assert_failed(flight, FlightLost, "reconnect_timeout=15 s")


def test_back_busy_with_the_same_stamp_flies_on() -> None:
    flight = flying()
    flight.connection_lost(1.0)
    assert flight.connected(BUSY_SEEN, 3.0) == ()
    assert flight.state is State.FLYING
    assert flight.record_says(DONE_SEEN, 4.0) == (Order.READ,), "the callback went down with the old connection"
    assert flight.read_answers(DONE_SEEN, 4.1) == (Order.FINISH,)


@pytest.mark.parametrize(
    "back",
    [DONE_SEEN, Reading(DONE, BUSY_SEEN.stamp), Reading(BUSY, 1009.0), Reading(DONE, EPICS_EPOCH, severity=3)],
    ids=["done", "done, same stamp", "other", "booted"],
)
def test_back_as_something_else_is_lost_at_once(back: Reading) -> None:
    flight = flying()
    flight.connection_lost(1.0)
    assert flight.connected(back, 3.0) == (Order.FINISH,)
    assert_failed(flight, FlightLost, "came back")


def test_an_alarm_in_flight_moves_the_stamp_to_come_back_with() -> None:
    flight = flying()
    alarmed = BUSY_SEEN._replace(stamp=1001.5, severity=2)
    flight.record_says(alarmed, 0.5)
    flight.connection_lost(1.0)
    assert flight.connected(alarmed, 3.0) == ()
    assert flight.state is State.FLYING
    assert flight.timeline.t0 == BUSY_SEEN.stamp


def test_lost_on_the_ground_has_the_time_to_reconnect() -> None:
    waiting = launched(last=BUSY_SEEN, when_busy="wait", start_timeout=1.0, reconnect_timeout=9.0)
    waiting.connection_lost(100.0)
    assert waiting.next_deadline == 109.0
    assert waiting.deadline(109.0) == (Order.FINISH,)
    assert_failed(waiting, FlightTimeout, "before the put of Busy", "reconnect_timeout=9 s")


def test_lost_before_busy_is_lost() -> None:
    flight = launched()
    assert flight.connection_lost(0.1) == (Order.FINISH,)
    assert_failed(flight, FlightLost)


def test_refused_put() -> None:
    flight = launched()
    assert flight.put_returned(Put.REFUSED, "Channel write request failed", 0.1) == (Order.FINISH,)
    assert_failed(flight, FlightRefused, "Channel write request failed")


# Rule 3: every flight ends, and the exception says what happened


def test_no_connection() -> None:
    flight = launched(last=None)
    assert flight.next_deadline == 5.0
    assert flight.deadline(5.0) == (Order.FINISH,)
    assert_failed(flight, FlightTimeout, "start_timeout=5 s", "last seen: nothing")
    assert isinstance(flight.error, TimeoutError)


def test_a_value_of_2_is_neither_busy_nor_done() -> None:
    neither = Reading(2, 1001.5)
    flight = flying()
    flight.put_returned(Put.SERVED, "", 0.2)
    assert flight.record_says(neither, 0.3) == ()
    assert not flight.over
    assert "2, neither Busy nor Done" in str(flying_error(flight))
    before = launched()
    assert before.record_says(neither, 0.3) == ()
    assert before.state is State.SENT, "it has not begun"
    asked = launched()
    assert asked.put_returned(Put.SERVED, "", 0.1) == (Order.READ,)
    assert asked.read_answers(neither, 0.2) == ()
    assert not asked.over
    assert asked.next_deadline == pytest.approx(0.2 + CALLBACK_GRACE), "asked again"


def flying_error(flight: Flight) -> FlightError | None:
    flight.abort(1.0)
    return flight.error


def test_a_record_that_becomes_busy_behind_the_fence_settles_again() -> None:
    flight = Flight("prj:mybusy", Options(reset_settle=0.5))
    flight.needs_fence = True
    assert flight.kickoff(0.0, GROUND) == (Order.FENCE,)
    assert flight.record_says(BUSY_SEEN, 0.1) == (Order.PUT_DONE,)
    assert flight.fence_passed(0.2) == ()
    assert flight.record_says(DONE_SEEN, 0.3) == ()
    assert flight.next_deadline == pytest.approx(0.8)
    assert flight.deadline(0.8) == (Order.FENCE,), "what was asked behind the first one is too old"
    assert flight.fence_passed(0.9) == (Order.PUT_BUSY,)


def test_a_record_that_says_2_on_the_ground_is_reset() -> None:
    assert launched(Reading(2, 999.0)).state is State.CLEARING


def test_news_before_kickoff_is_not_ours() -> None:
    flight = Flight("prj:mybusy")
    assert flight.connected(GROUND, 0.0) == ()
    assert flight.record_says(BUSY_SEEN, 0.1) == ()
    assert flight.connection_lost(0.2) == ()
    assert flight.next_deadline is None
    assert flight.kickoff(0.3, GROUND) == (Order.PUT_BUSY,)
    assert flight.connected(GROUND, 0.4) == (), "it was under way when we looked"
    assert flight.state is State.SENT


def test_aborted_before_kickoff_stays_on_the_ground() -> None:
    flight = Flight("prj:mybusy")
    assert flight.abort(1e6) == (Order.FINISH,)
    assert flight.kickoff(1e6, GROUND) == ()
    assert_failed(flight, FlightAborted, "; 0 s after kickoff")


def test_connection_that_comes_late_flies() -> None:
    flight = launched(last=None)
    assert flight.connected(GROUND, 2.0) == (Order.PUT_BUSY,)


def test_no_sign_of_life_writes_done() -> None:
    flight = launched()
    assert flight.deadline(5.0) == (Order.FORGET, Order.PUT_DONE, Order.FINISH)
    assert_failed(flight, FlightTimeout, "start_timeout=5 s")


def test_busy_is_a_sign_of_life() -> None:
    flight = flying()
    assert flight.next_deadline is None
    assert flight.deadline(1e9) == ()


@pytest.mark.parametrize(("on_timeout", "write"), [("reset", (Order.FORGET, Order.PUT_DONE)), ("leave", ())])
def test_flight_timeout(on_timeout: str, write: tuple[Order, ...]) -> None:
    flight = flying(flight_timeout=3.0, on_timeout=on_timeout)
    assert flight.next_deadline == 3.0
    assert flight.deadline(3.0) == (*write, Order.FINISH)
    assert_failed(flight, FlightTimeout, "flight_timeout=3 s", "last seen: Busy")


def test_flight_timeout_counts_while_lost_and_writes_nothing_then() -> None:
    flight = flying(flight_timeout=3.0)
    flight.connection_lost(1.0)
    assert flight.deadline(3.0) == (Order.FINISH,)
    assert_failed(flight, FlightTimeout)


@pytest.mark.parametrize("told", [Put.SERVED, Put.UNTOLD])
def test_reads_that_fail_again_and_again_end_the_flight(told: Put) -> None:
    flight = launched()
    orders = flight.put_returned(told, "", 1.0)
    now = 1.0
    while not flight.over:
        assert now < 1.0 + ANSWER_TIMEOUT + 1
        now = now + 0.05 if Order.READ in orders else flight.next_deadline or 1e9
        orders = flight.read_answers(None, now) if Order.READ in orders else flight.deadline(now)
    assert_failed(flight, FlightTimeout, "no read", f"{ANSWER_TIMEOUT:g} s")


def test_a_read_that_is_never_answered_ends_the_flight() -> None:
    flight = flying()
    flight.record_says(DONE_SEEN, 1.0)
    assert flight.deadline(1.0 + CALLBACK_GRACE) == (Order.READ,)
    assert flight.next_deadline == 1.0 + ANSWER_TIMEOUT
    assert flight.deadline(1.0 + ANSWER_TIMEOUT) == (Order.FORGET, Order.PUT_DONE, Order.FINISH)
    assert_failed(flight, FlightTimeout, "last seen: Done")


def test_link_alarm_is_named() -> None:
    flight = flying(flight_timeout=3.0)
    flight.record_says(BUSY_SEEN._replace(severity=3, alarm=alarm_text(3, 14)), 0.2)
    flight.deadline(3.0)
    assert_failed(flight, FlightTimeout, "LINK")


@pytest.mark.parametrize(
    ("severity", "status", "says"),
    [
        (0, 0, ""),
        (0, 7, ""),
        (0, 18, "DISABLE (the record is disabled, as DISA = DISV"),
        (1, 18, "DISABLE (the record is disabled, as DISA = DISV"),
        (3, 14, "LINK (the controller may never have got it)"),
        (2, 7, "STATE"),
        (3, 9, "COMM"),
        (3, 17, "UDF"),
        (1, 19, "SIMM"),
        (3, 21, "WRITE_ACCESS"),
        (3, 22, "status 22"),
        (3, -1, "status -1"),
    ],
)
def test_alarms_are_told_by_name(severity: int, status: int, says: str) -> None:
    assert alarm_text(severity, status).startswith(says)
    assert bool(alarm_text(severity, status)) == bool(says)


def test_a_disabled_record_is_told_without_any_severity() -> None:
    flight = flying(flight_timeout=3.0)
    flight.record_says(BUSY_SEEN._replace(alarm=alarm_text(0, 18)), 0.2)
    flight.deadline(3.0)
    assert_failed(flight, FlightTimeout, "not Done", "last seen: Busy", "DISABLE", "DISA = DISV")


# The record is Busy at kickoff


def test_when_busy_reset() -> None:
    flight = launched(last=BUSY_SEEN)
    assert flight.state is State.CLEARING
    assert flight.record_says(DONE_SEEN, 0.5) == ()
    assert flight.next_deadline == pytest.approx(0.6)
    assert flight.deadline(0.6) == (Order.PUT_BUSY,)


def test_when_busy_reset_orders_done() -> None:
    flight = Flight("prj:mybusy", Options())
    assert flight.kickoff(0.0, BUSY_SEEN) == (Order.PUT_DONE,)
    assert flight.deadline(5.0) == (Order.FINISH,)
    assert_failed(flight, FlightTimeout, "stayed Busy")


def test_busy_again_while_settling_is_reset_again() -> None:
    flight = launched(last=BUSY_SEEN)
    flight.record_says(DONE_SEEN, 0.5)
    assert flight.record_says(Reading(BUSY, 1003.0), 0.55) == (Order.PUT_DONE,)


def test_when_busy_wait() -> None:
    flight = Flight("prj:mybusy", Options(when_busy="wait"))
    assert flight.kickoff(0.0, BUSY_SEEN) == ()
    assert flight.next_deadline is None
    assert flight.record_says(DONE_SEEN, 100.0) == (Order.PUT_BUSY,)


def test_when_busy_fail_touches_nothing() -> None:
    flight = Flight("prj:mybusy", Options(when_busy="fail"))
    assert flight.kickoff(0.0, BUSY_SEEN) == (Order.FINISH,)
    assert_failed(flight, FlightRefused, "when_busy='fail'")


# Rule 4: we write 0 only where our put is out


def test_abort_writes_done_in_the_air_only() -> None:
    assert flying().abort(1.0) == (Order.FORGET, Order.PUT_DONE, Order.FINISH)
    assert launched().abort(1.0) == (Order.FORGET, Order.PUT_DONE, Order.FINISH)
    assert flying(on_timeout="leave").abort(1.0) == (Order.FORGET, Order.PUT_DONE, Order.FINISH)
    waiting = Flight("prj:mybusy", Options(when_busy="wait"))
    waiting.kickoff(0.0, BUSY_SEEN)
    assert waiting.abort(1.0, "because") == (Order.FINISH,), "the flight in progress is another's"
    assert_failed(waiting, FlightAborted, "because")


def test_abort_writes_nothing_where_only_a_read_is_awaited() -> None:
    """0 while 0 would run OUT and FLNK."""
    flight = flying()
    flight.record_says(DONE_SEEN, 1.0)
    assert flight.put_returned(Put.UNTOLD, "", 1.01) == (Order.READ,)
    assert flight.abort(1.02) == (Order.FORGET, Order.FINISH)


def test_abort_writes_done_where_the_done_may_have_been_anothers() -> None:
    """Our put may have been queued behind that flight, and be served by now."""
    flight = launched()
    flight.record_says(OTHERS_BUSY, 0.1)
    flight.record_says(OTHERS_DONE, 0.2)
    assert flight.abort(0.21) == (Order.FORGET, Order.PUT_DONE, Order.FINISH)


# Rule 6: t0


def test_t0_is_the_busy_stamp() -> None:
    assert flying().timeline.t0 == BUSY_SEEN.stamp


def test_t0_is_the_put_where_busy_was_unseen() -> None:
    flight = Flight("prj:mybusy", clock_offset=5000.0)
    flight.kickoff(7.0, GROUND)
    assert flight.timeline.t0 == 5007.0
    assert "put" in flight.timeline.t0_note


def test_t0_is_the_put_where_stamps_stand_still() -> None:
    flight = Flight("prj:mybusy", clock_offset=5000.0)
    flight.kickoff(7.0, GROUND)
    flight.record_says(Reading(BUSY, GROUND.stamp), 7.1)
    assert flight.timeline.t0 == 5007.0
    assert "stand still" in flight.timeline.t0_note


def test_timeline_reads_well() -> None:
    flight = Flight("x:busy", clock_offset=1700000000.0)
    ground = Reading(DONE, 1700000009.0)
    flight.kickoff(10.0, ground)
    flight.record_says(Reading(BUSY, 1700000010.0005), 10.001)
    flight.record_says(Reading(DONE, 1700000011.25), 11.2505)
    flight.put_returned(Put.SERVED, "", 11.251)
    flight.timeline.mark("finished", 11.252)
    assert [mark.step for mark in flight.timeline] == ["put", "busy", "done", "callback", "finished"]
    title, head, *lines = str(flight.timeline).splitlines()
    when = datetime.fromtimestamp(1700000010.0).astimezone().isoformat(" ", "milliseconds")
    assert title == f"x:busy, seconds since {when}"
    assert head.split() == ["step", "IOC", "stamp", "client", "delay"]
    assert repr(flight.timeline) == str(flight.timeline), "what a prompt shows"
    assert [line.split(maxsplit=5) for line in lines[1:3]] == [
        ["busy", "0.000500", "0.001000", "0.500", "ms", "the record is Busy"],
        ["done", "1.250000", "1.250500", "0.500", "ms", "the record is Done"],
    ]
    assert [line.split(maxsplit=2) for line in (lines[0], *lines[3:5])] == [
        ["put", "0.000000", "Busy is put"],
        ["callback", "1.251000", "the put-callback is back"],
        ["finished", "1.252000", "the flight is finished"],
    ]
    assert lines[5:] == [
        "finished 2.000 ms after the IOC's Done",
        "t0, from which the points' times count, is the IOC stamp of Busy",
    ]
    assert flight.timeline.latency == pytest.approx(0.002, abs=1e-6)  # the epoch's own resolution


def test_timeline_of_what_did_not_come_to_pass() -> None:
    assert str(Flight("x").timeline) == "no flight yet"
    assert Flight("x").timeline.latency is None
    assert Flight("x").timeline.when("done") is None
    aborted = launched()
    aborted.abort(1.0)
    assert str(aborted.timeline).splitlines()[-3:] == [
        f"failed    {'':12}{1.0:12.6f}{'':13}   the flight has failed",
        "t0, from which the points' times count, is the client's time of the put: Busy was not seen",
        f"FlightAborted: {aborted.error}",
    ]
    assert aborted.timeline.when("failed") == aborted.timeline["failed"].client
    refused = Flight("x", Options(when_busy="fail"))
    refused.kickoff(0.0, BUSY_SEEN)
    assert "t0" not in str(refused.timeline)


def test_every_step_has_its_words() -> None:
    """A timeline with a step that it cannot name would raise where it is read, not where it is marked."""
    source = Path(flight_module.__file__).parents[1]
    marked = {
        step for file in source.rglob("*.py") for step in re.findall(r"timeline\.mark\(\s*\"(\w+)\"", file.read_text())
    }
    assert marked == set(STEPS)


def test_busy_before_the_ground_read_is_no_beginning() -> None:
    flight = launched()
    flight.awaits_ground_read = True
    flight.record_says(BUSY_SEEN, 0.1)
    assert not flight.began, "of another's flight"
    flight.ground_read(Reading(BUSY, 1001.0), 0.2)
    assert not flight.began
    flight.record_says(Reading(BUSY, 1003.0), 0.3)
    assert flight.began
    failed = launched()
    failed.awaits_ground_read = True
    failed.record_says(BUSY_SEEN, 0.1)
    failed.ground_read(None, 0.2)
    assert failed.began, "nothing better will come"


def test_what_was_seen_before_the_loss_is_told() -> None:
    flight = flying(reconnect_timeout=1)
    flight.connection_lost(0.2)
    flight.deadline(2.0)
    assert_failed(flight, FlightLost, f"last seen: Busy, stamp {dated(1001.0)}")


def test_refused_at_once_tells_no_times() -> None:
    flight = Flight("prj:mybusy", Options(when_busy="fail"))
    flight.kickoff(0.0, BUSY_SEEN)
    assert_failed(flight, FlightRefused, "or write Done; last seen: Busy")


def test_began() -> None:
    assert not launched().began
    assert flying().began
    late_news = launched()
    late_news.record_says(GROUND._replace(value=BUSY, stamp=999.0), 0.1)
    assert not late_news.began
    read = launched()
    read.put_returned(Put.SERVED, "", 0.1)
    read.read_answers(BUSY_SEEN, 0.2)
    assert read.began
    unseen = launched()
    unseen.put_returned(Put.SERVED, "", 0.1)
    unseen.read_answers(DONE_SEEN, 0.2)
    assert unseen.finished
    assert not unseen.began


# Options


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("when_busy", "whatever"),
        ("on_timeout", "stop"),
        ("start_timeout", -1),
        ("start_timeout", None),
        ("flight_timeout", float("nan")),
        ("flight_timeout", float("inf")),
        ("reset_settle", "1"),
        ("reconnect_timeout", True),
    ],
)
def test_bad_options_are_refused_by_name(option: str, value: object) -> None:
    with pytest.raises(ValueError, match=option):
        Options(**{option: value})  # type: ignore[arg-type]
