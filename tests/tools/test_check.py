"""What is said of PVs and flyers: of such as fly, and of each way not to."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest
from ophyd import Component, Device, EpicsSignal, EpicsSignalRO, Signal

from busy_callback_flyer import BusyFlyer, BusyRecord, TaxiFlyer, Waveform, make_flyer
from busy_callback_flyer.tools.check import Finding, Mark, Report, check
from busy_callback_flyer.tools.cli import main

# isort: split
import epics

from ..conftest import PREFIX, look

OWN = f"{PREFIX}own"
"""Nobody acts on it."""
ARRAYS = {"x": f"{PREFIX}x_array", "y": f"{PREFIX}y_array"}


def flyer_of(busy: str = f"{PREFIX}mybusy", arrays: dict[str, Any] = ARRAYS, **options: Any) -> BusyFlyer:
    return make_flyer("ifly", busy=busy, arrays=arrays, **{"flight_timeout": 20.0, **options})


def bad(report: Report) -> list[tuple[str, Mark]]:
    return [(found.subject, found.mark) for found in report.findings if found.mark in (Mark.warning, Mark.failure)]


def of(report: Report, subject: str, mark: Mark, words: str = "") -> Finding:
    (finding,) = (
        found for found in report.findings if (found.subject, found.mark) == (subject, mark) and words in found.says
    )
    return finding


@contextmanager
def field_set(pv: str, value: Any) -> Iterator[None]:
    before = epics.caget(pv)
    assert epics.caput(pv, value, wait=True, timeout=10) == 1
    try:
        yield
    finally:
        assert epics.caput(pv, before, wait=True, timeout=10) == 1


@pytest.fixture(autouse=True)
def _flown_before(direct_flyer: BusyFlyer, controller: Callable[..., None]) -> None:
    """The arrays hold something, and the record was processed."""
    direct_flyer.kickoff().wait(timeout=20)


def test_columns_anywhere_in_the_tree_are_looked_at_but_those_that_are_omitted() -> None:
    class Detector(Device):
        x = Component(Waveform, "x_array")
        gone = Component(Waveform, "absent", lazy=True, kind="omitted")

    class Nested(BusyFlyer):
        detector = Component(Detector, "")
        yArr = None  # noqa: N815

    flyer = Nested(PREFIX, name="ifly", flight_timeout=20.0)
    report = check(flyer, fly=True)
    assert report.ok, str(report)
    said = [found.says for found in report.findings if found.subject == f"{PREFIX}x_array"]
    assert [words.split(":")[0] for words in said] == ["xArr", "detector.x"]
    assert of(report, "describe_collect", Mark.ok).says == "ifly_detector_x, ifly_tArr, ifly_xArr"
    assert f"{PREFIX}absent" not in str(report)


def test_of_a_flyer_that_flies_nothing_bad_is_said_and_nothing_is_written(direct_flyer: BusyFlyer) -> None:
    before = look(f"{PREFIX}mybusy")
    direct_flyer.flight_timeout = 20.0
    told: list[Finding] = []
    report = check(direct_flyer, found=told.append)
    assert report.ok
    assert bad(report) == []
    assert told == report.findings
    assert look(f"{PREFIX}mybusy") == before
    text = str(report)
    for pv in ("mybusy", "t_array", "x_array", "y_array"):
        assert f"{PREFIX}{pv}: " in text
    assert "'Done' and 'Busy'" in text
    assert "11 of 256 doubles" in text
    assert "--fly" in report.summary


def test_each_verb_of_a_flight_is_told(direct_flyer: BusyFlyer, controller: Callable[..., None]) -> None:
    controller(npts=11, duration=0.2)
    report = check(direct_flyer, fly=True)
    assert bad(report) == [("flight_timeout", Mark.warning)]
    assert direct_flyer.flight_timeout is None
    subjects = [found.subject for found in report.findings]
    told = ["describe_collect", "kickoff", "complete", "latency", "clocks", "put-callback", "collect", "flight"]
    assert subjects[-len(told) :] == told
    assert "11 rows in 1 page" in of(report, "collect", Mark.ok).says
    assert report.summary == "It flies, with 1 warning."
    assert look(f"{PREFIX}mybusy")[0] == 0


@pytest.mark.parametrize(
    ("how", "subject", "words"),
    [
        ({"arrays": {"x": f"{PREFIX}nowhere"}}, f"{PREFIX}nowhere", ("not connected", "is the name right")),
        ({"arrays": {"xArr": f"{PREFIX}nowhere"}}, f"{PREFIX}nowhere", ("not connected", "xArr = None")),
        ({"arrays": {"x": f"{PREFIX}strings"}}, f"{PREFIX}strings", ("strings", "CHAR")),
        ({"busy": f"{PREFIX}npts"}, f"{PREFIX}npts", ("no busy record",)),
        ({"busy": f"{PREFIX}fault"}, f"{PREFIX}fault", ("no busy record", "states")),
        pytest.param(
            {"busy": f"{PREFIX}nowhere"},
            f"{PREFIX}nowhere",
            ("not connected", "EPICS_CA_ADDR_LIST"),
            marks=pytest.mark.slow,
        ),
        (
            {"busy": "no:busy", "arrays": {"x": "no:array"}},
            "no:busy, no:array",
            ("none of them", "EPICS_CA_ADDR_LIST"),
        ),
    ],
    ids=[
        "a missing array",
        "a missing array of the base",
        "strings",
        "a number",
        "many states",
        "a busy that is missing",
        "nothing at all",
    ],
)
def test_what_does_not_fly(how: dict[str, Any], subject: str, words: tuple[str, ...]) -> None:
    report = check(flyer_of(**how), fly=True, timeout=1.0)
    assert not report.ok
    finding = of(report, subject, Mark.failure)
    for word in words:
        assert word in str(finding)
    assert finding.advice
    assert "none was flown" in of(report, "flight", Mark.failure).says
    assert report.summary.startswith("It does not fly: 2 things to mend")


@pytest.mark.parametrize(
    ("field", "value", "mark", "words"),
    [
        ("DISP", 1, Mark.failure, "puts are disabled"),
        ("HIGH", 2.0, Mark.warning, "Done by itself after 2 s"),
        ("OMSL", 1, Mark.warning, "comes from DOL"),
        ("TSE", -2, Mark.warning, "stand still"),
        ("DISA", 1, Mark.failure, "disabled (DISA = DISV = 1)"),
        ("SDIS", f"{PREFIX}gate NPP NMS", Mark.failure, "disabled (DISA = DISV = 1)"),
        ("SCAN", "10 second", Mark.warning, "SCAN is '10 second'"),
        ("SCAN", "Event", Mark.warning, "SCAN is 'Event'"),
        ("SIMM", 1, Mark.warning, "simulated (SIMM)"),
        ("SIML", f"{PREFIX}gate NPP NMS", Mark.warning, "simulated (SIMM)"),
        ("IVOA", 1, Mark.note, "OUT is not written (IVOA)"),
        ("IVOA", 2, Mark.note, "what IVOV says (IVOA)"),
        ("OSV", "INVALID", Mark.warning, "in INVALID alarm when it is Busy (OSV)"),
        ("ZSV", "INVALID", Mark.warning, "in INVALID alarm when it is Done (ZSV)"),
        ("COSV", "INVALID", Mark.warning, "in INVALID alarm whenever it changes (COSV)"),
    ],
)
def test_what_a_busy_record_may_be_set_to(field: str, value: float | str, mark: Mark, words: str) -> None:
    epics.caput(OWN, 0, wait=True)
    with field_set(f"{OWN}.{field}", value):
        report = check(flyer_of(OWN))
    said = [found for found in report.findings if (found.subject, found.mark) == (OWN, mark) and words in found.says]
    assert len(said) == 1
    assert said[0].advice or mark is Mark.note
    assert report.ok == (mark is not Mark.failure)
    assert not any(words in str(found) for found in check(flyer_of(OWN)).findings)


def test_what_is_not_driven_in_invalid_alarm() -> None:
    with field_set(f"{OWN}.IVOA", 1), field_set(f"{OWN}.OSV", "INVALID"):
        said = of(check(flyer_of(OWN)), OWN, Mark.warning).says
    assert said == "it is in INVALID alarm when it is Busy (OSV), and OUT is not written then (IVOA)"


def test_what_a_link_says_counts_and_not_what_the_record_had_before() -> None:
    """DISA comes from SDIS when the record is processed, and SIMM from SIML."""
    with field_set(f"{PREFIX}gate", 0), field_set(f"{OWN}.SDIS", f"{PREFIX}gate"), field_set(f"{OWN}.DISA", 1):
        assert bad(check(flyer_of(OWN))) == []
    with field_set(f"{OWN}.SDIS", f"{PREFIX}gate"):
        assert f"{PREFIX}gate, from which DISA comes (SDIS)" in of(check(flyer_of(OWN)), OWN, Mark.failure).advice


@pytest.mark.parametrize(
    ("busy", "slow"),
    [("slow_link", "slow_seq, a seq record"), ("delayed_link", "delayed, a calcout record"), ("quick_link", None)],
)
def test_a_forward_link_to_what_takes_its_time(busy: str, slow: str | None) -> None:
    notes = [found for found in check(flyer_of(PREFIX + busy)).findings if "FLNK leads to" in found.says]
    assert [found.mark for found in notes] == [Mark.note] * (slow is not None)
    assert [f"FLNK leads to {PREFIX}{slow}," in found.says for found in notes] == [True] * len(notes)


@pytest.mark.parametrize("busy", ["slow_link", "delayed_link"])
def test_a_flight_shows_that_its_put_callback_is_late(busy: str) -> None:
    flyer = flyer_of(PREFIX + busy, arrays={})

    def end_it(**_: Any) -> None:
        epics.caput(PREFIX + busy, 0)

    flyer.subscribe(end_it, flyer.SUB_FLIGHT_BUSY)
    report = check(flyer, fly=True)
    assert of(report, "flight", Mark.ok)
    said = of(report, "put-callback", Mark.note)
    assert "it came later than Done" in said.says
    assert "FLNK" in said.advice


@pytest.mark.parametrize("when_busy", ["reset", "wait", "fail"])
@pytest.mark.parametrize("value", [2, 3])
def test_a_record_that_says_neither(value: int, when_busy: str) -> None:
    epics.caput(OWN, value)
    assert look(OWN)[0] == value
    try:
        report = check(flyer_of(OWN, when_busy=when_busy))
    finally:
        epics.caput(OWN, 0, wait=True)
    assert report.ok == (when_busy != "fail")
    finding = of(report, OWN, Mark.failure if when_busy == "fail" else Mark.warning)
    assert finding.says.startswith(f"{value}, neither Busy nor Done now, since ")
    assert f"when_busy='{when_busy}'" in finding.advice
    assert not any("Done now" in found.says and "neither" not in found.says for found in report.findings)


def test_since_when_is_a_date() -> None:
    said = of(check(flyer_of()), f"{PREFIX}mybusy", Mark.ok, "now").says
    when = datetime.fromisoformat(said.removeprefix("Done now, since "))
    assert when.timestamp() == pytest.approx(look(f"{PREFIX}mybusy")[1], abs=1e-5)


@pytest.mark.parametrize("name", ["flag", "flag_of_short", "flag_of_char"])
def test_an_integer_that_is_0_or_1_is_a_flag(name: str) -> None:
    class Flagged(BusyFlyer):
        busy = Component(EpicsSignal, name, kind="config")

    pv = f"{PREFIX}{name}"
    epics.caput(pv, 0, wait=True)
    flyer = Flagged(PREFIX, name="ifly", flight_timeout=20.0)
    report = check(flyer)
    assert report.ok
    assert bad(report) == []
    assert of(report, pv, Mark.note, "flag").says.startswith("an integer flag of a ")
    assert of(report, pv, Mark.ok, "now").says.startswith("Done now")
    epics.caput(pv, 1, wait=True)
    assert of(check(flyer), pv, Mark.warning, "now").says.startswith("Busy now")
    epics.caput(pv, 0, wait=True)


@pytest.mark.parametrize(
    ("name", "what"),
    [("duration", "it is a double"), ("npts", "it says 11"), ("flags", "it holds 2 elements"), ("message", "string")],
)
def test_what_is_neither_a_binary_nor_a_flag(name: str, what: str) -> None:
    said = of(check(flyer_of(f"{PREFIX}{name}")), f"{PREFIX}{name}", Mark.failure).says
    assert said.startswith("no busy record: ")
    assert what in said


def test_a_record_that_is_read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """By access security, which the embedded IOC has none of."""
    monkeypatch.setattr(type(epics.get_pv(OWN)), "write_access", property(lambda pv: False))
    assert "access security" in of(check(flyer_of(OWN)), OWN, Mark.failure, "read-only").advice


class Bare(Waveform):
    """Of a PV that has no such fields."""

    number_elements = number_read = None  # type: ignore[assignment]


def test_arrays_without_nelm_and_nord_are_no_failure() -> None:
    class Fields(BusyFlyer):
        tArr = xArr = yArr = None  # noqa: N815
        value = Component(Bare, "x_array.VAL")
        compressed = Component(Bare, "compressed")
        some = Component(Bare, "own.VAL")

    epics.caput(OWN, 0, wait=True)
    report = check(Fields(PREFIX, name="ifly", flight_timeout=20, time_array=None))
    assert of(report, f"{PREFIX}x_array.VAL", Mark.ok).says == "value: 11 of 256 doubles"
    assert of(report, f"{PREFIX}compressed", Mark.ok).says == "compressed: an array of up to 16 doubles"
    assert bad(report) == [(f"{PREFIX}own.VAL", Mark.failure)], "an enum is none"


def test_an_array_whose_stamps_may_stand_still() -> None:
    with field_set(f"{PREFIX}x_array.TSE", -2):
        finding = of(check(flyer_of()), f"{PREFIX}x_array", Mark.warning)
        assert "TSE is -2" in finding.says
        assert "fresh=False" in finding.advice
        ageless = {"x": {"pv": f"{PREFIX}x_array", "fresh": False}}
        assert bad(check(flyer_of(arrays=ageless))) == []


def test_where_the_busy_record_is_missing_nothing_is_said_of_who_serves_it() -> None:
    report = check(flyer_of(f"{PREFIX}nowhere"), timeout=1.0)
    assert of(report, f"{PREFIX}x_array", Mark.ok).says == "x: 11 of 256 doubles"
    assert "IOC than" not in str(report)


def test_an_array_of_another_ioc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its age is judged like that of all others."""
    elsewhere = epics.get_pv(f"{PREFIX}x_array", connect=True, timeout=10)
    monkeypatch.setattr(type(elsewhere), "host", property(lambda pv: "there" if pv is elsewhere else "here"))
    report = check(flyer_of())
    finding = of(report, f"{PREFIX}x_array", Mark.note)
    assert finding.says == "x: 11 of 256 doubles, served by another IOC than the busy record, there"
    assert finding.advice == ""


