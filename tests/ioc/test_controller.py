"""The controller's logic, against records in memory and, mostly, a clock of the test's own."""

from __future__ import annotations

import contextlib
import itertools
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from busy_callback_flyer.ioc import controller as controller_module
from busy_callback_flyer.ioc.controller import ARRAYS, BUSY, Clock, Controller, Database, Fault, Settings, simulate

DEFAULTS = {"npts": 51, "duration": 0.0, "start": -10.0, "stop": 10.0, "seed": 1, "fill": 0, "fault": 0}
PATIENCE = 20.0  # seconds; a bound for a machine that others use too


class Memory:
    """Records in memory, under one lock as in an IOC; `puts` is everything that was put, in order."""

    def __init__(self, nelm: int = 256, **settings: float) -> None:
        self.values: dict[str, Any] = {BUSY: 0, **DEFAULTS, **settings}
        self.values.update({f"{array}.NELM": nelm for array in ARRAYS})
        self.puts: list[tuple[str, Any]] = []
        self.busy_changed: Callable[[int], None] = lambda value: None
        self.broken: Exception | None = None
        self.at_done: dict[str, np.ndarray] = {}  # the arrays
        self.before_lock: Callable[[], None] = lambda: None  # somebody comes first
        self._lock = threading.Condition(threading.RLock())

    def get(self, name: str) -> float:
        if self.broken:
            raise self.broken
        return float(self.values[name])

    def put(self, name: str, value: float | int | str | np.ndarray) -> None:
        with self._lock:
            if isinstance(value, np.ndarray):
                assert len(value) <= self.values[f"{name}.NELM"]
                value = value.copy()
            self.values[name] = value
            self.puts.append((name, value))
            if name == BUSY:
                self.at_done = self.arrays()
                self.busy_changed(int(self.values[BUSY]))
            self._lock.notify_all()

    def finish(self, name: str, still_mine: Callable[[], bool]) -> bool:
        with self.locked(name):
            if not still_mine():
                return False
            self.put(name, 0)
            return True

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        self.before_lock()
        with self._lock:
            yield

    def wait_until(self, condition: Callable[[], bool]) -> None:
        with self._lock:
            assert self._lock.wait_for(condition, PATIENCE), self.puts[-10:]

    def wait_for_message(self, begin: str) -> None:
        self.wait_until(lambda: str(self.values.get("message", "")).startswith(begin))

    def fly(self, **settings: float) -> dict[str, np.ndarray]:
        """One flight, and the arrays as they are at Done."""
        with self._lock:
            self.values.update(settings)
            self.put(BUSY, 1)
            self.wait_until(lambda: self.values[BUSY] == 0)
            return self.at_done

    def arrays(self) -> dict[str, np.ndarray]:
        with self._lock:
            return {name: self.values[name] for name in ARRAYS if name in self.values}

    def names_put(self) -> list[str]:
        with self._lock:
            return [name for name, _ in self.puts]


class FakeClock(Clock):
    """Time passes only while somebody waits, and nobody waits in vain; `events` happen at their time."""

    def __init__(self) -> None:
        self.time = 0.0
        self.events: list[tuple[float, Callable[[], None]]] = []

    def now(self) -> float:
        return 1.7e9 + self.time

    def monotonic(self) -> float:
        return self.time

    def wait(self, event: threading.Event, seconds: float) -> bool:  # type: ignore[override]
        end = self.time + seconds
        while self.events and self.events[0][0] <= end and not event.is_set():
            self.time, happen = self.events.pop(0)
            happen()
        if not event.is_set():
            self.time = max(self.time, end)
        return event.is_set()


class Hosts:
    """Makes controllers and stops them."""

    def __init__(self) -> None:
        self.controllers: list[Controller] = []

    def __call__(self, clock: Clock | None = None, **settings: float) -> Memory:
        memory = Memory(**settings)  # type: ignore[arg-type]
        controller = Controller(memory, clock)
        memory.busy_changed = controller.busy_changed
        self.controllers.append(controller)
        return memory

    def stop(self) -> None:
        for controller in self.controllers:
            controller.stop()


