"""Python's state of threads that C made, kept for as long as the thread lives.

Otherwise ctypes makes a state for each callback and throws it away afterwards, which takes a fifth of all the time from
an event to a finished status.

The state of a thread that has ended has to be thrown away by another one, as glibc takes the thread's state away from
Python before it calls a destructor of ours. So the destructor is a function of C that releases a lock, which needs no
interpreter, not even at exit. Who finds the lock released throws the state away.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from typing import Any

_api = ctypes.PyDLL(None)  # an own handle of what is loaded, so that argument types are ours
_kept: dict[int, int] = {}
"""Thread states by the address of the lock that their thread's end releases."""


@functools.cache
def _key() -> Any:
    void, key = ctypes.c_void_p, ctypes.c_ulong(0)
    for name, result, arguments in (
        ("PyThread_allocate_lock", void, ()),
        ("PyThread_acquire_lock", ctypes.c_int, (void, ctypes.c_int)),
        ("PyThread_free_lock", None, (void,)),
        ("PyThreadState_Get", void, ()),
        ("PyThreadState_Clear", None, (void,)),
        ("PyThreadState_Delete", None, (void,)),
        ("pthread_setspecific", ctypes.c_int, (ctypes.c_ulong, void)),
        ("pthread_getspecific", void, (ctypes.c_ulong,)),
    ):
        function = getattr(_api, name)
        function.restype, function.argtypes = result, arguments
    failed = _api.pthread_key_create(ctypes.byref(key), _api.PyThread_release_lock)
    return None if failed else key


def keep() -> None:
    """Keep the calling thread's; in a callback of ctypes only."""
    key = _key()
    if key is None or _api.pthread_getspecific(key):
        return
    if _kept:  # somebody's circuit was lost; in a thread of its own, see `_throw_away`
        threading.Thread(target=_throw_away, name="thread states", daemon=True).start()
    lock = _api.PyThread_allocate_lock()
    if lock:
        _api.PyThread_acquire_lock(lock, 1)
        _api.pthread_setspecific(key, lock)
        _api.PyGILState_Ensure()
        _kept[lock] = _api.PyThreadState_Get()


def _throw_away() -> None:
    """Throw away the states of threads that have ended, and end: Python 3.12 forgets that of the caller, too."""
    for lock in tuple(_kept):
        if _api.PyThread_acquire_lock(lock, 0):
            state = _kept.pop(lock)
            _api.PyThreadState_Clear(state)
            _api.PyThreadState_Delete(state)
            _api.PyThread_free_lock(lock)
