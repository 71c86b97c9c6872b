"""A flyer's own lines to its records: direct on libca, or by any ophyd signal.

Both ways tell a `BusyListener` the same, and take the same requests, none of which blocks.

*Direct* (`BusyChannel`, `ArrayChannel`): each flyer has channels of its own, because a second
put-callback on a channel where one is pending blocks everything else of that IOC. Handlers
run in libca's own thread and decode no more than is needed; what they call must not block
and makes no blocking Channel Access call. What libca demands of them, besides what
``libca.py`` sees to:

* a request made inside a callback is not sent before somebody flushes: each one does;
* a ctypes callback must outlive the last event: there are four, made once for the process,
  that find their channel by a number, so that a late event of a closed channel finds none;
* everything is cleared before pyepics shuts libca down at exit.

*By signals* (`BusySignal`, `ArraySignal`): for other control layers and fake devices. One
worker thread a flyer carries everything, in order: news, puts and reads, which may block.
Nobody tells there what became of a put, see `Flight.put_returned`.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import itertools
import logging
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import ophyd
from ophyd import Device, EpicsSignal, EpicsSignalRO
from ophyd.signal import EpicsSignalBase, Signal
from ophyd.utils import DisconnectedError, ReadOnlyError

# isort: split
from epics import ca, dbr

from . import libca
from .flight import BUSY, DONE, PUT_DISCONNECTED, PUT_REFUSED, Reading
from .records import BusyStatus

logger = logging.getLogger(__name__)

PRIORITY = 0
"""Channel Access priority of our channels."""

_T = TypeVar("_T")

_DTYPES: dict[int, np.dtype[Any]] = {
    dbr.SHORT: np.dtype(np.int16),
    dbr.FLOAT: np.dtype(np.float32),
    dbr.CHAR: np.dtype(np.uint8),
    dbr.LONG: np.dtype(np.int32),
    dbr.DOUBLE: np.dtype(np.float64),
}


class ArrayReading(NamedTuple):
    """An array as one answer of the IOC brought it."""

    values: np.ndarray
    """One-dimensional; its length is the record's NORD at the moment of the answer."""
    stamp: float
    """The IOC's time stamp, seconds of the POSIX epoch."""


class ScalarReading(NamedTuple):
    """A value as one answer of the control layer brought it."""

    value: Any
    stamp: float
    """Seconds of the POSIX epoch."""


class BusyListener(Protocol):
    """Who hears from a line to a busy record: in libca's thread, or in a signal's worker."""

    def connected(self, reading: Reading) -> None:
        """The record is connected and found to be a binary; this is what it says."""

    def connection_lost(self) -> None:
        """The record is no longer connected."""

    def record_says(self, reading: Reading) -> None:
        """A monitor event came, other than the first of a subscription."""

    def unusable(self, problem: str) -> None:
        """The PV that connected can be no busy record."""


class _Line:
    """What all lines have in common."""

    def __init__(self, pv: str) -> None:
        self.pv = pv
        self.problem: str | None = None
        self._ready = threading.Event()

    @property
    def ready(self) -> bool:
        """Whether it is connected and was looked at: `problem` says whether it is of use."""
        return self._ready.is_set()

    def wait_ready(self, timeout: float | None) -> bool:
        """Wait until it is ready."""
        return self._ready.wait(timeout)


PutAnswer = Callable[[int | None, str], None]
"""Takes what became of a put-callback: its Channel Access status, None where nobody tells, and a text."""

_Answer = Callable[[libca.EventArgs], None]


class _Request(NamedTuple):
    """What waits for an answer of the IOC."""

    channel: int
    answer: _Answer
    failed: Callable[[], None]
    """There will be none: the channel was closed."""


_numbers = itertools.count(1)  # libca hands them back to us; 0 would come back as None
_channels: weakref.WeakValueDictionary[int, _Channel] = weakref.WeakValueDictionary()
_requests: dict[int, _Request] = {}  # under way


@libca.ConnectionHandler
def _on_connection(args: libca.ConnectionArgs) -> None:
    try:
        up = args.op == dbr.OP_CONN_UP
        if up:
            libca.keep_thread_state()  # its circuit's events come in this thread
        channel = _channels.get(libca.library().ca_puser(args.chid))
        if channel is not None:
            channel._connection_changed(up)
    except Exception:
        logger.exception("a connection handler failed")


