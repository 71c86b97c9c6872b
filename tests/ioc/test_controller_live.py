"""The controller in both its hosts, the embedded IOC and a Channel Access client, seen by clients of the IOC.

Clients are processes of their own, since libca takes its environment once in a process's life.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from busy_callback_flyer.ioc import EmbeddedIOC, controller
from busy_callback_flyer.ioc.controller import ARRAYS, BUSY, Fault, Settings, simulate

PREFIX = "live:"
DB = Path(controller.__file__).with_name("controller.db")
DEFAULTS = {"npts": 51, "duration": 0.0, "start": -10.0, "stop": 10.0, "seed": 1, "fill": 0, "fault": 0}
HOURS = 36000.0
PATIENCE = 30.0  # seconds; a bound for a machine that others use too


# -- what runs in a client's process

_pvs: dict[str, Any] = {}
_watched: set[str] = set()
_events: list[tuple[str, Any, float]] = []  # name, value, stamp
_news = threading.Condition()


def _pv(name: str) -> Any:
    import epics

    if name not in _pvs:
        _pvs[name] = epics.PV(PREFIX + name, auto_monitor=False)
    assert _pvs[name].wait_for_connection(timeout=PATIENCE), name
    return _pvs[name]


def put(name: str, value: Any, wait: bool = True) -> None:
    """Put with callback, or without."""
    assert _pv(name).put(value, wait=wait, timeout=PATIENCE) == 1


def put_in_one_breath(*values: int) -> None:
    """Plain puts of the busy record that leave together."""
    from epics import ca, dbr

    chid = _pv(BUSY).chid
    for value in values:
        assert ca.libca.ca_array_put(dbr.ENUM, 1, chid, (dbr.short_t * 1)(value)) == dbr.ECA_NORMAL
    ca.flush_io()


def get(name: str) -> Any:
    return look(name)[0]


def look(name: str) -> tuple[Any, float]:
    """Value and stamp, asked of the IOC now."""
    from epics import ca

    chid = _pv(name).chid  # PV.get of an array asks for as many elements as the last event had
    said = ca.get_with_metadata(chid, ftype=ca.promote_type(chid, use_time=True), timeout=PATIENCE)
    return _own(name, said["value"]), said["timestamp"]


def _own(name: str, value: Any) -> Any:
    """Of an array a copy, and an array also where pyepics makes a number of one element."""
    return np.array(value, ndmin=1) if name in ARRAYS else value


def configure(settings: dict[str, float]) -> None:
    for name, value in (DEFAULTS | settings).items():
        put(name, value)


def watch(*names: str) -> None:
    """Record the events of these PVs from now on, in their order, and forget those of before."""

    def event(pvname: str, value: Any, timestamp: float, **_: Any) -> None:
        with _news:
            name = pvname.removeprefix(PREFIX)
            _events.append((name, _own(name, value), timestamp))
            _news.notify_all()

    for name in set(names) - _watched:
        _pv(name).add_callback(event)  # to the same object: pyepics does not go well with two for one PV
        _pv(name).auto_monitor = True
    with _news:
        new = set(names) - _watched
        assert _news.wait_for(lambda: new <= {name for name, *_ in _events}, PATIENCE)  # their first event
        _watched.update(new)
        _events.clear()


def events(*names: str) -> list[tuple[str, Any, float]]:
    with _news:
        return [event for event in _events if not names or event[0] in names]


def wait_for(name: str, value: Any, times: int = 1) -> float:
    """Wait until so many events since `watch` told that (of a text, its beginning); the stamp of the last."""

    def matching() -> list[float]:
        return [
            stamp
            for event, said, stamp in _events
            if event == name and (said.startswith(value) if isinstance(value, str) else said == value)
        ]

    with _news:
        assert _news.wait_for(lambda: len(matching()) >= times, PATIENCE), (name, value, _events)
        return matching()[times - 1]


def fly(settings: dict[str, float]) -> dict[str, Any]:
    """Make one flight by put-callback: its arrays, and the stamps of its Busy and Done."""
    configure(settings)
    watch(BUSY)
    put(BUSY, 1)
    return {name: get(name) for name in ARRAYS} | {"Busy": wait_for(BUSY, 1), "Done": wait_for(BUSY, 0)}


def fly_often(times: int) -> list[float]:
    """The IOC's own time from Busy to Done of flights by put-callback."""
    watch(BUSY)
    for number in range(times):
        put(BUSY, 1)
        wait_for(BUSY, 0, number + 1)
    busy, done = ([stamp for _, value, stamp in events(BUSY) if value == wanted] for wanted in (1, 0))
    return [end - begin for begin, end in zip(busy, done, strict=True)]


