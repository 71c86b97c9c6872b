"""Ways of waiting for Done, each measured as a program of its own: see ``latency.py``.

``python -m busy_callback_flyer.tools.ways WAY PV TIMEOUT`` connects, and says in a line of JSON what
it runs on. For each line of its standard input it flies once, in a RunEngine, and answers with a
line of JSON: times of its clock, in seconds of the POSIX epoch (`Way`). It ends with its input.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import bluesky.plan_stubs as bps
from bluesky import RunEngine
from bluesky.protocols import Status

from ..engine.ports import BUSY, DONE

if TYPE_CHECKING:
    from bluesky.utils import MsgGenerator

    from ..devices.polling import PollingFlyer

__all__ = ["WAYS", "Way", "make_way", "name_in_words", "serve"]

CONNECT_TIMEOUT = 15.0


class Way(Protocol):
    """One way of waiting for Done; made connected."""

    client: str
    """What it runs on, the control system's library among it."""

    def kickoff(self) -> Status:
        """Put Busy; the status is to finish as soon as the client knows of Done."""
        ...

    def monitor(self, pvs: Sequence[str], hears: Callable[[], None]) -> None:
        """Subscribe to other PVs, as this way's users would."""
        ...

    def marks(self) -> dict[str, float]:
        """More times of the last flight.

        ``put``, ``busy`` (the client knows of Busy) and ``busy_stamp`` (of the IOC) bound the difference
        of the clocks; ``event`` is when the handler of Done began, ``finished`` when the flight was.
        """
        ...


# The programs


def serve(make: Callable[[], Way], timeout: float) -> None:
    """Fly at each line of the standard input, see above."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches whoever started us, too, and it is theirs to act
    with contextlib.redirect_stdout(sys.stderr) as _, open(sys.__stdout__.fileno(), "w", closefd=False) as out:  # type: ignore[union-attr]
        run_engine = RunEngine({}, context_managers=[])
        way = make()
        print(json.dumps({"client": way.client}), file=out, flush=True)
        for _line in sys.stdin:
            print(json.dumps(_fly(run_engine, way, timeout)), file=out, flush=True)


def _fly(run_engine: RunEngine, way: Way, timeout: float) -> dict[str, float]:
    times: dict[str, float] = {}

    def kickoff() -> Status:
        times["kickoff"] = time.time()
        return way.kickoff()

    def finished(_status: Status) -> None:
        times["known"] = time.time()

    def plan() -> MsgGenerator[None]:
        flight = _Flight(kickoff, finished)
        yield from bps.trigger(flight, group="flight")
        yield from bps.wait("flight", timeout=timeout + 1.0)  # a flyer that gives up in time tells more
        times["next"] = time.time()

    run_engine(plan())
    return times | way.marks()


class _Flight:
    """What the RunEngine triggers."""

    name = "flight"
    parent = None

    def __init__(self, kickoff: Callable[[], Status], finished: Callable[[Status], None]) -> None:
        self._kickoff = kickoff
        self._finished = finished

    def trigger(self) -> Status:
        status = self._kickoff()
        status.add_callback(self._finished)  # before the RunEngine adds its own
        return status


# By ophyd. It is imported where it is used: that starts Channel Access, which other clients do without.


def pyepics_in_words() -> str:
    """The versions of pyepics and of the libca that it loaded."""
    from ..channels.private_names import library_file

    file = Path(library_file())
    owner = next((name for name in ("epicscorelibs", "epics") if name in file.parts), None)
    owned = {"epicscorelibs": "libca of epicscorelibs", "epics": "its own libca", None: file.name}[owner]
    return f"pyepics {version('pyepics')} on {owned}" + (f" {version(owner)}" if owner == "epicscorelibs" else "")


class ByOphyd:
    """What the ways by ophyd have in common."""

    control_layer = staticmethod(pyepics_in_words)

    def __init__(self) -> None:
        self.client = f"ophyd {version('ophyd')}, {self.control_layer()}"
        self._monitors: list[Any] = []

    def monitor(self, pvs: Sequence[str], hears: Callable[[], None]) -> None:
        """Subscribe to an EpicsSignalRO of each."""
        from ophyd import EpicsSignalRO

        signals = [EpicsSignalRO(pv, name=pv, auto_monitor=True) for pv in pvs]
        for signal_ in signals:
            signal_.wait_for_connection(timeout=CONNECT_TIMEOUT)
            signal_.subscribe(lambda **_: hears(), run=False)
        self._monitors += signals

    def marks(self) -> dict[str, float]:
        """None."""
        return {}


class ByFlyer(ByOphyd):
    """By the kickoff status of a flyer of ours."""

    def __init__(self, flyer: Any) -> None:
        super().__init__()
        self._flyer = flyer
        flyer.wait_for_connection(timeout=CONNECT_TIMEOUT)

    def kickoff(self) -> Status:
        """As a plan does."""
        status: Status = self._flyer.kickoff()
        return status

    def marks(self) -> dict[str, float]:
        """From the flight's timeline."""
        timeline = self._flyer.timeline
        marks = {"event": timeline["done"].client, "finished": timeline["finished"].client}
        if "busy" in timeline and timeline["busy"].stamp is not None:
            busy = timeline["busy"]
            marks |= {"put": timeline["put"].client, "busy": busy.client, "busy_stamp": busy.stamp}
        return marks


