"""Measuring: real programs at the embedded IOC's records, and such as lie, die or hang."""

from __future__ import annotations

import json
import queue
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from busy_callback_flyer.ioc import EmbeddedIOC
from busy_callback_flyer.tools import latency
from busy_callback_flyer.tools.cli import main
from busy_callback_flyer.tools.latency import (
    BusyPV,
    Delays,
    Flown,
    LatencyError,
    LengthPV,
    Measurement,
    SelfClear,
    Site,
)
from busy_callback_flyer.tools.ways import WAYS, make_way, name_in_words

# isort: split
import epics

from ..conftest import PREFIX, look

BUSY = f"{PREFIX}mybusy"
OWN = f"{PREFIX}own"
"""Nobody acts on it."""

DIRECT, POLLING = "BusyFlyer, direct", "polling 50 ms"
TIMEOUT = 20.0
FEW: dict[str, Any] = {"flights": 2, "blocks": 1, "timeout": TIMEOUT}

CLIENT = """
import json, sys, time
import ophyd, epics
epics.get_pv({pv!r}, connect=True, timeout=10)
print(json.dumps(dict(client="a test's")), flush=True)
for number, line in enumerate(sys.stdin):
    {flight}
"""
WAIT = "epics.caput({pv!r}, 1, wait=True, timeout=20); "
ANSWER = "print(json.dumps(dict(known=time.time() + {ahead})), flush=True)"


def client(pv: str, flight: str, ahead: float = 0.0) -> list[str]:
    """A program that waits by a put-callback; its flight in Python."""
    code = CLIENT.format(pv=pv, flight=flight.format(pv=pv, ahead=ahead))
    return [sys.executable, "-c", code]


def measure(pv: str = BUSY, ways: dict[str, list[str]] | None = None, **options: Any) -> Measurement:
    controller = options.pop("controller", None) or LengthPV(f"{PREFIX}duration")
    return latency.measure(
        BusyPV(pv),
        latency.programs(["direct"], pv, TIMEOUT) if ways is None else ways,
        controller=controller,
        **{**FEW, **options},
    )


@pytest.fixture(autouse=True)
def _settings(controller: Callable[..., None]) -> None:
    """The usual ones."""


def test_ways_fly_the_same_lengths_and_tell_when_they_knew() -> None:
    flown: list[None] = []
    measured = measure(
        ways=latency.programs(["direct", "poll-50"], BUSY, TIMEOUT),
        flights=6,
        blocks=2,
        lengths=(0.01, 0.02),
        flew=lambda: flown.append(None),
    )
    assert list(measured.ways) == [DIRECT, POLLING]
    lengths = {name: sorted(delays.of("length")) for name, delays in measured.ways.items()}
    assert lengths[DIRECT] == lengths[POLLING]
    assert len(set(lengths[DIRECT])) == 6
    assert all(0.01 <= length <= 0.02 for length in lengths[DIRECT])
    assert len(flown) == 2 * (6 + 2 * latency.WARM_UP)
    for delays in measured.ways.values():
        assert (delays.early, delays.failure) == (0, "")
        assert "libca" in delays.client
        assert (delays.of() > 0).all()
        assert (delays.of() <= delays.of("next")).all()
    direct = measured.ways[DIRECT]
    assert (direct.of("event") <= direct.of("finished")).all()
    assert (direct.of("finished") <= direct.of()).all()
    low, high = measured.clock
    assert low < 0 < high
    assert measured.offset == 0
    assert look(BUSY)[0] == 0


def test_a_way_imports_nothing_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "copy.py").write_text("raise SystemExit('hidden')")
    monkeypatch.chdir(tmp_path)
    assert measure().ways[DIRECT].failure == ""


@pytest.mark.slow
@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("direct", "poll-50")])
def test_every_way_of_the_package(way: str) -> None:
    measured = measure(ways=latency.programs([way], BUSY, TIMEOUT), flights=3)
    (delays,) = measured.ways.values()
    assert delays.failure == ""
    assert len(delays.flown) + delays.early >= 3
    assert (delays.of() > 0).all()


def test_the_length_of_a_flight_is_put_back(controller: Callable[..., None]) -> None:
    controller(duration=0.25)
    measure()
    assert look(f"{PREFIX}duration")[0] == 0.25