@pytest.fixture
def host() -> Iterator[Hosts]:
    hosts = Hosts()
    yield hosts
    hosts.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "controller"]


def settings(**changes: float) -> Settings:
    return Settings.read(Memory(**changes))  # type: ignore[arg-type]


# -- what a scan is


def test_memory_is_a_database() -> None:
    database: Database = Memory()
    assert database.get("npts") == 51


def test_points_cross_a_noisy_peak_at_constant_speed() -> None:
    t, x, y = simulate(settings(npts=201, duration=4.0), 1.7e9)
    np.testing.assert_allclose(np.diff(t), 0.02, atol=1e-6)
    assert (t[0], t[-1]) == (1.7e9, 1.7e9 + 4.0)
    np.testing.assert_array_equal(x, np.linspace(-10, 10, 201))
    assert abs(x[np.argmax(y)] - controller_module.PEAK_CENTRE) < 1.0
    assert (y >= 0).all()
    far = np.abs(x - controller_module.PEAK_CENTRE) > 6
    assert len(set(y[far])) > 10  # noise on the background too
    np.testing.assert_array_equal(y, np.round(y))  # counts


@given(
    npts=st.integers(1, 256),
    start=st.floats(-1000, 1000),
    stop=st.floats(-1000, 1000),
    seed=st.integers(0, 2**31 - 1),
)
def test_equal_settings_give_equal_points(npts: int, start: float, stop: float, seed: int) -> None:
    one, two = (simulate(settings(npts=npts, start=start, stop=stop, seed=seed), began) for began in (1.0e9, 1.7e9))
    assert one[1:].tobytes() == two[1:].tobytes()
    assert one.shape == (3, npts)
    assert np.isfinite(one).all()


def test_another_seed_gives_other_noise() -> None:
    one, two = (simulate(settings(seed=seed), 0.0) for seed in (1, 2))
    assert one[2].tobytes() != two[2].tobytes()


# -- a flight


def test_a_flight_fills_the_arrays_and_ends_with_done(host: Hosts) -> None:
    memory = host()
    before = time.time()
    memory.fly(npts=5)
    after = time.time()
    assert memory.names_put()[0] == BUSY
    assert memory.names_put()[-1] == BUSY  # Done is the very last act
    expected = simulate(settings(npts=5), 0.0)
    np.testing.assert_array_equal(memory.values["x_array"], expected[1])
    np.testing.assert_array_equal(memory.values["y_array"], expected[2])
    t = memory.values["t_array"]
    assert before <= t[0] <= t[-1] <= after
    assert memory.values["position"] == 10.0
    assert memory.values["signal"] == expected[2, -1]
    assert memory.values["message"] == "flew 5 points"


def test_flights_repeat_bit_for_bit_in_one_thread(host: Hosts) -> None:
    memory = host(npts=256)
    first = memory.fly()
    threads = threading.active_count()
    for _ in range(50):
        again = memory.fly()
        assert again["x_array"].tobytes() == first["x_array"].tobytes()
        assert again["y_array"].tobytes() == first["y_array"].tobytes()
        assert again["t_array"][0] > first["t_array"][-1]
    assert threading.active_count() == threads


def test_both_fills_yield_the_same(host: Hosts) -> None:
    at_end, by_point = (host(FakeClock(), npts=7, duration=3.0, fill=fill) for fill in (0, 1))
    one, other = at_end.fly(), by_point.fly()
    assert {name: array.tobytes() for name, array in one.items()} == {n: a.tobytes() for n, a in other.items()}
    lengths = {
        name: [[len(value) for put, value in memory.puts if put == name] for name in ARRAYS]
        for name, memory in (("at end", at_end), ("by point", by_point))
    }
    assert lengths == {"at end": [[7]] * 3, "by point": [[1, 2, 3, 4, 5, 6, 7]] * 3}
    for memory in (at_end, by_point):
        np.testing.assert_array_equal([value for put, value in memory.puts if put == "position"], one["x_array"])
        np.testing.assert_array_equal([value for put, value in memory.puts if put == "signal"], one["y_array"])