@libca.EventHandler
def _on_event(args: libca.EventArgs) -> None:
    try:
        channel = _channels.get(args.usr)
        if isinstance(channel, BusyChannel) and args.status == dbr.ECA_NORMAL and args.dbr:
            channel._event(libca.TimeEnum.from_address(args.dbr))
    except Exception:
        logger.exception("a monitor handler failed")


@libca.EventHandler
def _on_count(args: libca.EventArgs) -> None:
    channel = _channels.get(args.usr)
    if isinstance(channel, CountChannel) and args.status == dbr.ECA_NORMAL and args.dbr:
        event = libca.TimeDouble.from_address(args.dbr)
        channel.tell(ScalarReading(event.value, event.stamp))


@libca.EventHandler
def _on_answer(args: libca.EventArgs) -> None:
    try:
        request = _requests.pop(args.usr, None)
        if request is not None:
            request.answer(args)
    except Exception:
        logger.exception("the handler of an answer failed")


def _close_all() -> None:
    for channel in list(_channels.values()):
        channel.close()


# Direct


@functools.cache
def _close_all_at_exit() -> None:
    libca.library()  # pyepics registers its own with it, which is to run after ours
    atexit.register(_close_all)


class _Channel(_Line):
    """A Channel Access channel of our own."""

    def __init__(self, pv: str) -> None:
        super().__init__(pv)
        self._number = next(_numbers)
        self._chid = ctypes.c_void_p()
        self._guard = threading.Lock()
        self._users = 0
        self._closed = False
        _close_all_at_exit()
        _channels[self._number] = self
        with libca.attached() as lib:
            libca.must(
                lib.ca_create_channel(pv.encode(), _on_connection, self._number, PRIORITY, ctypes.byref(self._chid)),
                f"create a channel to {pv}",
            )
            self._finalizer = weakref.finalize(self, _clear, self._number, self._chid)
            self._finalizer.atexit = False  # _close_all does it, before pyepics' own
            lib.ca_flush_io()

    def close(self) -> None:
        """Release the channel; no handler is called afterwards. Who waits for an answer learns that none will come."""
        self._ready.clear()
        _channels.pop(self._number, None)
        with self._guard:
            self._closed = True
            in_use = self._users > 0
        if not in_use:
            self._release()

    def _release(self) -> None:
        self._finalizer()
        for number, request in list(_requests.items()):
            if request.channel == self._number and _requests.pop(number, None) is not None:
                request.failed()

    @contextmanager
    def _in_use(self) -> Iterator[Any]:
        """libca, for a request on this channel; None where it is closed. Who uses it last releases it."""
        with self._guard:
            closed = self._closed
            self._users += not closed
        if closed:
            yield None
            return
        try:
            with libca.attached() as lib:
                yield lib
        finally:
            with self._guard:
                self._users -= 1
                last = self._closed and self._users == 0
            if last:
                self._release()

    @property
    def host(self) -> str | None:
        """Address and port of the IOC that serves it; None while it is not connected."""
        with self._in_use() as lib:
            return lib.ca_host_name(self._chid).decode() if lib is not None and self.ready else None

    def _connection_changed(self, up: bool) -> None:
        raise NotImplementedError

    def _subscribe(self, dbr_type: int, mask: int, handler: Any) -> None:
        subscription = ctypes.c_void_p()
        with libca.attached() as lib:
            libca.must(
                lib.ca_create_subscription(
                    dbr_type, 1, self._chid, mask, handler, self._number, ctypes.byref(subscription)
                ),
                f"subscribe to {self.pv}",
            )
            lib.ca_flush_io()

    def _get(self, dbr_type: int, count: int, answer: _Answer, failed: Callable[[int], None]) -> None:
        """Ask; `answer` is called in libca's thread, or `failed` where nothing can be had, with a status."""
        number, status = next(_numbers), PUT_DISCONNECTED
        _requests[number] = _Request(self._number, answer, lambda: failed(PUT_DISCONNECTED))
        with self._in_use() as lib:
            if lib is not None:
                status = lib.ca_array_get_callback(dbr_type, count, self._chid, _on_answer, number)
                lib.ca_flush_io()
        if status != dbr.ECA_NORMAL and _requests.pop(number, None) is not None:
            failed(int(status))