def hammer(times: int) -> tuple[int, int]:
    """Write Done anywhere into flights; how often it came before theirs, and arrays written outside of a flight."""
    rng = random.Random(4)
    stopped = late = 0
    watch(BUSY, "message", *ARRAYS)
    for _ in range(times):
        put_in_one_breath(1)
        end = time.perf_counter() + rng.uniform(0.0, 2e-3)
        while time.perf_counter() < end:
            pass  # so short that no sleep would do
        put_in_one_breath(0)
        wait_for(BUSY, 0)
        busy = 0
        with _news:
            for name, value, _ in _events:
                busy = value if name == BUSY else busy
                late += name in ARRAYS and not busy
                stopped += name == "message" and value.startswith("stopped")
            _events.clear()
    return stopped, late


def begin(settings: dict[str, float], *more: str) -> None:
    """Begin a flight by a plain put, and wait until it is at its first point."""
    configure(settings)
    put("position", 999.0)
    watch(BUSY, "position", "message", *more)
    put(BUSY, 1, wait=False)
    wait_for("position", (DEFAULTS | settings)["start"])


def wait_until_connected(name: str, connected: bool) -> None:
    limit = time.monotonic() + PATIENCE
    while _pvs[name].connected != connected:
        assert time.monotonic() < limit, (name, connected)
        time.sleep(0.01)


# -- what runs here


def wait_until(condition: Callable[[], bool], patience: float = PATIENCE) -> None:
    """For what nobody tells us of by itself."""
    limit = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.005)


class Client:
    """A process with a Channel Access client: call it with one of the functions above."""

    def __init__(self, environment: dict[str, str]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("EPICS_")]:
                patch.delenv(name)
            for name, value in environment.items():
                patch.setenv(name, value)
            self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
            self(os.getpid)  # it starts here, with this environment

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self.submit(function, *arguments).result(4 * PATIENCE)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self._pool.submit(function, *arguments)

    def close(self) -> None:
        self._pool.shutdown()


RUN = """
import logging, signal, sys
from busy_callback_flyer.ioc.ca_controller import run
logging.basicConfig(level=logging.INFO)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born deaf to it
print("in", flush=True)
try:
    run(sys.argv[1], busy=sys.argv[2], timeout=float(sys.argv[3]), connected=lambda: print("serving", flush=True))
except (ConnectionError, ValueError) as error:
    sys.exit(f"{type(error).__name__}: {error}")
except KeyboardInterrupt:
    sys.exit("interrupted")
"""