def test_points_come_at_their_times_and_done_after_the_last(host: Hosts) -> None:
    clock = FakeClock()
    memory = host(clock, npts=5, duration=100.0)
    seen: list[tuple[str, float]] = []
    put = memory.put
    memory.put = lambda name, value: (seen.append((name, clock.time)), put(name, value))[1]  # type: ignore
    memory.fly()
    assert [at for name, at in seen if name == "position"] == [0.0, 25.0, 50.0, 75.0, 100.0]
    assert seen[-1] == (BUSY, 100.0)
    np.testing.assert_array_equal(memory.values["t_array"], 1.7e9 + np.array([0.0, 25.0, 50.0, 75.0, 100.0]))


def test_a_late_controller_catches_up(host: Hosts) -> None:
    clock = FakeClock()
    memory = host(clock, npts=11, duration=10.0, fill=1)

    def oversleep() -> None:
        clock.time = 6.5

    clock.events.append((2.0, oversleep))
    arrays = memory.fly()
    assert [len(value) for name, value in memory.puts if name == "x_array"] == [1, 2, 7, 8, 9, 10, 11]
    assert len(arrays["t_array"]) == 11
    assert clock.time == 10.0


def test_one_point_takes_the_duration_too(host: Hosts) -> None:
    clock = FakeClock()
    memory = host(clock, npts=1, duration=5.0)
    arrays = memory.fly()
    assert arrays["t_array"].tolist() == [1.7e9]
    assert arrays["x_array"].tolist() == [-10.0]
    assert clock.time == 5.0


def test_a_real_duration_is_kept(host: Hosts) -> None:
    memory = host(npts=21, duration=0.2)
    begin = time.monotonic()
    arrays = memory.fly()
    assert 0.2 <= time.monotonic() - begin < PATIENCE
    assert arrays["t_array"][-1] - arrays["t_array"][0] == pytest.approx(0.2, abs=1e-6)
    assert arrays["t_array"][-1] <= time.time()


def test_settings_are_read_once(host: Hosts) -> None:
    clock = FakeClock()
    memory = host(clock, npts=5, duration=4.0)
    clock.events.append((2.0, lambda: memory.values.update(npts=100, duration=1.0)))
    assert len(memory.fly()["x_array"]) == 5
    assert clock.time == 4.0


# -- ended by somebody else


HOURS = 3600.0 * 10


def test_a_done_of_somebody_else_ends_the_flight_at_once(host: Hosts) -> None:
    memory = host(duration=HOURS)
    memory.values.update({name: np.array([1.0, 2.0]) for name in ARRAYS})
    memory.put(BUSY, 1)
    memory.wait_until(lambda: "position" in memory.values)
    memory.put(BUSY, 0)
    memory.wait_for_message("stopped by a Done at point 1 of 51")
    assert [array.tolist() for array in memory.arrays().values()] == [[1.0, 2.0]] * 3
    assert [value for name, value in memory.puts if name == BUSY] == [1, 0]


@pytest.mark.parametrize("fault", [Fault.NONE, Fault.NEVER_FINISH, Fault.EARLY_DONE, Fault.UNEQUAL, Fault.STALE])
def test_nothing_is_written_after_it_whatever_the_fault(host: Hosts, fault: Fault) -> None:
    clock = FakeClock()
    memory = host(clock, npts=11, duration=10.0, fill=1, fault=fault)
    marks: list[int] = []

    def abort() -> None:
        memory.put(BUSY, 0)
        marks.append(len(memory.puts))

    clock.events.append((4.5, abort))
    memory.put(BUSY, 1)
    memory.wait_for_message("stopped by a Done at point 5 of 11")
    assert memory.names_put()[marks[0] :] == ["message"]
    assert memory.fly(fault=0, npts=3)["x_array"].tolist() == [-10.0, 0.0, 10.0]