def _clear(number: int, chid: ctypes.c_void_p) -> None:
    _channels.pop(number, None)
    with libca.attached() as lib:
        lib.ca_clear_channel(chid)  # its subscriptions and requests go with it
        lib.ca_flush_io()


class _PutChannel(_Channel):
    """For put-callbacks alone: to close it takes back one that is pending, be it queued in the IOC."""

    def __init__(self, pv: str, connected: Callable[[], None]) -> None:
        self.pending: int | None = None
        self._connected = connected
        super().__init__(pv)

    def put_callback(self, value: int, answer: PutAnswer) -> None:
        number = self.pending = next(_numbers)

        def back(status: int) -> None:
            if self.pending == number:
                self.pending = None
            text = "" if status == dbr.ECA_NORMAL else libca.status_text(status)
            answer(status, text + " (DISP, or access security?)" * (status == PUT_REFUSED))

        status = PUT_DISCONNECTED
        _requests[number] = _Request(self._number, lambda args: back(args.status), lambda: back(PUT_DISCONNECTED))
        with self._in_use() as lib:
            if lib is not None:
                status = lib.ca_array_put_callback(
                    dbr.ENUM, 1, self._chid, ctypes.byref(ctypes.c_uint16(value)), _on_answer, number
                )
                lib.ca_flush_io()
        if status != dbr.ECA_NORMAL and _requests.pop(number, None) is not None:
            back(int(status))

    def _connection_changed(self, up: bool) -> None:
        if up:
            self._ready.set()
            self._connected()
        else:
            self._ready.clear()


class BusyChannel(_Channel):
    """A flyer's line to its busy record.

    Parameters
    ----------
    pv : str
        The PV of the busy record.
    listener : BusyListener
        Who hears of it, in libca's thread.

    Attributes
    ----------
    reading : Reading or None
        The latest news; None while the record is not connected.
    problem : str or None
        Why the PV that connected can be no busy record.
    """

    def __init__(self, pv: str, listener: BusyListener) -> None:
        self.reading: Reading | None = None
        self._listener = listener
        self._is_binary = False
        self._announced = False
        self._putter = _PutChannel(pv, self._announce_once)
        super().__init__(pv)
        self._subscribe(dbr.TIME_ENUM, dbr.DBE_VALUE | dbr.DBE_ALARM, _on_event)

    def close(self) -> None:
        """Release it; no handler is called afterwards."""
        self._putter.close()
        super().close()

    def put(self, value: int) -> None:
        """Put without callback."""
        with self._in_use() as lib:
            if lib is not None:
                lib.ca_array_put(dbr.ENUM, 1, self._chid, ctypes.byref(ctypes.c_uint16(value)))
                lib.ca_flush_io()

    def put_callback(self, value: int, answer: PutAnswer) -> None:
        """Put with callback; `answer` is called with the Channel Access status and its text, once."""
        self._putter.put_callback(value, answer)

    def forget_put(self) -> None:
        """Take back a put-callback that is pending; a second one on its channel would block the circuit."""
        if self._putter.pending is not None:
            self._putter.close()
            self._announced = False
            self._ready.clear()
            self._putter = _PutChannel(self.pv, self._announce_once)
            self._announce_once()  # it may have connected before it was ours

    def read(self, answer: Callable[[Reading | None], None]) -> None:
        """Ask the record itself; `answer` is called with what it says, None where it could not be had."""

        def decode(args: libca.EventArgs) -> None:
            if args.status != dbr.ECA_NORMAL or not args.dbr:
                answer(None)
                return
            reading, known = _reading(libca.TimeEnum.from_address(args.dbr)), self.reading
            if known is not None and reading.stamp > known.stamp:  # events can lag behind
                self.reading = reading
            answer(reading)

        self._get(dbr.TIME_ENUM, 1, decode, lambda status: answer(None))

    def _connection_changed(self, up: bool) -> None:
        self._ready.clear()
        self.reading, self.problem, self._is_binary, self._announced = None, None, False, False
        if not up:
            self._listener.connection_lost()
            return
        field_type = libca.library().ca_field_type(self._chid)
        if field_type == dbr.ENUM:
            # Where it fails it is disconnected again, and will be asked anew.
            self._get(dbr.CTRL_ENUM, 1, self._judge_enum, lambda status: None)
        else:
            self._refuse(f"it is a {dbr.Name(field_type)}")

    def _judge_enum(self, args: libca.EventArgs) -> None:
        if args.status != dbr.ECA_NORMAL or not args.dbr:
            return
        strings = libca.CtrlEnum.from_address(args.dbr).strings
        if strings > 2:
            self._refuse(f"it has {strings} states")
            return
        self._is_binary = True
        self._announce_once()

    def _refuse(self, what: str) -> None:
        self.problem = f"{self.pv} is no busy record: {what}, and a binary (busy or bo) is needed"
        self._ready.set()
        self._listener.unusable(self.problem)

    def _announce_once(self) -> None:
        """When all is there: the first event, the record's type, and the channel for put-callbacks."""
        reading = self.reading
        if reading is None or self._announced or not (self._is_binary and self._putter.ready):
            return
        self._announced = True
        self._ready.set()
        self._listener.connected(reading)

    def _event(self, event: libca.TimeEnum) -> None:
        self.reading = reading = _reading(event)
        if self._announced:
            self._listener.record_says(reading)
        else:
            self._announce_once()