class ByMonitoredSignal(ByOphyd):
    """By a signal that is monitored, apart from the one that is put to, as that would hear its echo."""

    def __init__(self, pv: str) -> None:
        from ophyd import EpicsSignal, EpicsSignalRO

        super().__init__()
        self._busy = EpicsSignal(pv, name="busy")
        self._monitor = EpicsSignalRO(pv, name="monitor", auto_monitor=True)
        for signal_ in (self._busy, self._monitor):
            signal_.wait_for_connection(timeout=CONNECT_TIMEOUT)


class BySubscription(ByMonitoredSignal):
    """By ophyd's SubscriptionStatus, without the replay of the last event, which would finish it early."""

    def kickoff(self) -> Status:
        """Subscribe, then put."""
        from ophyd.status import SubscriptionStatus

        def done(*, value: int, **_: Any) -> bool:
            return value == DONE  # with or without a Busy before: of a short flight both may come as one event

        status: Status = SubscriptionStatus(self._monitor, done, run=False)
        self._busy.put(BUSY)
        return status


class ByPutCallback(ByOphyd):
    """By the put-callback alone, as ``EpicsSignal(put_complete=True)`` has it."""

    def __init__(self, pv: str) -> None:
        from ophyd import EpicsSignal

        super().__init__()
        self._busy = EpicsSignal(pv, name="busy", put_complete=True)
        self._busy.wait_for_connection(timeout=CONNECT_TIMEOUT)

    def kickoff(self) -> Status:
        """Set it."""
        status: Status = self._busy.set(BUSY)
        return status


class ByPolledCache(ByMonitoredSignal):
    """By looking at a monitored signal's cached value again and again: no traffic, but a thread."""

    def __init__(self, pv: str, interval: float) -> None:
        super().__init__(pv)
        self._interval = interval

    def kickoff(self) -> Status:
        """Put, then look from a thread."""
        from ophyd.status import Status as OphydStatus

        status = OphydStatus()
        self._monitor.get()
        before = self._monitor.timestamp  # the cache says Done of the flight before, too

        def look() -> None:
            while self._monitor.get() != DONE or self._monitor.timestamp <= before:
                time.sleep(self._interval)
            status.set_finished()

        self._busy.put(BUSY)
        threading.Thread(target=look, daemon=True).start()
        return status  # type: ignore[no-any-return]


# By their names

WAYS = ("direct", "ophyd", "subscribe", "put-callback", "poll-50", "cache-10")
"""Those of the package; ``poll-N`` and ``cache-N`` with any number of milliseconds."""

_IN_WORDS = {
    "direct": "BusyFlyer, direct",
    "ophyd": "BusyFlyer, ophyd events",
    "subscribe": "ophyd SubscriptionStatus",
    "put-callback": "ophyd put_complete",
}


def name_in_words(way: str) -> str:
    """What a table calls it.

    Raises
    ------
    ValueError
        There is none of this name.
    """
    if way in _IN_WORDS:
        return _IN_WORDS[way]
    kind, milliseconds = _polled(way)
    return f"polling {milliseconds:g} ms" if kind == "poll" else f"polling a cache, {milliseconds:g} ms"


def _polled(way: str) -> tuple[str, float]:
    kind, _, interval = way.partition("-")
    with contextlib.suppress(ValueError):
        if kind in ("poll", "cache") and 0 < float(interval) < float("inf"):
            return kind, float(interval)
    raise ValueError(f"{way!r} is no way of waiting: {', '.join(WAYS)}, with any number of milliseconds")


def make_way(way: str, pv: str, timeout: float) -> Way:
    """One of the package's own, at this busy PV; a flight may take `timeout` seconds."""
    name_in_words(way)
    if way == "subscribe":
        return BySubscription(pv)
    if way == "put-callback":
        return ByPutCallback(pv)
    if way.startswith("cache"):
        return ByPolledCache(pv, _polled(way)[1] / 1000)
    options: dict[str, Any] = {"flight_timeout": timeout, "when_busy": "fail"}
    if way.startswith("poll"):
        flyer = _polling_flyer(pv, **options)
        flyer.poll_sleep_interval_s = _polled(way)[1] / 1000
        return ByFlyer(flyer)
    from ..devices.make import make_flyer

    options["events"] = "ophyd" if way == "ophyd" else "direct"
    return ByFlyer(make_flyer("flyer", busy=pv, arrays={}, **options))


def _polling_flyer(pv: str, **options: Any) -> PollingFlyer:
    from ophyd import Component

    from ..devices.polling import PollingFlyer
    from ..devices.records import BusyRecord

    class Bare(PollingFlyer):
        busy = Component(BusyRecord, pv, kind="config")
        tArr = xArr = yArr = None  # noqa: N815

    return Bare(name="flyer", time_array=None, **options)


if __name__ == "__main__":
    _, way_, pv_, timeout_ = sys.argv
    serve(lambda: make_way(way_, pv_, float(timeout_)), float(timeout_))