@pytest.mark.parametrize("turn", range(1, 8))
def test_a_done_that_comes_just_before_leaves_nothing_to_write(host: Hosts, turn: int) -> None:
    """At whichever step of the flight the Done comes: before the record is locked for it, to be sure."""
    memory = host(FakeClock(), npts=3, duration=2.0, fill=1)
    steps: list[int] = []

    def step() -> None:
        steps.append(len(memory.puts))
        if len(steps) == turn:
            memory.put(BUSY, 0)

    memory.before_lock = step
    memory.put(BUSY, 1)
    memory.wait_until(lambda: memory.values[BUSY] == 0)
    memory.before_lock = lambda: None
    memory.fly(npts=4)
    names = memory.names_put()
    dones = [index for index, (name, value) in enumerate(memory.puts) if (name, value) == (BUSY, 0)]
    assert len(dones) == 2
    assert set(names[dones[0] + 1 : names.index(BUSY, dones[0] + 1)]) <= {"message"}
    assert [value for name, value in memory.puts if name == BUSY] == [1, 0, 1, 0]


def test_a_flight_that_was_over_before_it_was_taken_up_is_forgotten(host: Hosts) -> None:
    memory = host()
    with memory.locked(BUSY):
        memory.put(BUSY, 1)
        memory.put(BUSY, 0)
    memory.fly()
    assert memory.names_put().count("message") == 2  # of the second


def test_busy_again_while_busy_is_no_news(host: Hosts) -> None:
    clock = FakeClock()
    memory = host(clock, npts=3, duration=2.0)
    clock.events.append((0.5, lambda: memory.put(BUSY, 1)))
    clock.events.append((1.5, lambda: memory.put(BUSY, 1)))
    memory.fly()
    assert [str(value) for name, value in memory.puts if name == "message"] == [
        "flying 3 points in 2 s",
        "flew 3 points",
    ]
    assert [value for name, value in memory.puts if name == BUSY] == [1, 1, 1, 0]


def test_done_while_done_is_no_news(host: Hosts) -> None:
    memory = host()
    memory.put(BUSY, 0)
    memory.put(BUSY, 0)
    assert len(memory.fly()["x_array"]) == 51


def test_done_and_busy_in_one_breath_is_a_new_flight(host: Hosts) -> None:
    memory = host(duration=HOURS)
    memory.put(BUSY, 1)
    memory.wait_for_message("flying 51")
    with memory.locked(BUSY):
        memory.put(BUSY, 0)
        memory.values.update(npts=7, duration=0.0)
        memory.put(BUSY, 1)
    memory.wait_until(lambda: memory.values[BUSY] == 0)
    assert len(memory.values["x_array"]) == 7
    assert [str(value).split()[0] for name, value in memory.puts if name == "message"] == [
        *("flying", "stopped", "flying", "flew")
    ]