def _reading(event: libca.TimeEnum) -> Reading:
    return Reading(event.value, event.stamp, event.severity, event.status)


class ArrayChannel(_Channel):
    """A flyer's line to an array; asked, not monitored.

    Parameters
    ----------
    pv : str
    text : bool
        Whether characters are needed, and not numbers.

    Attributes
    ----------
    dtype : numpy.dtype or None
        Type of its elements, as Channel Access has it: unsigned 16 bits come as signed 32,
        and what is longer as double; None while it is not connected.
    size : int
        Most elements it can have (NELM).
    description : dict
        Source, and as its record has them units, precision and control limits.
    problem : str or None
        Why the PV that connected can be no column of numbers.
    """

    def __init__(self, pv: str, *, text: bool = False) -> None:
        self._needed = "characters (FTVL CHAR)" if text else "numbers"
        self._types = [dbr.CHAR] if text else list(_DTYPES)
        self.dtype: np.dtype[Any] | None = None
        self.size = 0
        self.description: dict[str, Any] = {"source": f"PV:{pv}"}
        self._type = -1
        super().__init__(pv)

    def fetch(self, answer: Callable[[ArrayReading | str], None]) -> None:
        """Ask for the array; `answer` gets it in libca's thread, or a sentence why it could not be had."""

        def decode(args: libca.EventArgs) -> None:
            if args.status != dbr.ECA_NORMAL or not args.dbr:
                answer(libca.status_text(args.status))
                return
            dtype = _DTYPES[dbr.native_type(args.type)]
            raw = ctypes.string_at(args.dbr + dbr.value_offset[args.type], args.count * dtype.itemsize)
            answer(ArrayReading(np.frombuffer(raw, dtype), libca.Time.from_address(args.dbr).stamp))

        if not self.ready or self.problem is not None:
            answer(self.problem or "it is not connected")
            return
        # A count of 0 asks for as many elements as the record holds now (NORD).
        self._get(self._type + dbr.TIME_STRING, 0, decode, lambda status: answer(libca.status_text(status)))

    def _connection_changed(self, up: bool) -> None:
        self._ready.clear()
        self.problem = None
        if not up:
            return
        lib = libca.library()
        self._type = lib.ca_field_type(self._chid)
        self.size = lib.ca_element_count(self._chid)
        if self._type not in self._types:
            self.problem = f"{self.pv} holds {dbr.Name(self._type)}, and {self._needed} are needed"
            self._ready.set()
        else:
            self._get(self._type + dbr.CTRL_STRING, 1, self._describe, lambda status: None)

    def _describe(self, args: libca.EventArgs) -> None:
        if args.status != dbr.ECA_NORMAL or not args.dbr:
            return  # disconnected again
        control = dbr.Map[args.type].from_address(args.dbr)
        self.description = {
            "source": f"PV:{self.pv}",
            "units": _decoded(control.units),
            "precision": getattr(control, "precision", None),
            "lower_ctrl_limit": control.lower_ctrl_limit,
            "upper_ctrl_limit": control.upper_ctrl_limit,
        }
        self.dtype = _DTYPES[self._type]
        self._ready.set()