@pytest.mark.parametrize("when_busy", ["reset", "wait", "fail"])
def test_a_record_that_is_busy(when_busy: str) -> None:
    with busy(OWN):
        report = check(flyer_of(OWN, when_busy=when_busy))
    finding = of(report, OWN, Mark.failure if when_busy == "fail" else Mark.warning)
    assert report.ok == (when_busy != "fail")
    assert finding.says.startswith("Busy now, since")
    assert f"when_busy='{when_busy}'" in finding.advice


@contextmanager
def busy(pv: str) -> Iterator[None]:
    epics.caput(pv, 1, wait=False)
    assert look(pv)[0] == 1
    try:
        yield
    finally:
        epics.caput(pv, 0)
        assert look(pv)[0] == 0


def test_a_bo_flies_with_a_warning() -> None:
    report = check(flyer_of(f"{PREFIX}plain"))
    assert report.ok
    assert "a bo record" in of(report, f"{PREFIX}plain", Mark.warning).says


def test_arrays_that_differ_in_length() -> None:
    report = check(flyer_of(arrays={**ARRAYS, "one": f"{PREFIX}single"}))
    finding = of(report, "arrays", Mark.warning)
    assert f"{PREFIX}x_array 11" in finding.says
    assert "truncate" in finding.advice


def test_a_flight_that_nobody_ends_is_landed() -> None:
    flyer = flyer_of(OWN, flight_timeout=0.3)
    report = check(flyer, fly=True)
    finding = of(report, "flight", Mark.failure)
    assert "FlightTimeout" in finding.says
    assert "nobody wrote Done" in finding.advice
    assert not flyer.flying
    assert look(OWN)[0] == 0