def spin(seconds: float) -> None:
    """So short that no sleep would do."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


@pytest.mark.parametrize("duration", [0.0, 1e-4, 1e-3])
def test_hammered_with_dones_nothing_is_written_late(host: Hosts, duration: float) -> None:
    """Done falls anywhere into flights: before, between and after their acts."""
    memory = host(npts=9, duration=duration, fill=1)
    whole = simulate(settings(npts=9), 0.0)[1:]
    rng = np.random.default_rng(7)
    written = stopped = 0
    for number in range(1, 401):
        with memory.locked(BUSY):
            assert set(memory.names_put()[written:]) <= {"message"}
            memory.put(BUSY, 1)
        spin(rng.uniform(0.0, 1e-3))
        with memory.locked(BUSY):
            stopped += memory.values[BUSY]
            memory.put(BUSY, 0)
            written = len(memory.puts)
        spin(rng.uniform(0.0, 5e-4))
        if number % 10 == 0:
            flown = memory.fly()
            assert np.array((flown["x_array"], flown["y_array"])).tobytes() == whole.tobytes()
            written = len(memory.puts)
    assert stopped


@pytest.mark.parametrize("duration", [0.0, 1e-3])
def test_hammered_with_done_and_busy_no_flight_is_lost(host: Hosts, duration: float) -> None:
    """A Busy follows the Done at once, anywhere in a flight: that one ends and the new one flies."""
    memory = host(duration=duration, fill=1)
    rng = np.random.default_rng(8)
    stopped = 0
    for _ in range(300):
        with memory.locked(BUSY):
            memory.values.update(npts=9, start=-10.0)
            memory.put(BUSY, 1)
        spin(rng.uniform(0.0, 1e-3))
        with memory.locked(BUSY):
            stopped += memory.values[BUSY]
            memory.put(BUSY, 0)
            begin = len(memory.puts)
            flown = memory.fly(npts=5, start=-9.0)
            assert {len(array) for array in flown.values()} == {5}
            starts = {value[0] for name, value in memory.puts[begin:] if name == "x_array"}
            assert starts == {-9.0}  # nothing of the old flight any more
    assert stopped


def test_every_busy_of_many_threads_ends(host: Hosts) -> None:
    """Clients that put Busy and Done as they like; after them one flight more must be whole."""
    memory = host(npts=4)

    def client(values: list[int]) -> None:
        for value in values:
            memory.put(BUSY, value)

    rng = np.random.default_rng(3)
    threads = [threading.Thread(target=client, args=(rng.integers(0, 2, 500).tolist(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    memory.wait_until(lambda: memory.values[BUSY] == 0)  # whoever put Busy last: that flight ends
    assert len(memory.fly(npts=5)["x_array"]) == 5
    # Busy and our Done alternate: between two puts of Busy arrays are written once at most
    for name in ARRAYS:
        events = [put for put in memory.names_put() if put in (BUSY, name)]
        assert all(not (one == two == name) for one, two in itertools.pairwise(events))


# -- faults


def test_fault_never_finish(host: Hosts) -> None:
    memory = host(FakeClock(), fault=Fault.NEVER_FINISH)
    memory.put(BUSY, 1)
    memory.wait_for_message("flew 51 points, fault NEVER_FINISH")
    assert len(memory.arrays()["x_array"]) == 51
    memory.put(BUSY, 0)
    assert len(memory.fly(fault=0, npts=4)["x_array"]) == 4  # it was idle, not stuck
    assert [value for name, value in memory.puts if name == BUSY] == [1, 0, 1, 0]


def test_fault_early_done(host: Hosts) -> None:
    clock = FakeClock()
    memory = host(clock, npts=5, duration=2.0, fill=1, fault=Fault.EARLY_DONE)
    assert memory.fly() == {}
    memory.wait_until(lambda: len(memory.arrays()) == 3)
    assert len(memory.arrays()["y_array"]) == 5
    order = [name for name in memory.names_put() if name in (BUSY, *ARRAYS)]
    assert order == [BUSY, BUSY, *ARRAYS]
    assert clock.time == pytest.approx(2.0 + controller_module.EARLY_BY)


@pytest.mark.parametrize("fill", [0, 1])
def test_fault_unequal(host: Hosts, fill: int) -> None:
    memory = host(FakeClock(), npts=5, duration=1.0, fill=fill, fault=Fault.UNEQUAL)
    lengths = {name: len(array) for name, array in memory.fly().items()}
    assert lengths == {"t_array": 5, "x_array": 5, "y_array": 4}


@pytest.mark.parametrize("fill", [0, 1])
def test_fault_stale(host: Hosts, fill: int) -> None:
    memory = host(FakeClock(), npts=5, duration=1.0, fill=fill, fault=Fault.STALE)
    assert memory.fly() == {}
    assert memory.values["position"] == 10.0


@pytest.mark.parametrize(("fault", "number"), [(Fault.DIE, signal.SIGKILL), (Fault.FREEZE, signal.SIGSTOP)])
def test_faults_that_strike_the_process(
    host: Hosts, monkeypatch: pytest.MonkeyPatch, fault: Fault, number: signal.Signals
) -> None:
    clock = FakeClock()
    memory = host(clock, npts=11, duration=10.0, fault=fault)
    struck: list[tuple[int, float, int]] = []
    monkeypatch.setattr(signal, "raise_signal", lambda n: struck.append((n, clock.time, memory.values[BUSY])))
    memory.fly()
    assert struck == [(number, 5.0, 1)]  # once, half way; after a freeze the flight goes on


@pytest.mark.parametrize("fault", [Fault.DIE, Fault.FREEZE])
@pytest.mark.parametrize("npts", [1, 2, 51])
def test_they_strike_before_the_arrays_of_a_flight_of_no_duration(
    host: Hosts, monkeypatch: pytest.MonkeyPatch, fault: Fault, npts: int
) -> None:
    memory = host(npts=npts, fault=fault)
    struck: list[set[str]] = []
    monkeypatch.setattr(signal, "raise_signal", lambda number: struck.append(set(memory.names_put())))
    memory.fly()
    assert struck == [{BUSY, "message"}]


def test_fault_late_done(host: Hosts) -> None:
    """A deaf flight is aborted, another begins, and the deaf one's end falls into it."""
    memory = host(npts=5, duration=0.3, fault=Fault.LATE_DONE)
    memory.put(BUSY, 1)
    memory.wait_for_message("flying 5 points in 0.3 s")
    memory.put(BUSY, 0)
    with memory.locked(BUSY):
        memory.values.update(npts=9, duration=HOURS, fault=0)
        memory.put(BUSY, 1)
        begin = len(memory.puts)
    memory.wait_until(
        lambda: memory.names_put()[begin:].count("position") > 0
    )  # it is met: the worker is not the deaf one
    memory.wait_for_message("stopped by a Done at point 1 of 9")
    assert len(memory.arrays()["x_array"]) == 5
    assert [value for name, value in memory.puts[begin:] if name == BUSY] == [0]