class _Count:
    """What is known of a number that is watched while it counts.

    Attributes
    ----------
    first, latest : ScalarReading or None
        What it said when it was first listened to, and last. Only the first's stamp is of the value: a
        record posts NORD before it has its new stamp.
    """

    first: ScalarReading | None = None
    latest: ScalarReading | None = None

    def tell(self, reading: ScalarReading) -> None:
        """Keep it."""
        self.latest = reading
        self.first = self.first or reading


class CountChannel(_Count, _Channel):
    """A line to a number that is watched while it counts."""

    def __init__(self, pv: str) -> None:
        super().__init__(pv)
        self._subscribe(dbr.TIME_DOUBLE, dbr.DBE_VALUE, _on_count)

    def _connection_changed(self, up: bool) -> None:
        self.first = self.latest = None
        if up:
            self._ready.set()
        else:
            self._ready.clear()


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")


# By signals

DEFAULT_NAMES = [BusyStatus.done.value, BusyStatus.busy.value]
"""Of a busy record's values; those of a site count where they are known."""

ANSWER_GRACE = 1.0
"""Seconds that the answer to an earlier put-callback may need; a second one would block the circuit."""

LENGTH_TRIES = 20
"""How often an array is asked for whose length and NORD differ."""


class Worker:
    """A thread of one flyer that may wait, for its signals or its subscribers; it starts with the first task."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._used = False
        self._thread: int | None = None

    @property
    def here(self) -> bool:
        """Whether this is its thread."""
        return threading.get_ident() == self._thread

    def do(self, task: Callable[[], None]) -> bool:
        """Do it soon, after what was asked for before; whether it will be: not where the worker was stopped."""
        self._used = True
        try:
            self._pool.submit(self._guarded, task)
        except RuntimeError:  # it was stopped, or the interpreter exits
            logger.debug("a task came too late", exc_info=True)
            return False
        return True

    def ask(self, ask: Callable[[], _T], answer: Callable[[_T | str], None]) -> None:
        """Do so soon; `answer` gets what came of it, or a sentence why nothing did."""

        def task() -> None:
            try:
                reading: _T | str = ask()
            except Exception as error:  # each control layer has its own
                reading = str(error) or repr(error)
            answer(reading)

        if not self.do(task):
            answer("it was closed")

    def wait(self, timeout: float) -> None:
        """Wait until all is done that was asked for, no longer than `timeout`."""
        if self._used and not self.here:
            done = threading.Event()
            if self.do(done.set):
                done.wait(timeout)

    def stop(self, timeout: float) -> None:
        """Do what was asked for, and no more; wait for it no longer than `timeout`."""
        self.wait(timeout)
        self._pool.shutdown(wait=False)

    def _guarded(self, task: Callable[[], None]) -> None:
        try:
            if self._thread is None:
                self._thread = threading.get_ident()
                _join_channel_access()
            task()
        except Exception:
            logger.exception("a task of %s failed", threading.current_thread().name)


def _join_channel_access() -> None:
    if ophyd.get_cl().name == "pyepics":
        ca.use_initial_context()


class Reader:
    """Reads a signal afresh, with the stamp of that very read.

    An EPICS signal that somebody monitors keeps the stamp of its latest event: so it is read
    by another one, without monitor, that is made when the first is connected.
    """

    def __init__(self, signal: Signal, *, as_string: bool = False) -> None:
        self._signal = signal
        self._as_string = as_string
        self._afresh: Signal | None = None

    def get(self) -> tuple[Any, float, dict[str, Any]]:
        """Value, stamp and metadata; raises what the control layer raises."""
        signal = self._signal
        if not isinstance(signal, EpicsSignalBase):
            return signal.get(as_string=self._as_string), signal.timestamp, signal.metadata
        if self._afresh is None:
            signal.wait_for_connection()
            self._afresh = EpicsSignalRO(signal.pvname, name=f"{signal.name}_reader", auto_monitor=False)
        value = self._afresh.get(as_string=self._as_string, use_monitor=False)
        return value, self._afresh.timestamp, self._afresh.metadata


class BusySignal(_Line):
    """A flyer's line to its busy record by an ophyd signal; the like of `BusyChannel`.

    A signal's own subscribers hear the echo of its own puts, with the value asked for and the
    client's clock. So an EPICS signal is listened to, and read, by further signals for the
    same PV, made once it is connected: a monitored one for the events, and one without monitor
    for fresh reads, as the first keeps the stamp of the latest event. Of another signal what
    it says during our own put is not heard; a read tells.

    Parameters
    ----------
    signal : Signal
        Of the busy record, what Busy and Done are put to.
    worker : Worker
        Where it is put to and asked, and where the listener is told.
    listener : BusyListener
        Who hears of it.
    """

    def __init__(self, signal: Signal, worker: Worker, listener: BusyListener) -> None:
        super().__init__(name_of(signal))
        self.reading: Reading | None = None
        self._answered = threading.Event()  # our latest put-callback
        self._answered.set()
        self._worker = worker
        self._listener = listener
        self._signal = self._setpoint = signal
        self._is_epics = isinstance(signal, EpicsSignalBase)
        self._monitor: Signal | None = None
        self._reader = Reader(signal)
        self._epoch = 0  # of the connection
        self._putting = False
        signal.subscribe(self._metadata_changed, event_type=Signal.SUB_META, run=False)
        self._worker.do(self._look)

    def close(self) -> None:
        """Stop listening."""
        self._ready.clear()
        self._signal.clear_sub(self._metadata_changed)
        if self._monitor is not None:
            self._monitor.clear_sub(self._value_changed)

    @property
    def host(self) -> str | None:
        """Who serves it, where the control layer tells."""
        return host_of(self._signal)

    def forget_put(self) -> None:
        """Nothing can take it back here."""

    def put(self, value: int) -> None:
        """Put without callback, and look: of an event that came while others were at it, nobody may have told."""
        self._worker.do(functools.partial(self._put, value))
        self._worker.do(self._look_again)

    def put_callback(self, value: int, answer: PutAnswer) -> None:
        """Put with callback; `answer` is called when it is back, without a status."""
        self._worker.do(functools.partial(self._put_and_answer, value, answer))

    def read(self, answer: Callable[[Reading | None], None]) -> None:
        """Ask the record itself; `answer` is called with what it says, None where it could not be had."""
        if not self._worker.do(lambda: answer(self._ask())):
            answer(None)

    # In the worker's thread

    def _put(self, value: int, **how: Any) -> None:
        self._putting = True
        try:
            self._setpoint = put_anew(self._setpoint, value, **how)
        finally:
            self._putting = False
        if not self._is_epics:  # no echo, but what it says now
            self._look_again()

    def _look_again(self) -> None:
        reading = self._ask()
        if reading is not None:
            self._event(reading)

    def _put_and_answer(self, value: int, answer: PutAnswer) -> None:
        if not self._answered.wait(ANSWER_GRACE):
            answer(PUT_REFUSED, "an earlier put-callback on this channel was never answered")
            return
        epoch = self._epoch
        self._answered = answered = threading.Event()

        def back() -> None:
            if epoch == self._epoch:  # else the loss was told already
                answer(None, "")

        def called_back(**_: Any) -> None:
            answered.set()
            self._worker.do(back)

        try:
            if self._is_epics:
                self._put(value, use_complete=True, callback=called_back)
            else:
                self._put(value)
        except Exception as error:
            answered.set()
            answer(put_status(error), str(error))
        else:
            if not self._is_epics:
                called_back()

    def _ask(self) -> Reading | None:
        epoch = self._epoch
        try:
            value, stamp, metadata = self._reader.get()
        except Exception as error:
            logger.info("%s could not be read: %r", self.pv, error)
            return None
        reading = self._reading(value, stamp, metadata)
        return reading if epoch == self._epoch and self._signal.connected else None

    def _look(self) -> None:
        """Take up a connection: listen, and ask, as it may bring no event."""
        if not self._signal.connected:
            return
        if self._monitor is None:
            self._monitor = self._signal
            if self._is_epics:
                self._monitor = EpicsSignalRO(self.pv, name=f"{self._signal.name}_monitor", auto_monitor=True)
            self._monitor.subscribe(self._value_changed, run=False)
        if self.reading is None:
            self._look_again()

    def _event(self, reading: Reading) -> None:
        if reading == self.reading:  # a new subscription may tell twice
            return
        first, self.reading = self.reading is None, reading
        if first:
            self._ready.set()
            self._listener.connected(reading)
        else:
            self._listener.record_says(reading)

    def _lost(self) -> None:
        self._epoch += 1
        self._ready.clear()
        self.reading, self.problem = None, None
        self._answered.set()
        self._listener.connection_lost()

    def _reading(self, value: Any, stamp: float | None, metadata: dict[str, Any]) -> Reading | None:
        if stamp is None or not self._signal.connected:  # its strings are known when it is
            return None
        number = self._number(value, self._signal.metadata.get("enum_strs"))
        if number is None:
            return None
        return Reading(number, stamp, int(metadata.get("severity") or 0), int(metadata.get("status") or 0))

    def _number(self, value: Any, strings: Iterable[str] | None) -> int | None:
        names = list(strings or ())
        if isinstance(value, str):
            if value in (names or DEFAULT_NAMES):
                value = (names or DEFAULT_NAMES).index(value)
            elif value in ("0", "1"):  # what a fake signal of strings says at first
                value = int(value)
        numeric = isinstance(value, int | np.integer) or (isinstance(value, float) and not self._is_epics)
        if len(names) <= 2 and numeric and value in (DONE, BUSY) and (names or not self._is_epics):
            self.problem = None
            return int(value)
        what = f"it has {len(names)} states" if names else f"it says {value!r}"
        self.problem = f"{self.pv} is no busy record: {what}, and a binary (busy or bo) is needed"
        self._ready.set()
        self._listener.unusable(self.problem)
        return None

    # In whatever thread the control layer chooses

    def _value_changed(self, value: Any = None, timestamp: float | None = None, **metadata: Any) -> None:
        if self._putting and self._worker.here:
            return  # an echo

        def news() -> None:
            reading = self._reading(value, timestamp, metadata)
            if reading is not None:
                self._event(reading)

        self._worker.do(news)

    def _metadata_changed(self, connected: bool = True, **_: Any) -> None:
        if connected:
            self._worker.do(self._look)
        elif self._ready.is_set() or self.reading is not None:
            self._worker.do(self._lost)


class ArraySignal:
    """A flyer's line to an array by an ophyd signal; the like of `ArrayChannel`.

    Parameters
    ----------
    signal : Signal
        Of the array.
    worker : Worker
        Where it is asked, and the answer given.
    nord : Signal, optional
        How many elements it holds. A check: where somebody else monitors an array, pyepics
        asks for no more elements than its latest event had.
    """

    def __init__(self, signal: Signal, worker: Worker, nord: Signal | None = None) -> None:
        self.problem: str | None = None
        self.pv = name_of(signal)
        self._worker = worker
        self._signal = signal
        self._reader = Reader(signal)
        self._nord = nord if isinstance(signal, EpicsSignalBase) else None

    @property
    def ready(self) -> bool:
        """Whether it is connected."""
        return bool(self._signal.connected)

    def wait_ready(self, timeout: float | None) -> bool:
        """Wait until it is connected."""
        try:
            self._signal.wait_for_connection(timeout)
        except TimeoutError:
            return False
        return self.dtype is not None or self.problem is not None

    def close(self) -> None:
        """Nothing is held."""

    @property
    def host(self) -> str | None:
        """Who serves it, where the control layer tells."""
        return host_of(self._signal)

    @property
    def description(self) -> dict[str, Any]:
        """Source, and as its record has them units, precision and control limits."""
        return dict(self._signal.describe()[self._signal.name])

    @property
    def size(self) -> int:
        """Most elements it can have: those it has now, where nobody tells."""
        pv = getattr(self._signal, "_read_pv", None)
        return int(getattr(pv, "nelm", None) or len(self._ask().values))

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """Type of its elements; None while it is not connected."""
        try:
            return self._ask().values.dtype
        except Exception as error:
            logger.info("%s could not be read: %r", self.pv, error)
            return None

    def fetch(self, answer: Callable[[ArrayReading | str], None]) -> None:
        """Ask for the array; `answer` gets it in the worker's thread, or a sentence why it could not be had."""
        self._worker.ask(self._ask, answer)

    def _ask(self) -> ArrayReading:
        for _ in range(LENGTH_TRIES):
            value, stamp, _ = self._reader.get()
            values = np.atleast_1d(np.array(value, self._own_dtype()))
            if self._nord is None or len(values) == self._nord.get(use_monitor=False):
                break
        else:
            raise ValueError(f"{self.pv} came with {len(values)} elements, and NORD says otherwise")
        if values.ndim != 1 or values.dtype.kind not in "iuf":
            self.problem = f"{self.pv} holds {values.dtype}, and numbers are needed"
            raise ValueError(self.problem)
        self.problem = None
        return ArrayReading(values, float(stamp))

    def _own_dtype(self) -> np.dtype[Any] | None:
        """The PV's, where pyepics tells: of a single element it makes a number of Python's own."""
        if ophyd.get_cl().name != "pyepics":
            return None
        field_type = getattr(getattr(self._signal, "_read_pv", None), "ftype", None)
        return None if field_type is None else _DTYPES.get(dbr.native_type(field_type))