def test_a_record_without_controller_is_cleared_by_us(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is measured, and not longer."""
    clearing = SelfClear(OWN)
    measured = measure(OWN, controller=clearing, lengths=(0.01, 0.01))
    assert len(measured.ways[DIRECT].flown) == 2
    assert look(OWN)[0] == 0
    timers: list[Any] = []
    monkeypatch.setattr(latency, "threading", SimpleNamespace(Timer=lambda *args: timers.append(args)))
    heard: queue.Queue[int] = queue.Queue()
    clearing._monitor.subscribe(lambda value, **_: heard.put(value), run=False)  # hears behind it, if it still does
    epics.caput(OWN, 1)
    assert heard.get(timeout=TIMEOUT) == 1
    assert timers == []
    epics.caput(OWN, 0)


def test_the_lengths_of_a_site_are_told_by_the_stamps(controller: Callable[..., None]) -> None:
    controller(duration=0.2)
    measured = measure(controller=Site())
    assert all(0.2 <= length < 10 for length in measured.ways[DIRECT].of("length"))
    assert any("The lengths of the flights differ by" in remark for remark in latency.remarks(measured))


@pytest.mark.parametrize("ahead", [100.0, -100.0])
def test_another_clock_is_found_and_taken_off(ahead: float) -> None:
    """A client whose clock is ahead bounds what is known by what it says of put and Busy."""
    flight = (
        "put = time.time() + {ahead}; "
        + WAIT
        + "stamp = epics.get_pv({pv!r}).get_with_metadata(form='time', use_monitor=False)['timestamp']; "
        "print(json.dumps(dict(known=time.time() + {ahead}, put=put, busy=time.time() + {ahead},"
        " busy_stamp=stamp - 1e-3)), flush=True)"
    )
    measured = measure(ways={"there": client(BUSY, flight, ahead)})
    assert measured.clock[0] <= -ahead <= measured.clock[1]
    assert measured.offset == pytest.approx(-ahead, abs=1)
    assert (np.abs(measured.ways["there"].of()) < 1).all()
    assert any("corrected" in remark for remark in latency.remarks(measured))


def test_nothing_is_said_of_clocks_that_nobody_told_of() -> None:
    measured = measure(ways={"it": client(BUSY, WAIT + ANSWER)})
    assert np.isinf(measured.clock[1])
    assert measured.offset == 0
    assert any("Nothing is known" in remark for remark in latency.remarks(measured))
    assert measured.to_dict()["clock"][1] is None


def test_who_knows_too_early_is_counted_apart(controller: Callable[..., None]) -> None:
    early = "epics.get_pv({pv!r}).put(1); " + ANSWER
    measured = measure(ways={"hasty": client(BUSY, early)}, lengths=(0.3, 0.3))
    delays = measured.ways["hasty"]
    assert delays.flown == []
    assert delays.early == 2 + latency.WARM_UP
    assert look(BUSY)[0] == 0


@pytest.mark.parametrize(
    ("flight", "why"),
    [
        ("epics.get_pv({pv!r}).put(1); time.sleep(0.1); sys.exit('it has had enough')", "it has had enough"),
        ("epics.get_pv({pv!r}).put(1); time.sleep(1000)", "did not answer in time"),
        ("epics.get_pv({pv!r}).put(1); time.sleep(0.1); print('what?', flush=True)", "no answer: what?"),
        ("epics.get_pv({pv!r}).put(1); time.sleep(0.1); print('[]', flush=True)", "no answer: []"),
    ],
    ids=["dies", "hangs", "babbles", "errs"],
)
def test_where_a_program_fails_in_flight_the_record_is_done(
    flight: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "LAND_TIMEOUT", 2.0)
    measured = measure(OWN, {"bad": client(OWN, flight)}, controller=Site(), timeout=1.0)
    assert why in measured.ways["bad"].failure
    assert measured.ways["bad"].flown == []
    assert any("bad was given up" in remark for remark in latency.remarks(measured))
    assert look(OWN)[0] == 0


def test_where_a_program_fails_the_others_go_on() -> None:
    bad = [sys.executable, "-c", "import sys; sys.exit('not today')"]
    measured = measure(ways={"bad": bad} | latency.programs(["direct"], BUSY, TIMEOUT), blocks=2)
    assert measured.ways["bad"].failure == "not today"
    assert len(measured.ways[DIRECT].flown) == 2


def test_a_flight_of_somebody_else_is_not_ended_by_us() -> None:
    """What is Busy after all of ours are over is another's."""

    flown: list[None] = []

    class OursOnly(SelfClear):
        def _news(self, **news: Any) -> None:
            if len(flown) < ours:
                super()._news(**news)

    def flew() -> None:
        flown.append(None)
        if len(flown) == ours:
            epics.caput(OWN, 1, wait=False)
            assert look(OWN)[0] == 1

    ours = 2 + latency.WARM_UP
    try:
        measure(OWN, controller=OursOnly(OWN), flew=flew)
        assert look(OWN)[0] == 1
    finally:
        epics.caput(OWN, 0)


@pytest.mark.parametrize(
    ("pv", "words"),
    [
        (f"{PREFIX}npts", ("npts", "no busy record", "binary")),
        (f"{PREFIX}fault", ("fault", "no busy record")),
        (f"{PREFIX}nowhere", ("nowhere", "did not connect", "EPICS_CA_ADDR_LIST")),
    ],
)
def test_what_cannot_be_flown_is_refused(pv: str, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "CONNECT_TIMEOUT", 5.0 if "nowhere" not in pv else 0.5)
    with pytest.raises(LatencyError) as failure:
        BusyPV(pv)
    for word in words:
        assert word in str(failure.value)


def test_a_record_that_is_busy_is_refused() -> None:
    epics.caput(OWN, 1)
    try:
        with pytest.raises(LatencyError, match=r"own is Busy: somebody flies"):
            BusyPV(OWN)
        assert look(OWN)[0] == 1
    finally:
        epics.caput(OWN, 0, wait=True)


def test_stamps_that_stand_still_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "LAND_TIMEOUT", 0.5)
    tse = epics.get_pv(f"{OWN}.TSE", connect=True, timeout=10)
    epics.caput(f"{OWN}.TSE", -2, wait=True)
    try:
        with pytest.raises(LatencyError, match=r"own bears the same time stamp .* TSE"):
            measure(OWN, controller=SelfClear(OWN))
    finally:
        tse.put(0, wait=True)
    assert look(OWN)[0] == 0


