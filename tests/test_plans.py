"""Plans with one flyer and with several, and the recovery of what a failed run left; with a real RunEngine."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import bluesky.preprocessors as bpp
import epics
import event_model
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.callbacks.best_effort import BestEffortCallback
from bluesky.utils import FailedStatus, Msg, MsgGenerator, RunEngineInterrupted, single_gen
from ophyd import Component, EpicsSignalRO
from ophyd.status import Status

from busy_callback_flyer import BusyFlyer, BusyRecord, FlightAborted, StaleArrayError
from busy_callback_flyer.plans import fly, recover

from .conftest import PREFIX, look
from .faults.interruptions import PLANS, TIMEOUT, HandFlyer, Other, Scene, flies_well, notices_failures_at_once, until

Controller = Callable[..., None]
Documents = list[tuple[str, dict[str, Any]]]
MakeFlyer = Callable[..., BusyFlyer]

BUSY_PV = f"{PREFIX}mybusy"


class SecondFlyer(HandFlyer):
    busy = Component(BusyRecord, "second", kind="config")


def of_kind(documents: Documents, name: str) -> list[dict[str, Any]]:
    return [document for kind, document in documents if kind == name]


def is_done(pv: str) -> bool:
    return look(pv)[0] == 0


def positions(documents: Documents, flyer: str = "ifly") -> list[float]:
    return [x for page in of_kind(documents, "event_page") for x in page["data"].get(f"{flyer}_xArr", [])]


@pytest.fixture
def scene(make_flyer: Callable[..., HandFlyer]) -> Iterator[Scene]:
    yield Scene(make_flyer(HandFlyer))
    epics.caput(f"{PREFIX}own", 0)


@pytest.fixture
def second(make_flyer: Callable[..., HandFlyer]) -> Iterator[HandFlyer]:
    flyer = make_flyer(SecondFlyer)
    flyer.name = "jfly"
    yield flyer
    epics.caput(f"{PREFIX}second", 0)


# Flying


def test_fly(flyer: BusyFlyer, controller: Controller, run_engine: RunEngine, documents: Documents) -> None:
    controller(npts=5, duration=0.05)
    commands: list[str] = []
    run_engine.msg_hook = lambda msg: commands.append(msg.command)  # type: ignore[assignment]
    run_engine(fly(flyer, md={"sample": "gold"}))
    awaited = [command for command in commands if command in ("kickoff", "wait", "complete", "collect")]
    assert awaited == ["kickoff", "wait", "complete", "wait", "collect"], "collect must find the arrays in hand"
    (start,), (stop,) = of_kind(documents, "start"), of_kind(documents, "stop")
    assert start["uid"] == flyer.flown_in
    assert (start["plan_name"], start["sample"], start["flyers"]) == ("fly", "gold", ["ifly"])
    assert start["hints"] == flyer.plot_md["hints"] == {"dimensions": [(["ifly_xArr"], "ifly")]}
    assert stop["exit_status"] == "success"
    assert positions(documents) == pytest.approx([-5, -2.5, 0, 2.5, 5])
    for name, document in documents:
        event_model.schema_validators[event_model.DocumentNames[name]].validate(document)


def test_fly_again_and_again(
    flyer: BusyFlyer, controller: Controller, run_engine: RunEngine, documents: Documents
) -> None:
    def plan() -> MsgGenerator[None]:
        for _ in range(3):
            yield from fly([flyer])

    controller(npts=2)
    run_engine(plan())
    assert len({page["descriptor"] for page in of_kind(documents, "event_page")}) == 3
    assert positions(documents) == [-5, 5] * 3


def test_fly_stages(flyer: BusyFlyer, run_engine: RunEngine) -> None:
    signal, seen = flyer.busy.forward_link, []
    before = signal.get()
    flyer.stage_sigs[signal] = f"{PREFIX}fence"
    flyer.subscribe(lambda **_: seen.append(signal.get(use_monitor=False)), flyer.SUB_FLIGHT_DONE)
    run_engine(fly(flyer))
    flyer.complete().wait(TIMEOUT)
    flyer._subscribers.wait(TIMEOUT)
    assert str(seen[0]).startswith(f"{PREFIX}fence")
    assert signal.get(use_monitor=False) == before


def test_own_hints_go_ahead(direct_flyer: BusyFlyer, run_engine: RunEngine, documents: Documents) -> None:
    dimensions = [[["ifly_tArr"], "ifly"]]
    run_engine(fly(direct_flyer, md={"hints": {"dimensions": dimensions}}))
    run_engine(fly(direct_flyer, md={"hints": {"more": 1}}))
    first, other = of_kind(documents, "start")
    assert first["hints"] == {"dimensions": dimensions}
    assert other["hints"] == {**direct_flyer.plot_md["hints"], "more": 1}


def test_fly_is_plotted(direct_flyer: BusyFlyer, controller: Controller, run_engine: RunEngine) -> None:
    """Signal against position, without a word of the user."""
    mpl.use("Agg")
    controller(npts=7)
    run_engine.subscribe(BestEffortCallback())
    direct_flyer.stream_name = "primary"
    before = set(plt.get_fignums())
    run_engine(fly(direct_flyer))
    (figure,) = (plt.figure(number) for number in set(plt.get_fignums()) - before)
    (line,) = figure.axes[0].get_lines()
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("ifly_xArr", "ifly_yArr")
    assert np.asarray(line.get_xdata()).tolist() == epics.caget(f"{PREFIX}x_array").tolist()
    assert np.asarray(line.get_ydata()).tolist() == epics.caget(f"{PREFIX}y_array").tolist()
    plt.close(figure)


def test_what_is_plotted_against_what() -> None:
    class OneSignal(BusyFlyer):
        xArr = None  # noqa: N815

    class TimeOnly(BusyFlyer):
        xArr = yArr = None  # noqa: N815

    class Bare(BusyFlyer):
        tArr = xArr = yArr = None  # noqa: N815

    def dimensions(kind: type[BusyFlyer], **options: Any) -> Any:
        return kind(PREFIX, name="f", **options).plot_md["hints"]["dimensions"]

    assert dimensions(BusyFlyer, stream_name="s") == [(["f_xArr"], "s")]
    assert dimensions(BusyFlyer, time_array=None) == [(["f_tArr"], "f")]
    assert dimensions(OneSignal) == [(["f_tArr"], "f")]
    assert dimensions(TimeOnly) == [(["f_tArr"], "f")]
    assert dimensions(Bare, time_array=None) == []


# Several


def fly_nested(outer: BusyFlyer, inner: BusyFlyer) -> MsgGenerator[None]:
    """A flight in a run of its own, while another goes on."""

    @bpp.set_run_key_decorator("inner")
    @bpp.run_decorator(md={"which": "inner"})
    def flight() -> MsgGenerator[None]:
        yield from bps.kickoff(inner, wait=True)
        yield from bps.complete(inner, wait=True)
        yield from bps.collect(inner)

    yield from bps.open_run(md={"which": "outer"})
    yield from bps.kickoff(outer, wait=True)
    yield from flight()
    yield from bps.complete(outer, wait=True)
    yield from bps.collect(outer)
    yield from bps.close_run()


SEVERAL: dict[str, tuple[str, Callable[[BusyFlyer, BusyFlyer], Any]]] = {
    "plans.fly": ("done", lambda one, two: fly([one, two])),
    "bp.fly": ("busy", lambda one, two: bp.fly([one, two])),
    "fly_during": ("busy", lambda one, two: bpp.fly_during_wrapper(bp.count([]), [one, two])),
    "nested runs": ("busy", fly_nested),
}


@pytest.mark.parametrize("several", SEVERAL)
def test_several_at_once(scene: Scene, second: HandFlyer, several: str) -> None:
    first = scene.flyer
    finishes_on, plan = SEVERAL[several]
    first.kickoff_finishes_on = second.kickoff_finishes_on = finishes_on

    def land_both() -> None:
        until(lambda: "busy" in second.timeline)
        assert "done" not in first.timeline, "not at once"
        scene.land((1, 2, 3))
        first.complete().wait(TIMEOUT)  # its arrays are in hand, and the next are the other's
        assert "done" not in second.timeline
        scene.land((4, 5), record="second")

    scene.play(plan(first, second), land_both)
    assert scene.ending is None
    assert scene.rows == [1, 2, 3]
    assert positions(scene.documents, "jfly") == [4, 5]
    starts = {document["uid"]: document.get("which") for document in of_kind(scene.documents, "start")}
    runs = {document["name"]: starts[document["run_start"]] for document in of_kind(scene.documents, "descriptor")}
    if several == "nested runs":
        assert (runs["ifly"], runs["jfly"]) == ("outer", "inner")
    assert {document["exit_status"] for document in of_kind(scene.documents, "stop")} == {"success"}


def test_bp_fly_flies_one_after_the_other_where_kickoff_finishes_on_done(scene: Scene, second: HandFlyer) -> None:
    def land_one_after_the_other() -> None:
        scene.land((1, 2, 3))
        until(lambda: "busy" in second.timeline)
        scene.land((4, 5), record="second")

    scene.play(bp.fly([scene.flyer, second]), land_one_after_the_other)
    first_done, second_busy = scene.flyer.timeline["done"].stamp, second.timeline["busy"].stamp
    assert first_done is not None
    assert second_busy is not None
    assert first_done <= second_busy
    assert (scene.rows, positions(scene.documents, "jfly")) == ([1, 2, 3], [4, 5])


def test_flies_during_a_plan(scene: Scene) -> None:
    """The inner plan reads in flight."""
    record = EpicsSignalRO(f"{PREFIX}own", name="record")
    record.wait_for_connection(timeout=10)
    scene.flyer.kickoff_finishes_on = "busy"
    scene.play(bpp.fly_during_wrapper(bp.count([record], num=3), [scene.flyer]), scene.land)
    assert [document["data"]["record"] for document in of_kind(scene.documents, "event")] == [1, 1, 1]
    assert scene.rows == [1, 2, 3]


def test_any_other_flyer_may_come_along(scene: Scene) -> None:
    scene.other.status.set_finished()
    scene.play(fly([scene.other, scene.flyer]), scene.land)
    assert scene.rows == [1, 2, 3]
    assert of_kind(scene.documents, "start")[0]["flyers"] == ["other", "ifly"]


@notices_failures_at_once
def test_all_are_landed_where_one_fails(scene: Scene, second: HandFlyer, make_flyer: MakeFlyer) -> None:
    def end_the_second() -> None:
        until(lambda: "busy" in second.timeline)
        second.stop()

    scene.play(fly([scene.flyer, second, scene.other]), end_the_second)
    assert isinstance(scene.ending, FailedStatus)
    assert "stop() was called" in str(scene.ending.__cause__)
    for flyer in (scene.flyer, second):
        assert isinstance(flyer.statuses[0].exception(0), FlightAborted)
        until(partial(is_done, flyer.busy.state.pvname))
    (stop,) = of_kind(scene.documents, "stop")
    assert stop["exit_status"] == "fail"
    assert "jfly" in stop["reason"]
    assert "stop() was called" in stop["reason"], "what it says of a status is what the status says"
    assert scene.rows == positions(scene.documents, "jfly") == []


def test_one_record_is_not_flown_twice_at_once(
    make_flyer: MakeFlyer, run_engine: RunEngine, documents: Documents
) -> None:
    before = look(BUSY_PV)
    flyer = make_flyer()
    with pytest.raises(ValueError, match=f"ifly and ifly cannot fly at once: both have the busy record {BUSY_PV}"):
        run_engine(fly([flyer, make_flyer(events="ophyd")]))
    with pytest.raises(ValueError, match="ifly is given twice"):
        run_engine(fly((flyer, flyer)))
    with pytest.raises(ValueError, match="no flyer"):
        run_engine(fly([]))
    for nonsense in ("ifly", ["ifly"], None):
        with pytest.raises(TypeError, match="is no flyer"):
            run_engine(fly(nonsense))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="is no BusyFlyer"):
        run_engine(recover([flyer]))  # type: ignore[arg-type]
    assert documents == []
    assert look(BUSY_PV) == before


def test_what_one_run_cannot_tell_apart_is_refused_before_it_flies(
    make_flyer: MakeFlyer, run_engine: RunEngine, documents: Documents
) -> None:
    first, second = make_flyer(), make_flyer(SecondFlyer)
    one_name = "ifly \\({}\\) and ifly \\({}\\) cannot be flown in one run: give one of them another name"
    with pytest.raises(ValueError, match=one_name.format(BUSY_PV, f"{PREFIX}second")):
        run_engine(fly([first, second]))
    with pytest.raises(ValueError, match=one_name.format(BUSY_PV, "Other")):
        run_engine(fly([first, Other(name="other"), Other(name="ifly")]))
    second.name = "jfly"
    one_stream = "ifly and jfly cannot be flown in one run: both have the stream '{}'.*another stream_name"
    for streams in ({"first": "primary", "second": "primary"}, {"first": "jfly"}, {"second": "ifly"}):
        first.stream_name, second.stream_name = streams.get("first"), streams.get("second")
        with pytest.raises(ValueError, match=one_stream.format(next(iter(streams.values())))):
            run_engine(fly([first, second]))
    first.stream_name, second.stream_name, second.describe_as = "jfly", "ifly", "flat"
    with pytest.raises(ValueError, match=r"jfly describes itself flat.*set its describe_as to 'nested'"):
        run_engine(fly([first, second]))
    assert documents == []
    assert list(first.timeline) == list(second.timeline) == []


def test_streams_that_differ_are_flown_in_one_run(scene: Scene, second: HandFlyer) -> None:
    scene.flyer.stream_name, second.stream_name = "jfly", "ifly"

    def land_both() -> None:
        until(lambda: "busy" in second.timeline)
        scene.land((1, 2, 3))
        scene.flyer.complete().wait(TIMEOUT)
        scene.land((4, 5), record="second")

    scene.play(fly([scene.flyer, second]), land_both)
    assert scene.ending is None
    assert [document["name"] for document in of_kind(scene.documents, "descriptor")] == ["jfly", "ifly"]
    assert (scene.rows, positions(scene.documents, "jfly")) == ([1, 2, 3], [4, 5])


# Given up


def pausing_behind_a_collect(plan: Any) -> Any:
    """The plan, with a pause right behind its first collect."""
    paused = False

    def insert(msg: Msg) -> tuple[Any, Any]:
        nonlocal paused
        if paused or msg.command != "collect":
            return None, None
        paused = True
        return single_gen(msg), single_gen(Msg("pause"))

    return bpp.plan_mutator(plan, insert)


def test_pause_between_two_collects_repeats_no_flight(scene: Scene, second: HandFlyer) -> None:
    """The RunEngine would replay both kickoffs, and one flight is collected."""

    def land_both() -> None:
        until(lambda: "busy" in second.timeline)
        scene.land()
        scene.land(record="second")

    scene.play(pausing_behind_a_collect(fly([scene.flyer, second])), land_both, scene.run_engine.resume)
    assert isinstance(scene.paused, RunEngineInterrupted)
    assert scene.ending is None
    assert scene.rows == positions(scene.documents, "jfly") == [1, 2, 3]
    (stop,) = of_kind(scene.documents, "stop")
    assert stop["num_events"] == {"ifly": 3, "jfly": 3}
    assert len(scene.flyer.statuses) == len(second.statuses) == 2, "kickoff and complete, once each"


def test_abort_at_the_checkpoint_behind_the_flight(scene: Scene) -> None:
    """Where Ctrl-C pauses: all is filed."""

    def press_and_land() -> None:
        scene.press_ctrl_c()
        until(lambda: scene.run_engine.deferred_pause_requested)
        scene.land()

    scene.play(fly(scene.flyer), press_and_land, scene.run_engine.abort)
    assert str(scene.outcome()) == "Done · finished · abort · its rows"
    flies_well(scene, "plans.fly")


def test_exception_between_flight_and_collect_files_the_flight(scene: Scene) -> None:
    def fail_at_the_checkpoint(msg: Msg) -> tuple[Any, Any]:
        def fail() -> MsgGenerator[None]:
            raise RuntimeError("out of the blue")
            yield

        return (fail(), None) if msg.command == "checkpoint" else (None, None)

    with pytest.raises(RuntimeError, match="out of the blue"):
        scene.play(bpp.plan_mutator(fly(scene.flyer), fail_at_the_checkpoint), scene.land)
    assert str(scene.outcome()) == "Done · finished · fail · its rows"
    assert of_kind(scene.documents, "stop")[0]["reason"] == "out of the blue"


@notices_failures_at_once
def test_a_plan_around_it_may_go_on(scene: Scene) -> None:
    """Its run is closed and its flyer landed by then."""

    def plan() -> MsgGenerator[None]:
        try:
            yield from fly([scene.flyer, scene.other])
        except FailedStatus:
            until(lambda: look(f"{PREFIX}own")[0] == 0)
            yield from bps.open_run({"after": True})
            yield from bps.close_run()

    scene.play(plan(), lambda: scene.other.status.set_exception(RuntimeError("the other device has failed")))
    assert scene.ending is None
    assert [document["exit_status"] for document in of_kind(scene.documents, "stop")] == ["fail", "success"]
    flies_well(scene, "plans.fly")


@pytest.mark.parametrize("kind", PLANS)
def test_abort_in_a_long_flight(kind: str, make_flyer: MakeFlyer, controller: Controller) -> None:
    """Of a minute: nobody waits for its end."""
    controller(duration=60)
    flyer = make_flyer(kickoff_finishes_on="busy" if kind in ("fly_during", "by hand") else "done")
    run_engine = RunEngine({}, context_managers=[])
    flyer.subscribe(lambda **_: run_engine.request_pause(defer=False), flyer.SUB_FLIGHT_BUSY)
    with pytest.raises(RunEngineInterrupted):
        run_engine(PLANS[kind](flyer))
    run_engine.abort()
    until(lambda: look(BUSY_PV)[0] == 0)
    assert "done" not in flyer.timeline or flyer.timeline["done"].client - flyer.timeline["put"].client < 50


def test_a_flyer_that_flies_already_is_left_alone(
    direct_flyer: BusyFlyer, controller: Controller, run_engine: RunEngine, documents: Documents
) -> None:
    """It was kicked off by hand."""
    controller(duration=60)
    status = direct_flyer.kickoff()
    with pytest.raises(RuntimeError, match="ifly is flying already"):
        run_engine(fly(direct_flyer))
    assert not status.done
    assert documents == []


def test_a_kickoff_that_is_refused(direct_flyer: BusyFlyer, run_engine: RunEngine, documents: Documents) -> None:
    direct_flyer.page_size = 0
    with pytest.raises(ValueError, match="page_size"):
        run_engine(fly(direct_flyer))
    (stop,) = of_kind(documents, "stop")
    assert stop["exit_status"] == "fail"
    assert "page_size=0" in stop["reason"]
    direct_flyer.page_size = 10
    run_engine(fly(direct_flyer))
    assert len(positions(documents)) == 11


class Refuses(Other):
    """It cannot be kicked off, nor stopped, nor unstaged."""

    def kickoff(self) -> Any:
        raise ValueError("cannot fly")

    def stop(self, *, success: bool = False) -> None:
        raise OSError("cannot stop")

    def unstage(self) -> Any:
        raise OSError("cannot be unstaged")


def test_an_earlier_flight_does_not_get_into_a_run_that_failed_before_its_own(
    direct_flyer: BusyFlyer, run_engine: RunEngine, documents: Documents
) -> None:
    direct_flyer.kickoff().wait(TIMEOUT)
    direct_flyer.complete().wait(TIMEOUT)
    other = Refuses(name="other")
    with pytest.raises(OSError, match="cannot be unstaged") as caught:
        run_engine(fly([other, direct_flyer]))
    assert isinstance(caught.value.__context__, ValueError)
    assert positions(documents) == []
    assert direct_flyer.kept
    assert direct_flyer.flown_in is None


def test_what_goes_wrong_with_another_keeps_nobody_from_landing(scene: Scene) -> None:
    def plan() -> MsgGenerator[None]:
        for _ in range(2):  # each leaves nothing staged and no run open
            with contextlib.suppress(OSError):
                yield from fly([scene.flyer, Refuses(name="other")])

    scene.play(plan())
    assert [document["exit_status"] for document in of_kind(scene.documents, "stop")] == ["fail", "fail"]
    for status in scene.flyer.statuses:
        assert isinstance(status.exception(0), FlightAborted)
    until(lambda: is_done(f"{PREFIX}own"))
    flies_well(scene, "plans.fly")


def test_pause_in_the_clean_up_replays_no_kickoff(scene: Scene, second: HandFlyer) -> None:
    def land_one_and_fail() -> None:
        until(lambda: "busy" in second.timeline)
        scene.land()
        until(lambda: not scene.flyer.flying)
        second.stop()

    scene.play(pausing_behind_a_collect(fly([scene.flyer, second])), land_one_and_fail, scene.run_engine.resume)
    assert isinstance(scene.paused, RunEngineInterrupted)
    assert isinstance(scene.ending, FailedStatus)
    assert scene.rows == [1, 2, 3]
    assert [len(flyer.statuses) for flyer in (scene.flyer, second)] == [1, 1]
    (stop,) = of_kind(scene.documents, "stop")
    assert (stop["exit_status"], stop["num_events"]) == ("fail", {"ifly": 3})
    assert "FlightAborted" in stop["reason"]


def test_waits_until_another_is_staged(scene: Scene) -> None:
    """One whose stage() returns a status, as those of ophyd-async do."""
    order: list[str] = []

    class Slow(Other):
        def _later(self, what: str) -> Status:
            status = Status(self)

            def finish() -> None:
                order.append(what)
                status.set_finished()

            threading.Timer(0.05, finish).start()
            return status

        def stage(self) -> Any:
            return self._later("staged")

        def kickoff(self) -> Any:
            order.append("kicked off")
            return super().kickoff()

        def unstage(self) -> Any:
            return self._later("unstaged")

    slow = Slow(name="slow")
    slow.status.set_finished()
    scene.play(fly([slow, scene.flyer]), scene.land)
    assert scene.ending is None
    assert order == ["staged", "kicked off", "unstaged"]


# Recovered


class Consumer:
    """Of documents; where it is broken, it raises at the first page."""

    def __init__(self) -> None:
        self.broken = True
        self.asked = 0

    def __call__(self, name: str, document: dict[str, Any]) -> None:
        if name == "event_page":
            self.asked += 1
            if self.broken:
                raise ConnectionError("the server is gone")


@pytest.fixture
def consumer(run_engine: RunEngine) -> Consumer:
    consumer = Consumer()
    run_engine.subscribe(consumer)
    return consumer


def test_recover(
    flyer: BusyFlyer, controller: Controller, run_engine: RunEngine, consumer: Consumer, documents: Documents
) -> None:
    controller(npts=3)
    with pytest.raises(ConnectionError):
        run_engine(fly(flyer))
    assert consumer.asked == 1, "a broken consumer is not asked again"
    assert [stop["exit_status"] for stop in of_kind(documents, "stop")] == ["fail"]
    (failed,) = of_kind(documents, "start")
    consumer.broken = False
    before = look(BUSY_PV)
    documents.clear()
    run_engine(recover(flyer, md={"sample": "gold"}))
    (start,) = of_kind(documents, "start")
    assert (start["recovers"], start["plan_name"]) == (failed["uid"], "recover")
    assert start["uid"] != failed["uid"]
    assert start["flown_at"] == flyer.timeline.t0
    assert (start["sample"], start["flyers"], start["hints"]) == ("gold", ["ifly"], flyer.plot_md["hints"])
    assert positions(documents) == [-5, 0, 5]
    assert look(BUSY_PV) == before, "it flew again"
    assert list(flyer.collect_pages()) == []
    documents.clear()
    controller(npts=2)
    run_engine(bp.fly([flyer]))
    assert positions(documents) == [-5, 5]


def test_recover_what_bp_fly_left(
    direct_flyer: BusyFlyer, run_engine: RunEngine, consumer: Consumer, documents: Documents
) -> None:
    with pytest.raises(ConnectionError):
        run_engine(bp.fly([direct_flyer]))
    (failed,) = of_kind(documents, "start")
    consumer.broken = False
    documents.clear()
    with pytest.raises(ValueError, match="which run was ifly flown in"):
        run_engine(recover(direct_flyer))
    assert documents == []
    run_engine(recover(direct_flyer, run=failed["uid"]))
    assert of_kind(documents, "start")[0]["recovers"] == failed["uid"]
    assert len(positions(documents)) == 11


def test_recover_after_a_recovery_that_failed(
    direct_flyer: BusyFlyer, run_engine: RunEngine, consumer: Consumer, documents: Documents
) -> None:
    for plan in (fly, recover):
        with pytest.raises(ConnectionError):
            run_engine(plan(direct_flyer))
    first = of_kind(documents, "start")[0]["uid"]
    consumer.broken = False
    documents.clear()
    run_engine(recover(direct_flyer))
    assert of_kind(documents, "start")[0]["recovers"] == first
    assert len(positions(documents)) == 11


def test_nothing_to_recover(flyer: BusyFlyer, controller: Controller, run_engine: RunEngine) -> None:
    documents: Documents = []
    with pytest.raises(RuntimeError, match="it has not flown"):
        run_engine(recover(flyer))
    controller(fault=1)
    flyer.flight_timeout = 0.1
    with pytest.raises(FailedStatus):
        run_engine(fly(flyer))
    run_engine.subscribe(lambda name, document: documents.append((name, document)))
    with pytest.raises(RuntimeError, match="its flight failed"):
        run_engine(recover(flyer))
    flyer.flight_timeout = TIMEOUT
    controller(fault=4)
    with pytest.raises(FailedStatus):
        run_engine(fly(flyer))
    documents.clear()
    with pytest.raises(StaleArrayError):
        run_engine(recover(flyer))
    assert documents == []


def test_what_could_not_be_collected_is_logged(
    scene: Scene, second: HandFlyer, caplog: pytest.LogCaptureFixture
) -> None:
    """The second flight is stopped, so the plan is given up; the first is over and is to be filed."""
    consumer = Consumer()
    scene.run_engine.subscribe(consumer)

    def land_one_and_stop_the_other() -> None:
        until(lambda: "busy" in second.timeline)
        scene.land()
        until(lambda: not scene.flyer.flying)
        second.stop()

    with caplog.at_level(logging.WARNING, logger="busy_callback_flyer"):
        scene.play(fly([scene.flyer, second]), land_one_and_stop_the_other)
    (stop,) = of_kind(scene.documents, "stop")
    assert stop["exit_status"] == "fail"
    assert "stop() was called" in stop["reason"], "why the plan was given up matters more"
    assert consumer.asked == 1
    assert "plans.recover(ifly)" in caplog.text
    consumer.broken = False
    scene.documents.clear()
    scene.run_engine(recover(scene.flyer))
    assert scene.rows == [1, 2, 3]
