"""Python's states of threads that C made: kept while the thread lives, and no longer."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import ctypes, threading
from busy_callback_flyer.channels.ca import thread_states

Start = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
libc = ctypes.CDLL(None)
local = threading.local()
keeps, go_on = threading.Semaphore(0), threading.Event()

@Start
def waits(_):
    thread_states.keep()
    thread_states.keep()
    local.kept = [0] * 1000
    keeps.release()
    go_on.wait(20)
    assert len(local.kept) == 1000

@Start
def ends(_):
    thread_states.keep()
    keeps.release()

def start(function):
    thread = ctypes.c_ulong()
    assert libc.pthread_create(ctypes.byref(thread), None, function, None) == 0
    assert keeps.acquire(timeout=20)
    return thread

def throw_away():
    thread = threading.Thread(target=thread_states._throw_away)
    thread.start()
    thread.join(20)
    return len(thread_states._kept)

first = start(waits)
assert len(thread_states._kept) == 1, "once a thread"
for _ in range(100):
    libc.pthread_join(start(ends), None)
    assert throw_away() == 1, "the one that waits"
go_on.set()
libc.pthread_join(first, None)
assert throw_away() == 0
"""


def test_states_of_threads_that_live_and_that_end() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
