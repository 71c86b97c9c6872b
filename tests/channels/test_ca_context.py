"""Our own Channel Access context: threads, locks, order, noise and exit.

What could abort a process, or needs an exit, is done by a process of its own.
"""

from __future__ import annotations

import gc
import logging
import queue
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import epics
import pytest
from ophyd import EpicsSignal

from busy_callback_flyer.channels.ca import CAArray, CABusy, CACount, base
from busy_callback_flyer.channels.ca.context import context
from busy_callback_flyer.channels.ca.library import library
from busy_callback_flyer.engine.ports import BUSY, DONE, Put, Reading

from ..conftest import PREFIX, look
from .listening import TIMEOUT, Listener, in_thread, never_mind

BUSY_PV = f"{PREFIX}mybusy"

FENCED = 10  # flights behind a fence

PREAMBLE = f"""
import faulthandler, sys, threading, time
faulthandler.dump_traceback_later({TIMEOUT + 25}, exit=True)
import ophyd, epics
from busy_callback_flyer.channels.ca import CABusy
from busy_callback_flyer.engine.ports import Put
from tests.channels.listening import TIMEOUT, Listener

PV = {BUSY_PV!r}

def connected():
    channel = CABusy(PV, Listener())
    assert channel.wait_ready(TIMEOUT)
    return channel

def lent(channel, call):
    '''Run in a thread of libca that brings our context's news.'''
    channel.read(lambda reading: channel.lend(call))
"""