class ScalarSignal:
    """A flyer's line to a value that is read once a flight.

    Parameters
    ----------
    signal : Signal
        Of the value; ophyd reads and describes it.
    worker : Worker
        Where it is asked, and the answer given.
    """

    def __init__(self, signal: Signal, worker: Worker) -> None:
        self.pv = name_of(signal)
        self._signal = signal
        self._worker = worker
        self._reader = Reader(signal, as_string=getattr(signal, "_string", False))

    @property
    def description(self) -> dict[str, Any]:
        """ophyd's own."""
        return dict(self._signal.describe()[self._signal.name])

    def fetch(self, answer: Callable[[ScalarReading | str], None]) -> None:
        """Ask for it; `answer` gets it in the worker's thread, or a sentence why it could not be had."""
        self._worker.ask(self._ask, answer)

    def _ask(self) -> ScalarReading:
        value, stamp, _ = self._reader.get()
        return ScalarReading(value, stamp)


class CountSignal(_Count):
    """The like of `CountChannel` by an ophyd signal, whose PV ophyd goes on monitoring when it is closed."""

    def __init__(self, signal: Signal) -> None:
        self._signal = signal
        signal.subscribe(self._value_changed)

    def close(self) -> None:
        """Listen no more."""
        self._signal.clear_sub(self._value_changed)

    @property
    def host(self) -> str | None:
        """Who serves it, where the control layer tells."""
        return host_of(self._signal)

    def _value_changed(self, value: Any = None, timestamp: float | None = None, **_: Any) -> None:
        if timestamp is not None:
            self.tell(ScalarReading(value, timestamp))


