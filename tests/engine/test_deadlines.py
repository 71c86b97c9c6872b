"""Alarms ring once, when they are due, and one thread serves them all."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from busy_callback_flyer.engine.deadlines import Alarm

TIMEOUT = 20.0


class Bell:
    """An alarm that remembers when it rang."""

    def __init__(self) -> None:
        self.rung = threading.Semaphore(0)
        self.times: list[float] = []
        self.alarm = Alarm(self._ring)

    def _ring(self) -> None:
        self.times.append(time.monotonic())
        self.rung.release()


def test_rings_once_and_not_early() -> None:
    bell = Bell()
    due = time.monotonic() + 0.05
    bell.alarm.set(due)
    assert bell.rung.acquire(timeout=TIMEOUT)
    assert bell.times[0] >= due
    fence()
    assert len(bell.times) == 1


def fence() -> None:
    """Wait until the thread has passed everything that is due by now."""
    bell = Bell()
    bell.alarm.set(time.monotonic())
    assert bell.rung.acquire(timeout=TIMEOUT)


def test_set_earlier_takes_over() -> None:
    bell = Bell()
    bell.alarm.set(time.monotonic() + 3600)
    bell.alarm.set(time.monotonic() + 0.01)
    assert bell.rung.acquire(timeout=TIMEOUT)


def test_set_later_waits_longer() -> None:
    bell = Bell()
    bell.alarm.set(time.monotonic() + 0.01)
    due = time.monotonic() + 0.1
    bell.alarm.set(due)
    assert bell.rung.acquire(timeout=TIMEOUT)
    assert bell.times[0] >= due


def test_set_to_none_is_silent() -> None:
    bell = Bell()
    bell.alarm.set(time.monotonic() + 0.01)
    bell.alarm.set(None)
    later = Bell()
    later.alarm.set(time.monotonic() + 0.05)
    assert later.rung.acquire(timeout=TIMEOUT)
    assert bell.times == []


def test_can_be_set_again_by_its_own_action() -> None:
    rung = threading.Semaphore(0)

    def again() -> None:
        rung.release()
        alarm.set(time.monotonic() + 0.001)

    alarm = Alarm(again)
    alarm.set(time.monotonic())
    for _ in range(5):
        assert rung.acquire(timeout=TIMEOUT)
    alarm.set(None)


def test_failing_action_is_logged_and_stops_no_other(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("this action is broken")

    with caplog.at_level(logging.ERROR):
        Alarm(fail).set(time.monotonic())
        fence()
    assert "this action is broken" in caplog.text


def test_one_thread_and_one_entry_an_alarm() -> None:
    from busy_callback_flyer.engine.deadlines import _schedule

    fence()
    threads = threading.active_count()
    bells = [Bell() for _ in range(50)]
    entries = len(_schedule._entries)
    for _ in range(100):  # flights that come and go: each sets its alarm and takes it back
        for bell in bells:
            bell.alarm.set(time.monotonic() + 3600)
            bell.alarm.set(None)
    assert len(_schedule._entries) - entries <= len(bells)
    assert threading.active_count() == threads