def test_fault_late_done_does_its_duty_when_left_alone(host: Hosts) -> None:
    memory = host(npts=5, fault=Fault.LATE_DONE)
    assert len(memory.fly()["x_array"]) == 5
    assert memory.names_put()[-1] == BUSY


def test_stop_ends_a_deaf_flight_too(host: Hosts) -> None:
    memory = host(duration=HOURS, fault=Fault.LATE_DONE)
    memory.put(BUSY, 1)
    memory.wait_for_message("flying")
    host.stop()  # and the fixture finds no thread
    assert [value for name, value in memory.puts if name == BUSY] == [1]


# -- refusals and failures


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"npts": 0}, "refused: npts 0, not 1..256"),
        ({"npts": -5}, "refused: npts -5, not 1..256"),
        ({"npts": 257}, "refused: npts 257, not 1..256"),
        ({"npts": float("nan")}, "refused: npts nan, not 1..256"),
        ({"npts": 2.5}, "refused: npts 2.5, not a whole number"),
        ({"npts": 1, "fault": Fault.UNEQUAL}, "refused: npts 1, not 2..256"),
        ({"npts": 11, "nelm": 10}, "refused: npts 11, not 1..10"),
        ({"duration": -1.0}, "refused: duration -1, not 0..86400"),
        ({"duration": float("inf")}, "refused: duration inf, not 0..86400"),
        ({"duration": float("nan")}, "refused: duration nan, not 0..86400"),
        ({"start": float("nan")}, "refused: start nan, not -1000..1000"),
        ({"start": -1e300}, "refused: start -1e+300, not -1000..1000"),
        ({"stop": float("-inf")}, "refused: stop -inf, not -1000..1000"),
        ({"seed": -1}, "refused: seed -1, not 0..2147483647"),
        ({"seed": float("nan")}, "refused: seed nan, not 0..2147483647"),
        ({"fill": 2}, "refused: fill 2, not 0..1"),
        ({"fault": 8}, "refused: fault 8, not 0..7"),
        ({"fault": 0.5}, "refused: fault 0.5, not a whole number"),
    ],
)
def test_unusable_settings_are_refused(
    host: Hosts, caplog: pytest.LogCaptureFixture, changes: dict[str, float], message: str
) -> None:
    memory = host(None, **changes)
    assert memory.fly() == {}  # Done, and the arrays left alone
    assert memory.values["message"] == message
    assert len(message) <= 39
    assert message in caplog.text
    assert len(memory.fly(**(DEFAULTS | {"npts": 3}))["x_array"]) == 3