def client(code: str, first: str = "") -> subprocess.CompletedProcess[str]:
    """Run a client of its own; it ends by itself, and well."""
    done = subprocess.run(
        [sys.executable, "-c", first + PREAMBLE + textwrap.dedent(code)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def channel(controller: Callable[..., None]) -> Iterator[CABusy]:
    epics.caput(BUSY_PV, 0, wait=True, timeout=TIMEOUT)
    channel = CABusy(BUSY_PV, Listener())
    assert channel.wait_ready(TIMEOUT)
    yield channel
    channel.close()


def in_channel_thread(channel: CABusy, action: Callable[[], None]) -> None:
    """Run in a thread of libca that brings our context's news."""
    errors: queue.Queue[BaseException | None] = queue.Queue()

    def run(_: Reading | None) -> None:
        try:
            action()
        except BaseException as error:
            errors.put(error)
        else:
            errors.put(None)

    channel.read(run)
    error = errors.get(timeout=TIMEOUT)
    if error is not None:
        raise error


def current() -> int | None:
    address: int | None = library().threads.ca_current_context()
    return address


def test_callers_get_their_context_back(channel: CABusy) -> None:
    epics.ca.use_initial_context()
    theirs = current()
    assert theirs == context().pyepics.address != context().address
    channel.read(lambda reading: None)
    assert current() == theirs

    def unattached() -> None:
        channel.read(lambda reading: None)
        assert current() is None

    in_thread(unattached)


def test_news_comes_in_our_context(channel: CABusy) -> None:
    seen: list[int | None] = []
    in_channel_thread(channel, lambda: seen.append(current()))
    assert seen == [context().address]


@pytest.mark.parametrize("way", ["PV", "EpicsSignal", "caput"])
def test_what_a_lent_thread_puts_arrives(way: str, channel: CABusy) -> None:
    """It is put in pyepics' context, and sent though nobody else sends anything there."""
    pv = f"{PREFIX}npts"
    came = threading.Event()
    monitor = epics.get_pv(pv, connect=True, timeout=TIMEOUT, auto_monitor=True)
    before = int(monitor.get(use_monitor=False))
    token = monitor.add_callback(lambda value, **_: came.set() if value == before + 7 else None)
    signal = EpicsSignal(pv, name="npts")
    signal.wait_for_connection(TIMEOUT)
    epics.caput(pv, before, wait=True, timeout=TIMEOUT)
    put = {"PV": monitor.put, "EpicsSignal": signal.put, "caput": lambda value: epics.caput(pv, value)}[way]
    in_channel_thread(channel, lambda: channel.lend(lambda: put(before + 7)))
    assert came.wait(TIMEOUT)
    monitor.remove_callback(token)


def test_a_lent_thread_comes_back(channel: CABusy) -> None:
    seen: list[int | None] = []

    def fail() -> None:
        seen.append(current())
        raise RuntimeError("the user's code is broken")

    def lend() -> None:
        with pytest.raises(RuntimeError, match="broken"):
            channel.lend(fail)
        seen.append(current())

    in_channel_thread(channel, lend)
    assert seen == [context().pyepics.address, context().address]


def test_a_thread_that_is_not_ours_is_lent_as_it_is(channel: CABusy) -> None:
    seen: list[int | None] = []
    in_thread(lambda: channel.lend(lambda: seen.append(current())))
    assert seen == [None]


def test_the_janitor_runs_no_code_of_the_user(channel: CABusy) -> None:
    """It could hold up another flyer's Done."""
    threads: queue.Queue[threading.Thread] = queue.Queue()
    context().worker.do(lambda: channel.lend(lambda: threads.put(threading.current_thread())))
    context().worker.do(lambda: threads.put(threading.current_thread()))
    assert threads.get(timeout=TIMEOUT) is not threads.get(timeout=TIMEOUT)


def test_who_may_wait(channel: CABusy) -> None:
    seen: list[bool] = [channel.may_wait]
    in_channel_thread(channel, lambda: seen.append(channel.may_wait))
    in_channel_thread(channel, lambda: channel.lend(lambda: seen.append(channel.may_wait)))
    janitor: queue.Queue[bool] = queue.Queue()
    context().worker.do(lambda: janitor.put(channel.may_wait))
    seen.append(janitor.get(timeout=TIMEOUT))
    in_thread(lambda: seen.append(channel.may_wait))
    assert seen == [True, False, False, False, True]


def test_what_a_refused_put_says(channel: CABusy) -> None:
    answers: queue.Queue[tuple[Put, str]] = queue.Queue()
    epics.caput(f"{BUSY_PV}.DISP", 1, wait=True, timeout=TIMEOUT)
    channel.put_callback(BUSY, lambda put, text: answers.put((put, text)))
    put, text = answers.get(timeout=TIMEOUT)
    epics.caput(f"{BUSY_PV}.DISP", 0, wait=True, timeout=TIMEOUT)
    assert put is Put.REFUSED
    assert "DISP" in text


def test_a_fence_is_passed_once_though_there_is_no_circuit(channel: CABusy) -> None:
    passed: queue.Queue[None] = queue.Queue()
    channel.fence(lambda: passed.put(None))
    passed.get(timeout=TIMEOUT)
    nowhere = CABusy(f"{PREFIX}nowhere", Listener())
    nowhere.fence(lambda: passed.put(None))
    passed.get(timeout=TIMEOUT)
    nowhere.close()
    nowhere.fence(lambda: passed.put(None))
    passed.get(timeout=TIMEOUT)
    assert passed.empty()


def test_close_and_take_back_wait_for_nobody(channel: CABusy, controller: Callable[..., None]) -> None:
    """Here libca is in a handler of ours as long as they need."""
    controller(duration=60)
    channel.put_callback(BUSY, lambda put, text: None)
    doomed = CABusy(BUSY_PV, Listener())
    assert doomed.wait_ready(TIMEOUT)
    inside, go_on = threading.Event(), threading.Event()

    def hold(_: Reading | None) -> None:
        inside.set()
        go_on.wait(TIMEOUT)

    then = threading.Event()
    channel.read(hold)
    assert inside.wait(TIMEOUT)
    channel.take_back(then.set)
    doomed.close()
    assert not then.is_set()
    go_on.set()
    assert then.wait(TIMEOUT)
    channel.put(DONE, never_mind)


def test_close_goes_behind_a_put_that_is_taken_back(channel: CABusy, controller: Callable[..., None]) -> None:
    controller(duration=60)
    monitor = CABusy(BUSY_PV, listener := Listener())
    assert monitor.wait_ready(TIMEOUT)
    channel.put_callback(BUSY, lambda put, text: None)
    while listener.next()[1].value != BUSY:
        pass
    channel.take_back(lambda: channel.put(DONE, never_mind))
    channel.close()
    while listener.next()[1].value != DONE:
        pass
    monitor.close()


@pytest.mark.parametrize(
    "make", [lambda: CABusy(BUSY_PV, Listener()), lambda: CAArray(f"{PREFIX}x_array"), lambda: CACount(f"{PREFIX}npts")]
)
def test_a_channel_that_is_dropped_leaves_nothing(make: Callable[[], CABusy]) -> None:
    gc.collect()
    before = set(base._handles)
    channel = make()
    assert channel.wait_ready(TIMEOUT)
    numbers = set(base._handles) - before
    assert numbers
    gone = weakref.ref(channel)
    del channel
    context().worker.wait(TIMEOUT)  # an answer may hold it
    gc.collect()
    assert gone() is None
    assert not numbers & set(base._handles)


def test_a_plain_put_that_is_refused_is_told_and_logged(channel: CABusy, caplog: pytest.LogCaptureFixture) -> None:
    epics.caput(f"{BUSY_PV}.DISP", 1, wait=True, timeout=TIMEOUT)
    problems: queue.Queue[str | None] = queue.Queue()
    with caplog.at_level(logging.WARNING):
        channel.put(BUSY, problems.put)
        problem = problems.get(timeout=TIMEOUT)
    epics.caput(f"{BUSY_PV}.DISP", 0, wait=True, timeout=TIMEOUT)
    assert problem is not None
    assert "it refused the put (Channel write request failed" in problem
    assert "write request failed" in caplog.text
    channel.put(BUSY, problems.put)
    assert problems.get(timeout=TIMEOUT) is None, "it takes it now"


# In processes of their own


def test_two_callback_locks() -> None:
    """A callback of pyepics closes our channel while one of ours drops a monitor of pyepics."""
    client("""
        theirs = epics.ca.create_channel(PV, connect=True)
        kept = []  # pyepics asks for that

        def subscribe(callback):
            kept.append(epics.ca.create_subscription(theirs, callback=callback))
            return kept[-1][2]

        for round in range(200):
            channel = connected()
            if round % 2:
                channel.put_callback(1, lambda put, text: None)
            evid = subscribe(lambda **_: None)
            in_ours, in_theirs, first = threading.Event(), threading.Event(), threading.Lock()
            done = threading.Barrier(3)

            def drop():
                in_ours.set()
                assert in_theirs.wait(TIMEOUT)
                epics.ca.clear_subscription(evid)
                done.wait(TIMEOUT)

            def close(**_):
                if first.acquire(blocking=False):
                    in_theirs.set()
                    assert in_ours.wait(TIMEOUT)
                    channel.take_back(lambda: channel.put(0, lambda problem: None))
                    channel.close()
                    threading.Thread(target=done.wait, args=(TIMEOUT,)).start()

            lent(channel, drop)
            other = subscribe(close)
            done.wait(TIMEOUT)
            epics.ca.clear_subscription(other)
        """)


def test_threads_and_their_states_come_and_go() -> None:
    """A circuit without channels is closed: the next channel gets another one, with another thread."""
    done = client("""
        import psutil
        from busy_callback_flyer.channels.ca.context import context
        from busy_callback_flyer.channels.ca.thread_states import _kept
        for round in range(40):
            channel = connected()
            seen = threading.Event()
            channel.read(lambda reading: seen.set())
            assert seen.wait(TIMEOUT)
            channel.close()
            del channel
            context().worker.wait(TIMEOUT)
            if round == 4:
                early = psutil.Process().num_threads()
        print(len(_kept), psutil.Process().num_threads() - early)
        """)
    states, threads = map(int, done.stdout.split())
    assert states < 10
    assert threads < 10


def test_a_put_that_is_taken_back_at_exit_is_followed_by_done(controller: Callable[..., None]) -> None:
    controller(duration=60)
    client("""
        channel = connected()
        busy = threading.Event()
        epics.get_pv(PV, connect=True, auto_monitor=True).add_callback(
            lambda value, **_: busy.set() if value == 1 else None
        )
        channel.put_callback(1, lambda put, text: None)
        assert busy.wait(TIMEOUT)
        channel.read(lambda reading: time.sleep(0.3))  # as long as the janitor has to wait
        channel.take_back(lambda: channel.put(0, lambda problem: None))
        """)
    assert look(BUSY_PV)[0] == DONE


def test_a_callback_that_sleeps_does_not_keep_the_interpreter_from_exiting() -> None:
    client("""
        channel, other = connected(), connected()
        sleeping = threading.Event()
        lent(channel, lambda: (sleeping.set(), time.sleep(3600)))
        assert sleeping.wait(TIMEOUT)
        other.close()
        """)


OWN_IOC = """
import os, tempfile
from busy_callback_flyer.ioc import EmbeddedIOC

with tempfile.NamedTemporaryFile("w", suffix=".db") as database:
    database.write('record(waveform, "$(P)big") {field(FTVL, "DOUBLE") field(NELM, "1000000")}')
    database.flush()
    ioc = EmbeddedIOC("own:", databases=[database.name])
    ioc.start()
os.environ.update(ioc.client_environment)
"""


def test_a_loss_is_logged_and_not_printed() -> None:
    """Once it is printed, by pyepics, whose context has a circuit for the fence."""
    done = client(
        """
        import logging
        PV = "own:mybusy"
        logged = threading.Event()
        class Log(logging.Handler):
            def emit(self, record):
                if "Virtual circuit disconnect" in record.getMessage():
                    logged.set()
        logger = logging.getLogger("busy_callback_flyer")
        logger.addHandler(Log())
        logger.setLevel(logging.INFO)
        channel = connected()
        ioc.kill()
        assert logged.wait(TIMEOUT)
        """,
        OWN_IOC,
    )
    assert done.stderr.count("CA.Client.Exception") <= 1


def test_a_put_of_pyepics_is_served_before_the_flight() -> None:
    """Though pyepics' circuit is held up by arrays and by a callback of the user that sleeps."""
    client(
        f"""
        import numpy as np
        from ophyd import EpicsSignal
        from epics import dbr
        from busy_callback_flyer.channels.ca import CAArray
        from busy_callback_flyer.channels.ca.base import Handle
        from busy_callback_flyer.channels.ca.context import context

        PV = "own:mybusy"
        channel, array = connected(), CAArray("own:x_array")
        assert array.wait_ready(TIMEOUT)
        epics.caput("own:big", np.zeros(1_000_000), wait=True, timeout=TIMEOUT)
        npts, signal = epics.PV("own:npts"), EpicsSignal("own:npts", name="npts")
        assert npts.wait_for_connection(TIMEOUT)
        signal.wait_for_connection(TIMEOUT)

        class Big:
            up = threading.Event()
            def changed(self, handle, up):
                self.up.set()

        big = Big()
        handle = Handle("own:big", big.changed, context().pyepics)
        assert big.up.wait(TIMEOUT)
        theirs = epics.ca.create_channel("own:duration", connect=True)
        sleeper = epics.ca.create_subscription(theirs, callback=lambda **_: time.sleep(0.05))
        duration = epics.PV("own:duration", auto_monitor=False)

        for round in range({FENCED}):
            points = 5 + round % 7
            for _ in range(4):
                handle.get(dbr.DOUBLE, 1_000_000, lambda args: time.sleep(0.01), lambda status: None)
            duration.put(1e-6 * (round + 1))
            (npts if round % 2 else signal).put(points)
            served = threading.Event()
            fly = lambda: channel.put_callback(1, lambda put, text: put is Put.SERVED and served.set())
            FENCE
            assert served.wait(TIMEOUT)
            answers = []
            answered = threading.Event()
            array.fetch(lambda answer: (answers.append(answer), answered.set()))
            assert answered.wait(TIMEOUT)
            assert len(answers[0].values) == points, (round, len(answers[0].values), points)
        """.replace("FENCE", "channel.fence(fly)"),
        OWN_IOC,
    )
