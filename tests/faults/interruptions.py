"""A flight in a plan, ways to interrupt it, and what came of it.

The record is Busy until the test itself, as its controller, fills the arrays and writes Done: so it is the test
that says what happens in flight, and in which order.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import epics
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.suspenders import SuspendBoolHigh
from bluesky.utils import FailedStatus, Msg, MsgGenerator, RunEngineInterrupted
from ophyd import Component, Device, Signal
from ophyd.status import Status
from packaging.version import Version

from busy_callback_flyer import BusyFlyer, BusyRecord, plans
from busy_callback_flyer.devices.status import FlightStatus

TIMEOUT = 20.0  # generous: reached only where something is broken

notices_failures_at_once = pytest.mark.skipif(
    Version(version("bluesky")) < Version("1.14.5"),
    reason="before 1.14.5 the RunEngine waits for all statuses of a group, though one of them has failed",
)


def until(condition: Callable[[], object], timeout: float = TIMEOUT) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def known(flyer: BusyFlyer) -> int | None:
    """What a flyer's channel heard last."""
    reading = flyer._wiring.driver.channel.reading
    return None if reading is None else reading.value


@contextmanager
def ctrl_c_without_a_plan_is_ignored() -> Iterator[None]:
    """A second Ctrl-C that comes when the RunEngine has just paused is nobody's, and pytest would end by it."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class HandFlyer(BusyFlyer):
    """A flyer whose controller is the test; it remembers its statuses."""

    busy = Component(BusyRecord, "own", kind="config")

    def __init__(self, prefix: str, **kwargs: Any) -> None:
        super().__init__(prefix, **kwargs)
        self.statuses: list[FlightStatus] = []
        self.told: list[str] = []

    def kickoff(self) -> FlightStatus:
        self.statuses.append(super().kickoff())
        return self.statuses[-1]

    def complete(self) -> FlightStatus:
        self.statuses.append(super().complete())
        return self.statuses[-1]

    def pause(self) -> None:
        super().pause()
        self.told.append("pause")

    def resume(self) -> None:
        super().resume()
        self.told.append("resume")


class Outcome(NamedTuple):
    """What an interrupted flight left, as the table in README.md has it."""

    record: str
    status: str
    run: str
    rows: str

    def __str__(self) -> str:
        return " · ".join(self)


class PlanError(Exception):
    """Raised in a plan, in flight."""


class Other(Device):
    """Another device, in the same plan; whatever it is asked to do ends when the test says so."""

    def __init__(self, *, name: str) -> None:
        super().__init__(name=name)
        self.status = Status(self)

    def set(self, value: float) -> Status:
        return self.status

    def trigger(self) -> Status:
        return self.status

    def kickoff(self) -> Status:
        return self.status

    def complete(self) -> Status:
        return self.status

    def describe_collect(self) -> dict[str, Any]:
        return {}

    def collect_pages(self) -> Iterator[Any]:
        yield from ()


class Scene:
    """A flyer, a RunEngine, and a hand (a thread) that acts while the plan waits for the flight."""

    def __init__(self, flyer: HandFlyer) -> None:
        self.flyer = flyer
        self.run_engine = RunEngine({})
        self.documents: list[tuple[str, dict[str, Any]]] = []
        self.run_engine.subscribe(lambda name, document: self.documents.append((name, document)))
        self.run_engine.waiting_hook = self._waits  # type: ignore[assignment]
        self.beam_is_off = Signal(name="beam_is_off", value=0)
        self.other = Other(name="other")
        self._airborne = threading.Event()
        self._awaited: set[Any] = set()
        self.paused: BaseException | None = None
        self.ending: BaseException | None = None
        flyer.subscribe(self._begins, flyer.SUB_FLIGHT_BUSY)

    def _begins(self, **_: Any) -> None:
        self._airborne.set()

    def _waits(self, statuses: set[Any] | None) -> None:
        self._awaited = set(statuses or ())

    @property
    def awaited(self) -> bool:
        """Whether the RunEngine waits, in flight."""
        pending = any(not status.done for status in self._awaited)
        return pending and self.flying and self.run_engine.state == "running"

    @property
    def flight_awaited(self) -> bool:
        """Whether it waits for the flight, and for nothing else that would end before."""
        return self.awaited and any(isinstance(status, FlightStatus) for status in self._awaited)

    @property
    def flying(self) -> bool:
        return self._airborne.is_set() and not {"finished", "failed"} & {mark.step for mark in self.flyer.timeline}

    def land(self, points: Iterable[float] = (1, 2, 3), *, record: str = "own") -> None:
        """As the controller does: the arrays, then Done."""
        x = np.array(list(points), dtype=float)
        for array, values in (("t", time.time() + x), ("x", x), ("y", x**2)):
            assert epics.caput(f"{self.flyer.prefix}{array}_array", values, wait=True, timeout=10) == 1
        epics.caput(f"{self.flyer.prefix}{record}", 0)

    def press_ctrl_c(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    def press_ctrl_c_twice(self) -> None:
        self.press_ctrl_c()
        until(lambda: self.run_engine.deferred_pause_requested)
        time.sleep(0.15)  # two within 0.1 s are one to the RunEngine
        if self.run_engine.deferred_pause_requested:  # it may have met a checkpoint
            self.press_ctrl_c()
        until(lambda: self.run_engine.state != "running")

    def play(
        self,
        plan: MsgGenerator[Any],
        act: Callable[[], Any] = lambda: None,
        decide: Callable[[], Any] = lambda: None,
    ) -> None:
        """Run a plan; while it waits in flight, act; where that leaves it paused, decide what next."""
        with ctrl_c_without_a_plan_is_ignored(), self.hand(lambda: self.awaited, act):
            self.ending = self._ending(lambda: self.run_engine(plan))
        if self.run_engine.state == "paused":
            self.paused = self.ending
            self.ending = self._ending(decide)
        assert self.run_engine.state == "idle"

    @contextmanager
    def hand(self, condition: Callable[[], bool], act: Callable[[], Any]) -> Iterator[None]:
        """Acts once the condition holds, in another thread; not at all where it never does."""
        failures: list[BaseException] = []
        enough = threading.Event()

        def wait_and_act() -> None:
            epics.ca.use_initial_context()
            try:
                until(lambda: enough.is_set() or condition())
                if not enough.is_set():
                    act()
            except BaseException as failure:
                failures.append(failure)

        thread = threading.Thread(target=wait_and_act)
        thread.start()
        try:
            yield
        finally:
            enough.set()
            thread.join()
        assert not failures, failures

    def _ending(self, call: Callable[[], Any]) -> BaseException | None:
        try:
            call()
        except (RunEngineInterrupted, FailedStatus, PlanError) as ending:
            return ending
        return None

    def resume_and_land(self) -> None:
        with self.hand(lambda: self.flight_awaited, self.land):
            self.run_engine.resume()

    def outcome(self) -> Outcome:
        """Of the one flight there was."""
        (stop,) = (document for name, document in self.documents if name == "stop")
        errors = {status.exception(0) for status in self.flyer.statuses if status.done} - {None}
        assert len(errors) <= 1
        status = type(*errors).__name__ if errors else "in flight" if self.flying else "finished"
        assert self.rows in ([], [1, 2, 3])
        return Outcome(
            "Busy" if self.flying else "Done", status, stop["exit_status"], "its rows" if self.rows else "no rows"
        )

    @property
    def rows(self) -> list[float]:
        """The positions in all documents."""
        pages = (document["data"] for name, document in self.documents if name == "event_page")
        return [x for data in pages for x in data.get("ifly_xArr", [])]

    def forget(self) -> None:
        """Make ready for another flight."""
        self.documents.clear()
        self._airborne.clear()
        self.flyer.statuses.clear()


def fly_by_hand(flyer: BusyFlyer, *others: Other) -> MsgGenerator[None]:
    yield from bps.open_run()
    yield from bps.kickoff(flyer, group="kickoff")
    yield from bps.wait("kickoff")
    yield from bps.complete(flyer, group="complete")
    for other in others:
        yield from bps.abs_set(other, 1, group="complete")
    yield from bps.wait("complete")
    yield from bps.collect(flyer)
    yield from bps.close_run()


def count_while_flying(flyer: BusyFlyer, *others: Device) -> Any:
    return bpp.fly_during_wrapper(bp.count([Signal(name="counter", value=0), *others]), [flyer])


PLANS: dict[str, Callable[..., Any]] = {
    "plans.fly": lambda *flyers: plans.fly(flyers),
    "bp.fly": lambda *flyers: bp.fly(list(flyers)),
    "fly_during": count_while_flying,
    "by hand": fly_by_hand,
}


KICKOFF_FINISHES_ON: dict[str, Literal["done", "busy"]] = {
    "plans.fly": "done",
    "bp.fly": "done",
    "fly_during": "busy",
    "by hand": "busy",
}


def raising_in_flight(plan: MsgGenerator[Any], scene: Scene) -> Any:
    """The plan, with an exception in flight: where it waits for kickoff, or behind that."""
    waited = raised = False

    def fail() -> MsgGenerator[None]:
        while not scene.flying:
            yield from bps.sleep(0.001)
        raise PlanError("the plan has failed")

    def instead(msg: Msg) -> tuple[Any, Any]:
        nonlocal waited, raised
        if raised or not (waited or msg.command == "wait"):
            return None, None
        waited, raised = True, waited or scene.flyer.kickoff_finishes_on == "done"
        return (fail(), None) if raised else (None, None)

    return bpp.plan_mutator(plan, instead)


def interrupt(scene: Scene, kind: str, interruption: str, lose_ioc: Callable[[], None] | None = None) -> Outcome:
    """Fly a plan of this kind, and interrupt it in flight in this way."""
    flyer, run_engine = scene.flyer, scene.run_engine
    flyer.kickoff_finishes_on = KICKOFF_FINISHES_ON[kind]
    flyer.flight_timeout = 0.3 if interruption == "flight_timeout" else TIMEOUT
    if interruption == "Ctrl-C once":

        def press_and_land() -> None:
            scene.press_ctrl_c()
            until(lambda: run_engine.deferred_pause_requested)
            scene.land()

        scene.play(PLANS[kind](flyer), press_and_land, run_engine.resume)
    elif interruption.startswith("Ctrl-C twice"):
        decisions: dict[str, Callable[[], Any]] = {
            "`resume`": scene.resume_and_land,
            "`abort`": run_engine.abort,
            "`stop`": run_engine.stop,
            "`halt`": run_engine.halt,
        }
        scene.play(PLANS[kind](flyer), scene.press_ctrl_c_twice, decisions[interruption.split(", ")[1]])
    elif interruption == "suspender":
        run_engine.install_suspender(SuspendBoolHigh(scene.beam_is_off))

        def suspend_and_land() -> None:
            scene.beam_is_off.put(1)
            until(lambda: "pause" in flyer.told)
            scene.beam_is_off.put(0)
            until(lambda: "resume" in flyer.told and scene.flight_awaited)
            scene.land()

        scene.play(PLANS[kind](flyer), suspend_and_land)
    elif interruption == "exception in the plan":
        scene.play(raising_in_flight(PLANS[kind](flyer), scene), scene.land)
    elif interruption == "failure of another device":
        if kind == "bp.fly":  # else it flies one after the other
            flyer.kickoff_finishes_on = "busy"

        def fail_and_land() -> None:
            in_one_wait = scene.flight_awaited  # which ends with the failure
            scene.other.status.set_exception(RuntimeError("the other device has failed"))
            if not in_one_wait:
                until(lambda: scene.flight_awaited or run_engine.state == "idle")
                if scene.flight_awaited:
                    scene.land()

        scene.play(PLANS[kind](flyer, scene.other), fail_and_land)
    elif interruption == "flight_timeout":
        scene.play(PLANS[kind](flyer))
    else:
        assert interruption == "IOC lost"
        assert lose_ioc is not None
        scene.play(PLANS[kind](flyer), lose_ioc)
    return scene.outcome()


def flies_well(scene: Scene, kind: str) -> None:
    """A good flight by this kind of plan: nothing is left of the one before, and it leaves nothing to another run."""
    flyer = scene.flyer
    flyer.flight_timeout = TIMEOUT
    scene.forget()
    scene.play(PLANS[kind](flyer), lambda: scene.land((4, 5)))
    assert scene.ending is None
    assert scene.rows == [4, 5]
    (stop,) = (document for name, document in scene.documents if name == "stop")
    assert stop["exit_status"] == "success"
    assert list(flyer.collect_pages()) == []
    scene.forget()


def documented() -> dict[tuple[str, str], str]:
    """The table in README.md: what becomes of a flight, by interruption and plan."""
    readme = Path(__file__).parents[2].joinpath("README.md").read_text()
    table = readme.split("<!-- interruptions -->\n")[1].split("\n\n")[0]
    _, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    return {
        (interruption, kind): cell for interruption, *cells in rows for kind, cell in zip(PLANS, cells, strict=True)
    }
