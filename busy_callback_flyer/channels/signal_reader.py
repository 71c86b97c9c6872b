"""What all channels by an ophyd signal need: fresh reads, puts that get through, and what a busy record says."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import ophyd
from ophyd import EpicsSignal, EpicsSignalRO
from ophyd.signal import EpicsSignalBase, Signal
from ophyd.utils import DisconnectedError, ReadOnlyError

# isort: split
from epics import ca

from ..engine.ports import BUSY, DONE, BusyListener, Put, Reading
from ..engine.text import decoded
from ..engine.worker import Worker
from .choice import name_of, no_busy
from .epics import alarm_text
from .private_names import asked_afresh, read_pv

logger = logging.getLogger(__name__)

FLAGS = ("char", "short", "int", "long")
"""Types of EPICS integers that can be 0 and 1, as the control layers name them."""

DEFAULT_NAMES = ["Done", "Busy"]
"""Of a busy record's values; those of a site count where they are known."""


class BySignal:
    """What all channels by a signal have in common."""

    def __init__(self, signal: Signal) -> None:
        self.pv = name_of(signal)
        self._signal = signal

    @property
    def host(self) -> str | None:
        """Address of the server, where the control layer tells; pyepics does."""
        pv = read_pv(self._signal)
        if not getattr(pv, "connected", False):  # pyepics would wait for it
            return None
        host: str | None = getattr(pv, "host", None)
        return host

    @property
    def ready(self) -> bool:
        """Whether it is connected."""
        return bool(self._signal.connected)

    def wait_ready(self, timeout: float | None) -> bool:
        """Wait until it is connected; whether it is."""
        try:
            self._signal.wait_for_connection(timeout)
        except TimeoutError:
            return False
        return True


class AskedBySignal(BySignal):
    """What channels have in common that are asked once a flight.

    Attributes
    ----------
    connections : int
        How often the connection was lost.
    """

    patience = 5.0
    """Seconds that an answer may need: the control layer has its own timeouts, and most are shorter."""

    def __init__(self, signal: Signal) -> None:
        super().__init__(signal)
        self.connections = 0
        signal.subscribe(self._connection_changed, event_type=Signal.SUB_META, run=False)

    @property
    def why_silent(self) -> str:
        """What can keep an answer away."""
        return "does its server answer?"

    def close(self) -> None:
        """Count losses no more."""
        self._signal.clear_sub(self._connection_changed)

    def _connection_changed(self, connected: bool = True, **_: Any) -> None:
        self.connections += not connected


class BusyBySignal(BySignal):
    """What is the same for all channels to a busy record by a signal: one circuit, and puts that stay out."""

    needs_fence = False

    def __init__(self, signal: Signal, worker: Worker, listener: BusyListener) -> None:
        super().__init__(signal)
        self.reading: Reading | None = None
        self._worker = worker
        self._listener = listener
        self._setpoint = signal
        self._reader = BusyReader(signal)

    @property
    def may_wait(self) -> bool:
        """Whether the calling thread may wait for the worker's."""
        return not self._worker.here

    def fence(self, passed: Callable[[], None]) -> None:
        """Everything is put on one circuit, in order."""
        passed()

    def take_back(self, then: Callable[[], None]) -> None:
        """Nothing can take back a put."""
        then()

    def lend(self, call: Callable[[], None]) -> None:
        """Run code of the user at once."""
        call()


class Reader:
    """Reads a PV afresh, with the stamp of that very read.

    An EPICS signal that somebody monitors keeps the stamp of its latest event. So another one without monitor reads
    it, which is made when the first is connected.

    Parameters
    ----------
    signal : Signal
    string : bool
        Whether to read an enum or characters as a string.
    whole : bool
        Whether all elements of an array are needed.
    """

    def __init__(self, signal: Signal, *, string: bool = False, whole: bool = False) -> None:
        self._signal = signal
        self._string = string
        self._whole = whole
        self._afresh: Signal | None = None

    def get(self) -> tuple[Any, float, dict[str, Any]]:
        """Value, stamp and metadata; raises what the control layer raises."""
        signal = self._signal
        if not isinstance(signal, EpicsSignalBase):
            return signal.get(as_string=self._string), signal.timestamp, signal.metadata
        if self._afresh is None:
            signal.wait_for_connection()
            self._afresh = EpicsSignalRO(
                signal.pvname,
                name=f"{signal.name}_reader",
                string=self._string,
                auto_monitor=False,
                timeout=signal.timeout,
                connection_timeout=signal.connection_timeout,
            )
        if self._whole and signal.cl.name == "pyepics":
            return _all_elements(self._afresh)
        value = self._afresh.get(use_monitor=False)
        return value, self._afresh.timestamp, self._afresh.metadata


def _all_elements(signal: EpicsSignalRO) -> tuple[Any, float, dict[str, Any]]:
    """Read an array by pyepics' functions: its PV, which others share, asks for no more than its latest event had."""
    signal.wait_for_connection()
    if ca.current_context() is None:
        ca.use_initial_context()
    channel = read_pv(signal).chid
    said = ca.get_with_metadata(channel, ftype=ca.promote_type(channel, use_time=True), timeout=signal.timeout)
    if said is None:
        raise TimeoutError(f"{signal.pvname} did not answer within {signal.timeout} s")
    return said["value"], said["timestamp"], said


def reads_in_its_own_way(signal: Signal) -> bool:
    """Whether something else than ophyd's reading of a PV makes its value or its stamp."""
    names = ("get", "read", "timestamp")
    return any(getattr(type(signal), name) is not getattr(EpicsSignalBase, name) for name in names)