BusyLine = BusyChannel | BusySignal
ArrayLine = ArrayChannel | ArraySignal


def put_status(error: Exception) -> int:
    """The Channel Access status that comes next to what a put raised."""
    return PUT_DISCONNECTED if isinstance(error, TimeoutError | DisconnectedError) else PUT_REFUSED


def put_anew(signal: Signal, value: int, **how: Any) -> Signal:
    """Put to a signal, or to a new one for the same PV; returns the one that took it.

    ophyd misses that access came back with an IOC that was silent for too long: the signal
    stays read-only for good, while libca and a new signal know better.

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


def name_of(signal: Signal) -> str:
    """Of its PV; that of a signal without PV."""
    name: str = getattr(signal, "pvname", signal.name)
    return name


def host_of(signal: Signal) -> str | None:
    """Who serves it, where the control layer tells; pyepics does."""
    pv = getattr(signal, "_read_pv", None)
    if not getattr(pv, "connected", False):  # pyepics would wait for it
        return None
    host: str | None = getattr(pv, "host", None)
    return host


def state_of(busy: Device) -> Any:
    """The signal of a busy record: a BusyRecord's `state`, or the signal itself."""
    state = getattr(busy, "state", busy)
    if not isinstance(state, Signal):
        raise TypeError(f"{busy.name} is a {type(busy).__name__} without `state`: a BusyRecord or a signal is needed")
    return state


def why_not_direct(signals: Iterable[Signal]) -> str | None:
    """Why these signals' PVs cannot be had directly from libca; None: they can."""
    for signal in signals:
        if not isinstance(signal, EpicsSignalBase):
            return f"{signal.name} is a {type(signal).__name__}"
        if signal.cl.name != "pyepics":
            return f"ophyd's control layer is {signal.cl.name}"
        if getattr(signal, "setpoint_pvname", signal.pvname) != signal.pvname:
            return f"{signal.name} is put to another PV than it is read from"
    try:
        libca.library()
    except libca.Unavailable as reason:
        return str(reason)
    return None