def test_a_flight_of_a_bo_shows_that_its_put_callback_lies() -> None:
    epics.caput(f"{PREFIX}plain", 0, wait=True)
    flyer = flyer_of(f"{PREFIX}plain", arrays={})

    def end_it(**_: Any) -> None:
        while "callback" not in flyer.timeline:
            time.sleep(0.001)
        time.sleep(0.2)
        epics.caput(f"{PREFIX}plain", 0)

    flyer.subscribe(end_it, flyer.SUB_FLIGHT_BUSY)
    report = check(flyer, fly=True)
    assert of(report, "flight", Mark.ok)
    assert "s before Done" in of(report, "put-callback", Mark.note).says


def test_a_signal_beside_that_is_missing() -> None:
    class More(BusyFlyer):
        temperature = Component(EpicsSignalRO, "nowhere")

    report = check(More(PREFIX, name="ifly", flight_timeout=20), timeout=1.0)
    assert not report.ok
    assert "temperature is not connected" in of(report, f"{PREFIX}nowhere", Mark.failure).says


def test_both_records_of_a_taxi_flyer() -> None:
    class Wrong(TaxiFlyer):
        taxi = Component(BusyRecord, "npts", kind="config")

    assert check(TaxiFlyer(PREFIX, name="ifly", flight_timeout=20)).ok
    finding = of(check(Wrong(PREFIX, name="ifly", flight_timeout=20)), f"{PREFIX}npts", Mark.failure)
    assert "no busy record" in finding.says