def test_a_refusal_does_not_end_somebody_elses_flight(host: Hosts) -> None:
    memory = host(npts=0)
    put = memory.put

    def hasty(name: str, value: Any) -> None:
        put(name, value)
        if str(value).startswith("refused"):
            memory.values.update(npts=4)
            put(BUSY, 0)
            put(BUSY, 1)

    memory.put = hasty  # type: ignore[method-assign]
    memory.put(BUSY, 1)
    memory.wait_for_message("flew 4 points")
    memory.wait_until(lambda: memory.values[BUSY] == 0)
    assert [value for name, value in memory.puts if name == BUSY] == [1, 0, 1, 0]


def test_a_failure_is_told_and_survived(host: Hosts, caplog: pytest.LogCaptureFixture) -> None:
    memory = host()
    memory.broken = RuntimeError("no such luck")
    assert memory.fly() == {}
    assert memory.values["message"] == "failed: RuntimeError('no such luck')"
    assert "Traceback" in caplog.text
    memory.broken = None
    assert len(memory.fly()["x_array"]) == 51


def test_a_lost_ioc_is_not_told_of_its_loss(host: Hosts) -> None:
    memory = host()
    memory.broken = ConnectionError("gone")
    with logged("a flight is dropped: gone"):
        memory.put(BUSY, 1)
    assert memory.puts == [(BUSY, 1)]
    memory.broken = None
    memory.put(BUSY, 0)
    assert len(memory.fly()["x_array"]) == 51


def test_a_failure_to_tell_of_a_failure_is_survived(host: Hosts) -> None:
    memory = host(npts=0)
    put = memory.put

    def failing(name: str, value: Any) -> None:
        if str(value).startswith("refused"):
            raise OSError("no message")
        put(name, value)

    memory.put = failing  # type: ignore[method-assign]
    with logged("a flight is dropped: no message"):
        memory.put(BUSY, 1)
    memory.put(BUSY, 0)
    assert len(memory.fly(npts=3)["x_array"]) == 3


@contextlib.contextmanager
def logged(message: str) -> Iterator[None]:
    """Wait at the end until the controller has logged that."""
    heard = threading.Event()
    handler = logging.Handler()
    handler.emit = lambda record: heard.set() if record.getMessage() == message else None  # type: ignore[method-assign]
    controller_module.log.addHandler(handler)
    try:
        yield
        assert heard.wait(PATIENCE)
    finally:
        controller_module.log.removeHandler(handler)


# -- the end


def test_stop_drops_the_flight_and_leaves_the_record_busy(host: Hosts) -> None:
    memory = host(duration=HOURS)
    memory.put(BUSY, 1)
    memory.wait_for_message("flying")
    begin = time.monotonic()
    host.stop()
    assert time.monotonic() - begin < PATIENCE
    assert memory.values[BUSY] == 1
    assert memory.arrays() == {}
    assert memory.values["message"] == "flying 51 points in 36000 s"  # there was no Done


def test_a_stopped_controller_does_not_fly(host: Hosts) -> None:
    memory = host()
    host.stop()
    memory.put(BUSY, 1)
    memory.put(BUSY, 0)
    assert memory.names_put() == [BUSY, BUSY]
    host.stop()  # twice is fine