def test_stamps_that_are_not_of_done_are_told() -> None:
    """They move from flight to flight, so each seems to be one."""
    pv = f"{PREFIX}borrows"
    epics.caput(pv, 0, wait=True)
    measured = measure(pv, controller=SelfClear(pv))
    assert measured.told == measured.same > 0
    (said,) = (remark for remark in latency.remarks(measured) if "mean nothing" in remark)
    assert "Busy and Done of each flight bear the same stamp" in said
    assert f"TSE and TSEL of {pv}" in said
    assert not any("IOC's clock less ours" in remark for remark in latency.remarks(measured))


def test_the_command_tells_of_such_stamps_and_fails(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pv = f"{PREFIX}borrows"
    epics.caput(pv, 0, wait=True)
    plot = str(tmp_path / "it.png")
    command = ["latency", pv, "--yes", "--flights=2", "--ways", "direct", "--self-clear", "--plot", plot]
    assert main(command) == 1
    assert "The delays mean nothing" in capsys.readouterr().out


def test_stamps_that_contradict_each_other_are_told() -> None:
    """Of Busy by another clock than of Done."""
    flight = (
        "put = time.time(); "
        + WAIT
        + "stamp = epics.get_pv({pv!r}).get_with_metadata(form='time', use_monitor=False)['timestamp']; "
        "print(json.dumps(dict(known=time.time(), put=put, busy=time.time(), busy_stamp=stamp - 10)), flush=True)"
    )
    measured = measure(ways={"there": client(BUSY, flight)})
    assert measured.told > measured.same == 0
    (said,) = (remark for remark in latency.remarks(measured) if "mean nothing" in remark)
    assert "contradict each other" in said


def test_coarse_stamps_are_told_and_clocks_that_drift_are_no_contradiction() -> None:
    coarse = Measurement(BUSY, {}, clock=(-1e-3, 1e-3), told=9, same=2)
    assert coarse.doubt == ""
    assert any("of 2 of 9 flights Busy and Done bear the same one" in remark for remark in latency.remarks(coarse))
    drifting = Measurement(BUSY, {}, clock=(2.0005, 2.0), told=9)
    assert drifting.doubt == ""
    assert drifting.offset == pytest.approx(2.00025)
    assert any("corrected" in remark for remark in latency.remarks(drifting))


@pytest.mark.parametrize("way", ["", "directly", "poll", "poll-0", "poll--1", "poll-x", "cache-inf", "cache-nan"])
def test_names_that_are_none(way: str) -> None:
    with pytest.raises(ValueError, match=r"is no way of waiting"):
        name_in_words(way)
    with pytest.raises(ValueError, match=r"is no way of waiting"):
        make_way(way, BUSY, TIMEOUT)


def test_table_and_picture(tmp_path: Path) -> None:
    samples = [Flown(0.01, 1e-3 * number, 2e-3 * number) for number in range(1, 101)]
    measured = Measurement(BUSY, {"one": Delays("x", samples, early=3), "none": Delays(failure="no such thing")})
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(latency.table(measured))
    (row,) = [line.split() for line in console.export_text().splitlines() if line.strip().startswith("one")]
    assert row == ["one", "100", "50.00", "90.00", "99.00", "100.00", "101.00", "3"]
    assert "none was given up: no such thing" in latency.remarks(measured)
    latency.draw(measured, tmp_path / "it.png")
    assert imread(tmp_path / "it.png").shape[0] > 400
    assert json.loads(json.dumps(measured.to_dict()))["ways"]["one"]["flown"][0]["delay"] == 1e-3


def test_who_serves_it_is_told(ioc: EmbeddedIOC) -> None:
    assert BusyPV(BUSY).host.endswith(f":{ioc.port}")