def test_numbers_where_a_text_is_wanted() -> None:
    report = check(flyer_of(arrays={"text": {"pv": f"{PREFIX}x_array", "string": True}}))
    assert "a text is wanted" in of(report, f"{PREFIX}x_array", Mark.failure).says


def test_the_command_ends_nobody_elses_flight(capsys: pytest.CaptureFixture[str]) -> None:
    with busy(OWN):
        assert main(["check", PREFIX, "--busy", "own", "--fly"]) == 1
        assert look(OWN)[0] == 1
    assert "Busy now" in capsys.readouterr().out


def test_signals_that_are_no_pvs() -> None:
    class Soft(BusyFlyer):
        busy = Component(Signal, value=0)
        tArr = xArr = yArr = None  # noqa: N815

    report = check(Soft(name="soft", time_array=None, events="ophyd"))
    assert "not a PV" in of(report, "soft_busy", Mark.failure).says


def test_the_command_says_so_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", PREFIX]) == 0
    said = capsys.readouterr().out
    assert f"ok    {PREFIX}mybusy: a busy record, served by " in said
    assert said.endswith("Nothing is in the way of a flight; --fly tries one.\n")


def test_the_command_flies_and_tells_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", PREFIX, "--fly", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] is True
    assert said["findings"][-1] == {"subject": "flight", "mark": "ok", "says": "it flies", "advice": ""}


def test_the_command_speaks_of_pvs_and_of_no_names_that_nobody_typed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["check", PREFIX, "--arrays", "x_array", "nowhere", "strings", "single", "--timeout", "1"])
    main(["check", PREFIX, "--arrays", "x_array", "y_array", "--fly"])
    said = capsys.readouterr().out
    for pv in ("x_array", "nowhere", "strings", "single", "y_array"):
        assert f"{PREFIX}{pv}" in said
    assert "2 data keys, of prj:x_array, prj:y_array" in said
    for name in ("c1", "c2", "column", "flyer"):
        assert name not in said.replace("BusyFlyer", "")


def test_the_exit_status_tells(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", PREFIX, "--arrays", "x_array", "nowhere", "--timeout", "1"]) == 1
    said = capsys.readouterr().out
    assert f"FAIL  {PREFIX}nowhere: not connected within 1 s\n      -> " in said
    assert "It does not fly: 1 thing to mend" in said
