"""The pseudo-controller as a Channel Access client, beside any IOC that has its records."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import epics
import numpy as np
from epics import ca, dbr

from .controller import ARRAYS, BUSY, LIMITS, MESSAGE_LENGTH, Controller

log = logging.getLogger(__name__)

MONITORED = (BUSY, "npts", *LIMITS, *(f"{array}.NELM" for array in ARRAYS))
WRITTEN = (*ARRAYS, "position", "signal", "message", BUSY)


class BusyWatch:
    """Makes of a busy record's monitor events what a controller can rely on.

    Parameters
    ----------
    changed : callable
        Told 1 of every Busy that began while we watched, and 0 when it is no more.
    """

    def __init__(self, changed: Callable[[int], None]) -> None:
        self._changed = changed
        self._last = (0, 0.0, 0)
        self._fresh = True  # the connection is

    def lost(self) -> None:
        """The connection is lost: what the next event tells of may have begun long before."""
        self._fresh = True

    def event(self, value: int, stamp: float, severity: int) -> None:
        """The record's value, stamp and alarm severity in a monitor event."""
        (last_value, last_stamp, last_severity), self._last = self._last, (value, stamp, severity)
        fresh, self._fresh = self._fresh, False
        if not value:
            self._changed(0)
        elif last_value and stamp == last_stamp:
            pass  # it goes on: told again after a reconnection
        elif fresh:
            log.warning("The record was Busy already when it connected: this flight is left alone.")
            self._changed(0)
        elif not last_value or severity == last_severity:  # else only the alarm has changed
            self._changed(0)  # a full event queue drops the Done between two Busys
            self._changed(1)