class CAController:
    """The controller as a process of its own."""

    def __init__(
        self, environment: dict[str, str], prefix: str = PREFIX, busy: str = BUSY, timeout: float = PATIENCE
    ) -> None:
        rest = {name: value for name, value in os.environ.items() if not name.startswith("EPICS_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, prefix, busy, str(timeout)],
            env=rest | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log = ""
        self._heard = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            with self._heard:
                self.log += line
                self._heard.notify_all()

    def wait_until_serving(self) -> None:
        assert self.process.stdout
        assert [self.process.stdout.readline() for _ in range(2)] == ["in\n", "serving\n"], self.log

    def wait_for_log(self, text: str, times: int = 1) -> None:
        with self._heard:
            assert self._heard.wait_for(lambda: self.log.count(text) >= times, PATIENCE), self.log

    def end(self, number: signal.Signals | None = None) -> int:
        """Its exit status."""
        if number and self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert self.process.stdout
        assert self.process.stderr
        self.process.stdout.close()
        self.process.stderr.close()
        return status


class Host:
    """An IOC, its controller wherever that is, and a client."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        databases = [DB] if kind == "client" else []
        self.ioc = EmbeddedIOC(PREFIX, controller=kind == "ioc", databases=databases)
        self.ioc.start()
        self.controller: CAController | None = None
        if kind == "client":
            self.start_controller()
        self.client = Client(self.ioc.client_environment)

    def start_controller(self, **environment: str) -> CAController:
        self.controller = CAController(self.ioc.client_environment | environment)
        self.controller.wait_until_serving()
        return self.controller

    @property
    def pid(self) -> int:
        """Of the process that the controller is in."""
        return self.controller.process.pid if self.controller else self.ioc.pid

    def close(self) -> None:
        self.client.close()
        if self.controller:
            self.controller.end(signal.SIGKILL)
        self.ioc.stop()


@contextlib.contextmanager
def hosting(kind: str) -> Iterator[Host]:
    host = Host(kind)
    try:
        yield host
    finally:
        host.close()


@pytest.fixture(scope="module", params=["ioc", "client"])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    with hosting(request.param) as host:
        yield host


@pytest.fixture(params=["ioc", "client"])
def own_host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """For a test that does it no good."""
    with hosting(request.param) as host:
        yield host


@pytest.fixture
def ca_host() -> Iterator[Host]:
    with hosting("client") as host:
        yield host


@pytest.fixture(scope="module")
def other_client(host: Host) -> Iterator[Client]:
    client = Client(host.ioc.client_environment)
    yield client
    client.close()


@pytest.fixture
def client(host: Host) -> Client:
    return host.client


def expected(**changes: float) -> np.ndarray:
    """Positions and counts of a flight, made here."""
    values = DEFAULTS | changes
    return simulate(
        Settings(
            npts=int(values["npts"]),
            duration=values["duration"],
            start=values["start"],
            stop=values["stop"],
            seed=int(values["seed"]),
            fill=False,
            fault=Fault.NONE,
        ),
        0.0,
    )[1:]


def check_flight(flight: dict[str, Any], **settings: float) -> None:
    assert np.array((flight["x_array"], flight["y_array"])).tobytes() == expected(**settings).tobytes()
    t = flight["t_array"]
    assert len(t) == len(flight["x_array"])
    assert (np.diff(t) >= 0).all()
    assert flight["Busy"] <= t[0] <= t[-1] <= flight["Done"]
    assert t[-1] - t[0] == pytest.approx(settings.get("duration", 0.0), abs=1e-6)


# -- records


def test_controller_db_needs_record_types_of_base_only() -> None:
    script = f"""
from busy_callback_flyer.ioc.base import EpicsBase
base = EpicsBase()
base.load_definitions()
base.register()
base.load_records({str(DB)!r}, {{"P": "x:"}})
print(*sorted(base.record_names()))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE)
    assert result.returncode == 0, result.stderr
    names = {*DEFAULTS, "position", "signal", "message"}
    assert set(result.stdout.split()) == {f"x:{name}" for name in names}


def test_states_are_short_enough_for_epics() -> None:
    states = re.findall(r'field\((?:..ST|[ZO]NAM), *"(.*)"\)', DB.read_text())
    assert len(states) == 2 + len(Fault)
    assert max(map(len, states)) <= 25


def test_settings_start_with_their_defaults_and_have_limits() -> None:
    with EmbeddedIOC(PREFIX, nelm=32) as ioc:
        client = Client(ioc.client_environment)
        try:
            assert [client(get, name) for name in DEFAULTS] == [32, 1.0, -10.0, 10.0, 1, 0, 0]  # npts would be 51
            for name, value, kept in [
                ("npts", 1000, 32),
                ("npts", 0, 1),
                ("duration", -1.0, 0.0),
                ("duration", float("inf"), 86400.0),
                ("start", -1e9, -1000.0),
                ("stop", 1e9, 1000.0),
                ("seed", -3, 0),
            ]:
                client(put, name, value)
                assert client(get, name) == kept, name
            fields = {
                "npts": "points",
                "duration": "s",
                "start": "mm",
                "stop": "mm",
                "position": "mm",
                "signal": "counts",
            }
            assert {name: client(get, f"{name}.EGU") for name in fields} == fields
            check_flight(client(fly, {"npts": 32}), npts=32)
        finally:
            client.close()


# -- flights


def test_a_flight_of_no_duration(client: Client) -> None:
    check_flight(client(fly, {}))
    assert client(get, "message") == "flew 51 points"
    assert client(get, "position") == 10.0
    assert client(get, "signal") == expected()[1, -1]


@pytest.mark.parametrize("fill", [0, 1])
def test_a_flight_with_duration(client: Client, fill: int) -> None:
    settings = {"npts": 21, "duration": 0.25, "start": 3.0, "stop": -1.0, "seed": 99}
    check_flight(client(fly, settings | {"fill": fill}), **settings)


def test_done_is_the_last_of_all_events(client: Client) -> None:
    client(configure, {"npts": 11})
    client(watch, BUSY, "message", "position", "signal", *ARRAYS)
    client(put, BUSY, 1)
    client(wait_for, BUSY, 0)
    told = client(events)
    assert told[0][0] == told[-1][0] == BUSY
    arrays = {name: value for name, value, _ in told if name in ARRAYS}
    assert [len(arrays[name]) for name in ARRAYS] == [11, 11, 11]
    stamps = [stamp for *_, stamp in told]
    assert max(stamps) == stamps[-1]


def test_arrays_grow_point_by_point(client: Client) -> None:
    client(configure, {"npts": 5, "duration": 0.5, "fill": 1})
    client(watch, BUSY, "x_array", "position")
    client(put, BUSY, 1)
    client(wait_for, BUSY, 0)
    lengths = [len(value) for _, value, _ in client(events, "x_array")]
    assert lengths == sorted(set(lengths))
    assert lengths[-1] == 5
    assert len(lengths) > 1
    x = expected(npts=5)[0]
    assert {value for _, value, _ in client(events, "position")} <= set(x)


def test_many_flights_in_one_thread(host: Host) -> None:
    host.client(configure, {})
    host.client(fly_often, 5)
    threads = psutil.Process(host.pid).num_threads()
    times = host.client(fly_often, 200)
    assert psutil.Process(host.pid).num_threads() == threads
    assert len(times) == 200
    assert np.median(times) < 0.05  # measured: 1 ms in the IOC, 3 ms beside it


# -- ended, or begun again, by somebody else


@pytest.mark.parametrize("fill", [0, 1])
def test_a_plain_done_of_another_client_ends_the_flight(host: Host, other_client: Client, fill: int) -> None:
    before = host.client(fly, {"npts": 3})
    host.client(configure, {"npts": 5, "duration": HOURS, "fill": fill})
    host.client(put, "position", 999.0)
    host.client(watch, BUSY, "message", *ARRAYS)
    flight = host.client.submit(put, BUSY, 1)  # a put-callback: it returns at Done
    wait_until(lambda: other_client(get, "position") == -10.0)
    wait_until(lambda: len(other_client(get, "y_array")) == (1 if fill else 3))  # put after the position
    other_client(put, BUSY, 0, False)
    flight.result(PATIENCE)
    host.client(wait_for, "message", "stopped by a Done at point 1 of 5")  # its last word
    done = host.client(wait_for, BUSY, 0)
    written = host.client(events, *ARRAYS)
    assert [len(value) for _, value, _ in written] == [1, 1, 1] * fill
    assert all(stamp < done for *_, stamp in written)
    if not fill:
        assert all(host.client(get, name).tobytes() == before[name].tobytes() for name in ARRAYS)
    assert [value for _, value, _ in host.client(events, BUSY)] == [1, 0]
    check_flight(host.client(fly, {}))


def test_in_the_ioc_nothing_is_written_after_anybodys_done() -> None:
    """There the record is locked between question and put. (Channel Access has no lock.)"""
    with hosting("ioc") as host:
        host.client(configure, {"npts": 9, "duration": 1e-3, "fill": 1})
        stopped, late = host.client(hammer, 500)
        assert stopped > 0
        assert late == 0
        check_flight(host.client(fly, {}))


def test_busy_again_while_busy_does_not_restart(client: Client) -> None:
    client(configure, {"npts": 3, "duration": 0.6})
    client(watch, BUSY, "message")
    client(put, BUSY, 1, False)
    client(wait_for, "message", "flying 3 points")
    client(put, BUSY, 1, False)
    stamps = client(wait_for, BUSY, 1), client(wait_for, BUSY, 0)
    assert stamps[1] - stamps[0] >= 0.6
    said = [value for _, value, _ in client(events, "message")]
    assert said == ["flying 3 points in 0.6 s", "flew 3 points"]
    assert [value for _, value, _ in client(events, BUSY)] == [1, 0]


def test_done_and_busy_at_once_is_a_new_flight(client: Client) -> None:
    client(begin, {"duration": HOURS})
    client(put, "duration", 0.0)
    client(put, "npts", 7)
    client(watch, BUSY, "message")
    client(put_in_one_breath, 0, 1)
    client(wait_for, BUSY, 0, 2)
    assert [value for _, value, _ in client(events, BUSY)] == [0, 1, 0]
    assert len(client(get, "x_array")) == 7


def test_a_burst_of_done_and_busy_ends_done(client: Client) -> None:
    client(configure, {"npts": 4})
    client(watch, BUSY)
    client(put_in_one_breath, *[0, 1] * 40)
    wait_until(lambda: client(get, BUSY) == 0)
    check_flight(client(fly, {}))


# -- faults


def test_never_finish(client: Client) -> None:
    client(configure, {"npts": 5, "fault": Fault.NEVER_FINISH})
    client(watch, BUSY, "message")
    client(put, BUSY, 1, False)
    client(wait_for, "message", "flew 5 points, fault NEVER_FINISH")
    assert len(client(get, "x_array")) == 5
    assert client(get, BUSY) == 1
    client(put, BUSY, 0, False)
    check_flight(client(fly, {}))


def test_done_before_the_arrays(client: Client) -> None:
    before = client(fly, {"npts": 3})
    client(configure, {"npts": 5, "fault": Fault.EARLY_DONE})
    client(watch, BUSY, *ARRAYS)
    client(put, BUSY, 1)
    done = client(wait_for, BUSY, 0)
    wait_until(lambda: len(client(events, *ARRAYS)) == 3)
    for _, value, stamp in client(events, *ARRAYS):
        assert len(value) == 5
        assert stamp > done
    assert len(before["x_array"]) == 3


def test_unequal_arrays(client: Client) -> None:
    flight = client(fly, {"npts": 5, "fault": Fault.UNEQUAL})
    assert [len(flight[name]) for name in ARRAYS] == [5, 5, 4]


def test_stale_arrays(client: Client) -> None:
    before = client(fly, {"npts": 3})
    flight = client(fly, {"npts": 5, "fault": Fault.STALE})
    for name in ARRAYS:
        assert flight[name].tobytes() == before[name].tobytes()
        assert client(look, name)[1] < flight["Busy"]


def has_points(client: Client, npts: int) -> bool:
    return len(client(get, "x_array")) == npts


def test_a_late_done_falls_into_the_next_flight(client: Client) -> None:
    for npts, duration in ((4, 1.0), (5, 10.0), (7, 60.0)):
        client(begin, {"npts": npts, "duration": duration, "fault": Fault.LATE_DONE})
        client(put, BUSY, 0, False)
        client(wait_for, BUSY, 0)
        client(begin, {"npts": 6, "duration": HOURS})
        wait_until(partial(has_points, client, npts), 3 * duration + PATIENCE)
        if client(look, "x_array")[1] > client(wait_for, BUSY, 1):
            break
        client(put, BUSY, 0, False)  # on a slow machine the deaf flight was over before: once more, with a longer one
        client(wait_for, BUSY, 0)
    client(wait_for, BUSY, 0)  # of the deaf flight
    client(wait_for, "message", "stopped by a Done at point 1 of 6")
    check_flight(client(fly, {}))


def test_die_in_flight(own_host: Host) -> None:
    own_host.client(configure, {"npts": 3, "fault": Fault.DIE})
    own_host.client(put, BUSY, 1, False)
    if own_host.controller:
        assert own_host.controller.end() == -signal.SIGKILL
        assert own_host.client(get, BUSY) == 1  # nobody is left to end it
    else:
        wait_until(lambda: not own_host.ioc.alive)


def test_freeze_in_flight(own_host: Host) -> None:
    client = own_host.client
    client(configure, {"npts": 3, "fault": Fault.FREEZE})
    client(watch, BUSY)
    client(put, BUSY, 1, False)
    process = psutil.Process(own_host.pid)
    wait_until(lambda: process.status() == psutil.STATUS_STOPPED)
    os.kill(own_host.pid, signal.SIGCONT)
    client(wait_for, BUSY, 0)
    check_flight(client(fly, {}))


# -- bad settings


def test_unusable_settings_are_refused_and_the_ioc_stays_up(client: Client) -> None:
    before = client(fly, {"npts": 3})
    for name in ("duration", "start", "stop"):
        client(configure, {name: float("nan")})  # no limit keeps that out
        client(watch, BUSY, "message", *ARRAYS)
        client(put, BUSY, 1)
        client(wait_for, BUSY, 0)
        assert client(get, "message").startswith(f"refused: {name} nan, not ")
        assert client(events, *ARRAYS) == []
    np.testing.assert_array_equal(client(get, "x_array"), before["x_array"])
    check_flight(client(fly, {}))


def test_an_unknown_fault_is_refused(client: Client) -> None:
    client(configure, {"fault": 9})
    client(put, BUSY, 1)
    assert client(get, "message") == "refused: fault 9, not 0..7"


# -- the client alone


def test_missing_records_are_all_named() -> None:
    with EmbeddedIOC(PREFIX, controller=False) as ioc:
        lost = CAController(ioc.client_environment, timeout=2.0)
        assert lost.end() == 1
    sentence = lost.log.strip().splitlines()[-1]
    assert sentence.startswith("ConnectionError: No answer within 2 s from ")
    missing = sentence.removesuffix(".").rsplit(" from ")[1].split(", ")
    assert set(missing) == {PREFIX + name for name in (*DEFAULTS, "position", "signal", "message")}
    assert "Traceback" not in lost.log


def test_records_of_the_wrong_kind_are_refused(tmp_path: Path) -> None:
    flyscan = DB.with_name("flyscan.db").read_text().replace("DOUBLE", "STRING").replace("$(P)", "bad:")
    file = tmp_path / "bad.db"
    file.write_text(flyscan + DB.read_text().replace("$(P)", "bad:"))
    with EmbeddedIOC(PREFIX, controller=False, databases=[DB, file]) as ioc:
        for prefix, busy, sentence in [
            (PREFIX, "npts", f"ValueError: {PREFIX}npts is not a busy record."),
            ("bad:", BUSY, "ValueError: bad:t_array is not an array of DOUBLE."),
        ]:
            lost = CAController(ioc.client_environment, prefix, busy)
            assert lost.end() == 1
            assert lost.log.strip().splitlines()[-1] == sentence


def test_another_busy_record_will_do() -> None:
    with EmbeddedIOC(PREFIX, controller=False, databases=[DB]) as ioc:
        other = CAController(ioc.client_environment, busy="mytaxi")
        client = Client(ioc.client_environment)
        try:
            other.wait_until_serving()
            client(configure, {"npts": 6})
            client(put, "mytaxi", 1)
            assert len(client(get, "x_array")) == 6
        finally:
            client.close()
            other.end(signal.SIGKILL)


def test_a_flight_that_began_before_it_is_left_alone(ca_host: Host) -> None:
    assert ca_host.controller
    ca_host.controller.end(signal.SIGTERM)
    ca_host.client(configure, {})
    ca_host.client(put, BUSY, 1, False)
    successor = ca_host.start_controller()
    successor.wait_for_log("The record was Busy already when it connected")
    assert ca_host.client(get, BUSY) == 1
    ca_host.client(put, BUSY, 0, False)
    check_flight(ca_host.client(fly, {}))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 1)])