def reader_of(signal: Signal, *, string: bool = False, whole: bool = False) -> Callable[[], tuple[Any, float]]:
    """What gives value and stamp of a signal, asked afresh, as its own ``read()`` does; see `Reader`."""
    if reads_in_its_own_way(signal):
        return partial(_own_reading, signal)
    reader = Reader(signal, string=string, whole=whole)
    return lambda: reader.get()[:2]


def _own_reading(signal: Signal) -> tuple[Any, float]:
    source = signal
    while hasattr(source, "derived_from"):
        source = source.derived_from
    if isinstance(source, EpicsSignalBase):
        source.wait_for_connection()
        with asked_afresh(source):
            reading = signal.read()
    else:
        reading = signal.read()
    return reading[signal.name]["value"], reading[signal.name]["timestamp"]


def units_of(signal: Signal, told: str | None) -> str | None:
    """The units of its record, where pyepics has told them: it guesses an encoding where they are not in UTF-8."""
    if not isinstance(signal, EpicsSignalBase) or told is None or told.isascii():
        return told
    record, _, _ = signal.pvname.partition(".")
    try:  # as numbers, which nobody decodes
        characters = EpicsSignalRO(f"{record}.EGU$", name=f"{signal.name}_units").get()
        return decoded(np.array(characters, np.uint8).tobytes())
    except Exception as error:  # no record, or none with EGU
        logger.info("the units of %s stay %r: %r", signal.pvname, told, error)
        return told


class BusyReader:
    """Reads a busy record, and makes a `Reading` of what a signal says.

    Attributes
    ----------
    problem : str or None
        Why the signal cannot be a busy record's, by what it said last.
    """

    def __init__(self, signal: Signal) -> None:
        self.pv = name_of(signal)
        self.is_epics = isinstance(signal, EpicsSignalBase)
        self.problem: str | None = None
        self._signal = signal
        self._reader = Reader(signal)
        self._was_flag = False  # an integer, and said 0 or 1

    @property
    def names(self) -> list[str]:
        """Of the values, as the record has them; empty where it has none, or is not connected."""
        return list(self._signal.metadata.get("enum_strs") or ())

    @property
    def type_problem(self) -> str | None:
        """Why a PV of its type cannot be a busy record's, known before it says anything; None where it can be."""
        if not self.is_epics or len(self.names) in (1, 2) or self._is_flag:
            return None
        return no_busy(self.pv, f"it has {len(self.names)} states")

    @property
    def _is_flag(self) -> bool:
        """Whether it is a single integer, as far as the control layer tells."""
        pv = read_pv(self._signal)
        kind = getattr(pv, "type", None)  # "time_int", or an enum of such names
        name = str(getattr(kind, "name", kind)).lower().split("_")[-1]
        return kind is None or (name in FLAGS and pv.nelm == 1)

    def get(self) -> Reading | None:
        """Ask the record itself; None where it cannot be had."""
        if not self._signal.connected:  # ophyd would wait for it
            return None
        try:
            return self.decode(*self._reader.get())
        except Exception as error:  # each control layer has its own
            logger.info("%s could not be read: %r", self.pv, error)
            return None

    def decode(self, value: Any, stamp: float | None, metadata: dict[str, Any]) -> Reading | None:
        """Make a reading of it; None where the signal is not connected or, by then with a `problem`, of no use."""
        if stamp is None or not self._signal.connected:  # its strings are known when it is
            return None
        names = self.names
        if isinstance(value, str):
            if value in (names or DEFAULT_NAMES):
                value = (names or DEFAULT_NAMES).index(value)
            elif value in ("0", "1"):  # what a fake signal of strings says at first
                value = int(value)
        whole = isinstance(value, int | np.integer)
        if names:
            fits = whole and len(names) <= 2  # such a record can be put to 2 and more
        elif self.is_epics:  # what counts or is a setting says something else first
            fits = whole and self._is_flag and (self._was_flag or value in (DONE, BUSY))
            self._was_flag = self._was_flag or fits
        else:
            fits = (whole or isinstance(value, float)) and value in (DONE, BUSY)
        if not fits:
            self.problem = no_busy(self.pv, f"it has {len(names)} states" if names else f"it says {value!r}")
            return None
        self.problem = None
        severity = int(metadata.get("severity") or 0)
        return Reading(int(value), stamp, severity, alarm_text(severity, int(metadata.get("status") or 0)))


def put_anew(signal: Signal, value: int, **how: Any) -> Signal:
    """Put to a signal, or to a new one for the same PV; returns the one that took it.

    ophyd misses that access came back with an IOC that was silent for too long: the signal stays read-only for good,
    while libca and a new signal know better.

    Raises
    ------
    ReadOnlyError
        The PV is read-only indeed.
    TimeoutError, DisconnectedError
        It is not connected.
    """
    try:
        signal.put(value, **how)
    except ReadOnlyError:
        if not isinstance(signal, EpicsSignal):
            raise
        signal = EpicsSignal(signal.pvname, signal.setpoint_pvname, name=signal.name)
        signal.put(value, **how)
    return signal


def put_that_raised(error: Exception) -> Put:
    """What became of a put that raised this."""
    return Put.LOST if isinstance(error, TimeoutError | DisconnectedError) else Put.REFUSED


def join_channel_access() -> None:
    """Let the calling thread use pyepics' channels: what a `Worker` for signals does first."""
    if ophyd.get_cl().name == "pyepics":
        ca.use_initial_context()