class CADatabase:
    """The controller's records, by Channel Access.

    Settings come from monitors. Their events and those of the busy record share one circuit: a setting
    put before Busy is known before Busy is.

    Arrays and Done are plain puts, and one circuit carries them too: the server works them off in their
    order, and if the circuit breaks, Done is lost with the arrays. To wait for the arrays would cost a round
    trip and add nothing. A put-callback of Done would wait for the very flight that it is to end.

    Parameters
    ----------
    prefix : str
        First part of the records' names.
    busy : str
        Name of the busy record without the prefix.
    """

    def __init__(self, prefix: str, busy: str = BUSY) -> None:
        self._names = {name: prefix + name for name in (*MONITORED, *WRITTEN)} | {BUSY: prefix + busy}
        self._pvs: dict[str, epics.PV] = {}
        self._values: dict[str, float] = {}
        self._lock = threading.Lock()
        self._awaited = set(self._names)  # not connected, or their present value is not known yet
        self._ready = threading.Event()  # none is awaited
        self._closed = False

    def connect(self, busy_changed: Callable[[int], None], timeout: float) -> None:
        """Connect to all records.

        Parameters
        ----------
        busy_changed : callable
            Told of the busy record as `BusyWatch` does it, by a thread of libca.
        timeout : float
            Seconds that it may take.

        Raises
        ------
        ConnectionError
            Records do not answer; the message names them all.
        ValueError
            A controller cannot work on these records.
        """
        ca.use_initial_context()
        watch = BusyWatch(busy_changed)
        for name in self._names:
            self._pvs[name] = self._make_pv(name, watch)
        if not self._ready.wait(timeout):
            with self._lock:
                missing = ", ".join(self._names[name] for name in self._names if name in self._awaited)
            raise ConnectionError(f"No answer within {timeout:g} s from {missing}.")
        self._check_records()

    def _make_pv(self, name: str, watch: BusyWatch) -> epics.PV:
        def connected(conn: bool, **_: Any) -> None:
            if not conn:
                if name == BUSY:
                    watch.lost()
                self._lost(name)
            elif name not in MONITORED:
                self._arrived(name)

        def event(value: float, timestamp: float, severity: int, **_: Any) -> None:
            if name == BUSY:
                watch.event(int(value), timestamp, severity)
            else:
                self._values[name] = value
            self._arrived(name)  # last: who waits for that knows of the Done that was told

        return epics.PV(
            self._names[name],
            form="time",
            auto_monitor=dbr.DBE_VALUE | dbr.DBE_ALARM if name in MONITORED else False,
            connection_callback=connected,
            callback=event,
        )

    def _lost(self, name: str) -> None:
        with self._lock:
            self._awaited.add(name)
            if self._ready.is_set() and not self._closed:
                self._ready.clear()
                log.warning("The IOC is lost.")

    def _arrived(self, name: str) -> None:
        with self._lock:
            self._awaited.discard(name)
            if not self._awaited and not self._ready.is_set():
                self._ready.set()
                log.info("The IOC is there.")

    def _check_records(self) -> None:
        chids = {name: pv.chid for name, pv in self._pvs.items()}
        if ca.field_type(chids[BUSY]) != dbr.ENUM:
            raise ValueError(f"{self._names[BUSY]} is not a busy record.")
        for name in ARRAYS:
            if ca.field_type(chids[name]) != dbr.DOUBLE:
                raise ValueError(f"{self._names[name]} is not an array of DOUBLE.")
        for name in WRITTEN:
            if not ca.write_access(chids[name]):
                raise ValueError(f"{self._names[name]} must not be written by this client.")
        if len({ca.host_name(chids[name]) for name in (BUSY, *ARRAYS)}) > 1:
            raise ValueError(f"{self._names[BUSY]} and its arrays are not in the same IOC.")

    def get(self, name: str) -> float:
        """Value of a setting, as the IOC told it last."""
        return self._values[name]

    def put(self, name: str, value: float | int | str | np.ndarray) -> None:
        """Write a value; sent when `locked` ends.

        Without pyepics' put, which flushes each, and delivers after a reconnection what was meant for before.
        """
        kind, count, data = as_dbr(value)
        ca.use_initial_context()
        if ca.libca.ca_array_put(kind, count, self._pvs[name].chid, data) != dbr.ECA_NORMAL:
            raise ConnectionError(f"{self._names[name]} cannot be written")

    def finish(self, name: str, still_mine: Callable[[], bool]) -> bool:
        """Write 0 (Done) if `still_mine`. Another client may come between: Channel Access has no lock."""
        with self.locked(name):
            if not still_mine():
                return False
            self.put(name, 0)
            return True

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Wait for the IOC if it is lost; then send together what is put inside."""
        self._ready.wait()
        if self._closed:
            raise ConnectionError("the controller is stopped")
        yield
        ca.use_initial_context()
        ca.flush_io()

    def close(self) -> None:
        """Give up: nobody waits for a lost IOC any more."""
        with self._lock:
            self._closed = True
            self._ready.set()

    def disconnect(self) -> None:
        """End the subscriptions."""
        for pv in self._pvs.values():
            pv.disconnect()


def as_dbr(value: float | int | str | np.ndarray) -> tuple[int, int, ctypes.Array[Any]]:
    """Type, number of elements and memory of a value, as libca takes them."""
    if isinstance(value, str):
        text = value.encode("ascii", "replace")[:MESSAGE_LENGTH]
        return dbr.STRING, 1, ctypes.create_string_buffer(text, MESSAGE_LENGTH + 1)
    array = np.ascontiguousarray(value, dtype=np.float64).reshape(-1)
    return dbr.DOUBLE, array.size, np.ctypeslib.as_ctypes(array)


@contextlib.contextmanager
def serving(prefix: str, *, busy: str = BUSY, timeout: float = 5.0) -> Iterator[Controller]:
    """A controller that serves for the time of a ``with`` block. The parameters are those of `run`."""
    database = CADatabase(prefix, busy)
    controller = Controller(database)
    try:
        database.connect(controller.busy_changed, timeout)
        yield controller
    finally:
        database.close()
        controller.stop()
        database.disconnect()


def run(
    prefix: str,
    *,
    busy: str = BUSY,
    timeout: float = 5.0,
    stop: threading.Event | None = None,
    connected: Callable[[], None] | None = None,
) -> None:
    """Serve until told to stop.

    An exception that a signal raises in the main thread, as Ctrl-C does, stops it in order too.

    Parameters
    ----------
    prefix : str
        First part of the records' names.
    busy : str
        Name of the busy record without the prefix.
    timeout : float
        Seconds that the records may take to connect.
    stop : threading.Event
        Set to end it.
    connected : callable
        Called when it serves.

    Raises
    ------
    ConnectionError
        Records do not answer; the message names them all.
    ValueError
        A controller cannot work on these records.
    """
    with serving(prefix, busy=busy, timeout=timeout):
        if connected:
            connected()
        (stop or threading.Event()).wait()