@pytest.mark.parametrize("in_flight", [False, True])
def test_it_stops_in_order(ca_host: Host, number: signal.Signals, status: int, in_flight: bool) -> None:
    assert ca_host.controller
    if in_flight:
        ca_host.client(begin, {"duration": HOURS})
    assert ca_host.controller.end(number) == status
    assert "Traceback" not in ca_host.controller.log
    assert ca_host.client(get, BUSY) == in_flight


@pytest.mark.slow
def test_it_survives_a_restart_of_the_ioc(ca_host: Host) -> None:
    ca_host.client(begin, {"duration": HOURS})
    ca_host.ioc.kill()
    assert ca_host.controller
    ca_host.controller.wait_for_log("The IOC is lost.")
    ca_host.ioc.restart()
    ca_host.controller.wait_for_log("The IOC is there.", 2)
    ca_host.client(wait_until_connected, BUSY, True)
    assert ca_host.client(get, BUSY) == 0
    check_flight(ca_host.client(fly, {}))


def test_it_ends_its_flight_after_a_lost_connection(ca_host: Host) -> None:
    """The IOC is frozen for so long that the controller is disconnected in the midst of a flight."""
    assert ca_host.controller
    ca_host.controller.end(signal.SIGTERM)
    controller = ca_host.start_controller(EPICS_CA_CONN_TMO="1.0")
    settings = {"npts": 5, "duration": 3.0, "fill": 1}  # it is frozen for longer
    ca_host.client(begin, settings)
    ca_host.ioc.freeze()
    controller.wait_for_log("The IOC is lost.")
    ca_host.ioc.thaw()
    ca_host.client(wait_for, BUSY, 0)
    x, y = (ca_host.client(get, name) for name in ("x_array", "y_array"))
    assert np.array((x, y)).tobytes() == expected(npts=5).tobytes()
    assert [value for _, value, _ in ca_host.client(events, BUSY) if value] == [1]
    check_flight(ca_host.client(fly, {}))


