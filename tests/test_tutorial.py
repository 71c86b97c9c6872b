"""The tutorial's own flyer runs against the embedded IOC, and ours takes its place; our tutorial's steps run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import bluesky.plans as bp
import pytest
from bluesky import RunEngine

from busy_callback_flyer import BusyFlyer
from busy_callback_flyer.tutorial import STEPS
from busy_callback_flyer.tutorial.step1_bare_minimum import BareMinimumFlyer
from busy_callback_flyer.tutorial.step2_template import TemplateFlyer
from busy_callback_flyer.tutorial.step3_trivial_data import TrivialDataFlyer
from busy_callback_flyer.tutorial.step4_array_data import POINTS, ArrayDataFlyer
from busy_callback_flyer.tutorial.step5_working_flyer import MyFlyer, MyPollingFlyer

from .conftest import PREFIX, look

Documents = list[tuple[str, dict[str, Any]]]


def test_same_keys_same_rows(
    controller: Callable[..., None],
    make_flyer: Callable[..., BusyFlyer],
    run_engine: RunEngine,
    documents: Documents,
) -> None:
    from . import tutorial_flyer  # makes its flyer at once: not before there is an IOC

    tutorial_flyer.ifly.wait_for_connection(timeout=10)
    controller(npts=21, duration=0.3, seed=3)
    run_engine(bp.fly([tutorial_flyer.ifly]))
    theirs, documents[:] = dict(documents), []
    run_engine(bp.fly([make_flyer()]))
    ours = dict(documents)
    assert theirs["stop"]["exit_status"] == ours["stop"]["exit_status"] == "success"
    assert theirs["descriptor"]["name"] == ours["descriptor"]["name"]
    assert theirs["descriptor"]["data_keys"].keys() == ours["descriptor"]["data_keys"].keys()
    for key in ("ifly_xArr", "ifly_yArr"):
        assert list(theirs["event_page"]["data"][key]) == ours["event_page"]["data"][key]
        assert len(ours["event_page"]["data"][key]) == 21


# Our own tutorial


class ByHand(TemplateFlyer):
    """Its activity ends when the test says so."""

    def my_activity(self) -> None:
        self.activity.put(1)


class AtOnce(TemplateFlyer):
    """Its activity is over before it was begun."""

    def my_activity(self) -> None:
        self.activity.put(1)
        self.activity.put(0)


def rows(documents: Documents) -> list[dict[str, list[Any]]]:
    return [document["data"] for name, document in documents if name == "event_page"]


def test_the_bare_minimum_flies(run_engine: RunEngine, documents: Documents) -> None:
    flyer = BareMinimumFlyer(name="flyer")
    assert flyer.kickoff().success
    assert flyer.complete().success
    run_engine(bp.fly([flyer]))
    assert rows(documents) == []
    assert documents[-1][1]["exit_status"] == "success"


def test_the_template_waits_for_its_activity() -> None:
    flyer = ByHand(name="flyer")
    for _ in range(2):  # the end of a flight is not that of the next one
        status = flyer.kickoff()
        assert not status.done
        assert not flyer.complete().done
        with pytest.raises(RuntimeError, match="flies already"):
            flyer.kickoff()
        flyer.activity.put(0)
        assert status.success
        assert flyer.complete().success


def test_the_template_takes_an_activity_that_is_over_at_once() -> None:
    assert AtOnce(name="flyer").kickoff().success


def test_the_template_completes_no_flight_that_was_not_begun() -> None:
    with pytest.raises(RuntimeError, match="not kicked off"):
        ByHand(name="flyer").complete()


def test_a_single_number_is_collected(run_engine: RunEngine, documents: Documents) -> None:
    run_engine(bp.fly([TrivialDataFlyer(name="ifly")]))
    assert rows(documents) == [{"ifly_x": [1.2345]}]


def test_an_array_is_collected_once_each_point_at_its_time(run_engine: RunEngine, documents: Documents) -> None:
    flyer = ArrayDataFlyer(name="ifly")
    assert list(flyer.collect_pages()) == []
    run_engine(bp.fly([flyer]))
    assert list(flyer.collect_pages()) == []
    (page,) = (document for name, document in documents if name == "event_page")
    elapsed, times = page["data"]["ifly_x"], page["timestamps"]["ifly_x"]
    assert len(elapsed) == POINTS
    assert elapsed == sorted(elapsed)
    assert elapsed == [t - flyer.t0 for t in times]


def test_an_array_is_not_collected_in_flight() -> None:
    class Measured(ArrayDataFlyer):
        def my_activity(self) -> None:
            self.activity.put(1)
            self._times.append(self.t0 + 1)

    flyer = Measured(name="ifly")
    flyer.kickoff()
    assert list(flyer.collect_pages()) == []
    flyer.activity.put(0)
    (page,) = flyer.collect_pages()
    assert page["data"] == {"ifly_x": [1]}


@pytest.mark.parametrize("kind", [MyFlyer, MyPollingFlyer])
def test_the_working_flyers_collect_the_same(
    kind: type[BusyFlyer],
    controller: Callable[..., None],
    make_flyer: Callable[..., BusyFlyer],
    run_engine: RunEngine,
    documents: Documents,
) -> None:
    controller(npts=21, duration=0.1, seed=3)
    run_engine(bp.fly([make_flyer(kind)]))
    run_engine(bp.fly([make_flyer()]))
    first, second = rows(documents)
    assert set(first) == {"ifly_tArr", "ifly_xArr", "ifly_yArr"}
    assert first["ifly_xArr"] == second["ifly_xArr"]
    assert first["ifly_yArr"] == second["ifly_yArr"]


@pytest.mark.parametrize("step", STEPS)
def test_every_step_is_shown(
    step: str, run_engine: RunEngine, controller: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    controller(npts=21, duration=0.1)
    import_module(f"busy_callback_flyer.tutorial.{step}").demonstrate(run_engine)
    assert "stop: success" in capsys.readouterr().out
    assert look(f"{PREFIX}mybusy")[0] == 0


@pytest.mark.slow
def test_the_walk_through_needs_nothing_and_says_nothing_on_stderr() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "busy_callback_flyer.tutorial"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        env={name: value for name, value in os.environ.items() if not name.startswith("EPICS_")},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("stop: success") == len(STEPS)
    for step in STEPS:
        assert f"{step}.py" in done.stdout
    assert "class TemplateFlyer(BareMinimumFlyer):" in done.stdout
    assert "MyPollingFlyer: finished" in done.stdout