def test_it_stops_while_its_flight_waits_for_a_lost_ioc(ca_host: Host) -> None:
    ca_host.client(begin, {"npts": 1000, "duration": 10.0})
    ca_host.ioc.kill()
    assert ca_host.controller
    ca_host.controller.wait_for_log("The IOC is lost.")
    assert ca_host.controller.end(signal.SIGTERM) == 0
    assert "Traceback" not in ca_host.controller.log


# -- what the client makes of monitor events


def watched(*happenings: tuple[int, float, int] | None) -> list[int]:
    """What a controller is told of these events (value, stamp, severity); None is a lost connection."""
    from busy_callback_flyer.ioc.ca_controller import BusyWatch

    told: list[int] = []
    busy = BusyWatch(told.append)
    for happening in happenings:
        if happening is None:
            busy.lost()
        else:
            busy.event(*happening)
    return [value for value, last in zip(told, [0, *told], strict=False) if value != last]  # changes only


INVALID, OK, MINOR = 3, 0, 1


@pytest.mark.parametrize(
    ("happenings", "told"),
    [
        pytest.param([(0, 1, INVALID), (1, 2, OK), (0, 3, OK), (1, 4, OK)], [1, 0, 1], id="flights"),
        pytest.param([(1, 2, OK)], [], id="busy when it connects"),
        pytest.param([(1, 2, OK), (1, 3, MINOR)], [], id="and then an alarm"),
        pytest.param([(1, 2, OK), (0, 3, OK), (1, 4, OK)], [1], id="and then a flight"),
        pytest.param([(0, 1, OK), (1, 2, OK), (1, 3, MINOR)], [1], id="an alarm in flight"),
        pytest.param([(0, 1, OK), (1, 2, OK), (1, 3, OK)], [1, 0, 1], id="a Done dropped from the queue"),
        pytest.param([(0, 1, OK), (1, 2, OK), None, (1, 2, OK), (0, 3, OK)], [1, 0], id="the same flight goes on"),
        pytest.param([(0, 1, OK), (1, 2, OK), None, (0, 0, INVALID), (1, 4, OK)], [1, 0, 1], id="a restart"),
        pytest.param([(0, 1, OK), (1, 2, OK), None, (1, 5, OK), (0, 6, OK)], [1, 0], id="another's flight"),
        pytest.param([(0, 1, OK), None, (1, 2, OK), (0, 3, OK), (1, 4, OK)], [1], id="begun while away"),
    ],
)
def test_events_of_the_busy_record(happenings: list[tuple[int, float, int] | None], told: list[int]) -> None:
    assert watched(*happenings) == told
