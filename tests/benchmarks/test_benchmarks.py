"""The benchmarks in short: that they run and count; the figures are theirs, not of a test."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from benchmarks import report, results, tables

ROOT = Path(__file__).resolve().parents[2]


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    return python("-m", "benchmarks", *arguments)


def python(*arguments: str, timeout: float = 110) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EPICS_")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_soak() -> None:
    """No flight hangs, ends early or twice, and nothing grows, by either path of the events."""
    done = benchmark("soak", "--flights", "300", "--random", "30")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    for line in lines:
        assert line.startswith("ok ")
        assert (
            "0 hangs, 0 failures, 0 early finishes, 0 duplicate finishes, 0 missing finishes, 0 stale, 0 wrong pages"
            in line
        )


@pytest.mark.timeout(250)
@pytest.mark.parametrize(
    ("scenario", "shorter", "lines"),
    [
        (
            "latency",
            "QUIET = ['direct', 'pyepics', 'floor', 'poll-1', 'caproto']; "
            "scenario.LOADED = ['direct']; scenario.QUICK_FLIGHTS = 2; "
            "scenario.QUICK_CONDITIONS = (*CONDITIONS,)",
            [
                "from Done to the client: quiet",
                "BusyFlyer, direct ",
                "pyepics callback ",
                "Python floor ",
                "caproto ",
                "polling 1 ms ",
                "from Done to the client: monitor storm",
                "from Done to the client: 8 MB arrays",
                "from Done to the client: a thread holds the GIL",
                "from Done to the client: a pyepics callback sleeps",
                "start: from kickoff() to the IOC's stamp of Busy",
                "direct starts later than pyepics callback: by",
                "IOC's clock less the clients': between",
                "p50 of direct, monitor storm, less quiet: ",
                "p90 of direct, monitor storm, less quiet: ",
                "p90 of direct, 8 MB arrays / quiet: ",
                "p90 of direct, a pyepics callback sleeps / quiet: ",
            ],
        ),
        (
            "scale",
            "QUICK_POINTS = [(scenario.DIRECT, 0), (scenario.DIRECT, 1), (scenario.DIRECT, 20), (scenario.OPHYD, 2),"
            " (scenario.FAST_POLLS, 1)]; scenario.QUICK_WAITING = 1.0",
            ["BusyFlyer, direct                 20          +6 ", "threads that 20 direct flyers add: 6.00"],
        ),
        ("turnaround", "QUICK_FLIGHTS = 3", ["a run of one flight of no length, 256 points", "without EPICS  "]),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isalpha() else "",
)
def test_scenario(scenario: str, shorter: str, lines: list[str], tmp_path: Path) -> None:
    """It runs, shows what it is to show, and can be shown again from its file."""
    file = tmp_path / "it.json"
    code = (
        f"import json, benchmarks.{scenario} as scenario; from benchmarks.conditions import CONDITIONS; "
        f"scenario.{shorter}; found = scenario.measure(True); "
        f"json.dump(found, open({str(file)!r}, 'w')); scenario.show(json.load(open({str(file)!r})))"
    )
    done = python("-c", code, timeout=240)
    assert done.returncode == 0, done.stderr
    for line in lines:
        assert line in done.stdout
    assert "was given up" not in done.stdout
    report.render({"made": results.made("it", True, 1.0), scenario: results.load(file)}, tmp_path)


def test_imports() -> None:
    done = benchmark("imports", "--quick")
    assert "p50 of the ratios of both" in done.stdout
    assert done.returncode in (0, 1)  # of two imports


def test_consumers() -> None:
    """The RunEngine waits for the frozen server as the record becomes Done, and for nothing where there is none."""
    done = benchmark("consumers", "--quick")
    assert done.returncode in (0, 1), done.stderr
    told = dict(re.findall(r"(.*): the RunEngine waited for it at the end of (\d) of 5 flights", done.stdout))
    counts = {way.strip(): int(count) for way, count in told.items()}
    assert counts["no consumer"] == 0 < counts["Tiled, frozen"]


def test_kickoff() -> None:
    done = benchmark("kickoff", "--quick")
    assert done.returncode in (0, 1), done.stderr
    for row in (
        "kickoff(), IOC live",
        "EpicsSignal.put, IOC live",
        "kickoff(), IOC frozen",
        "EpicsSignal.put, IOC frozen",
    ):
        assert f"{row} " in done.stdout
    assert done.stdout.count("at most 4") == 4


def test_path() -> None:
    """Direct and the floor in pairs, with an interval, and the IOC named."""
    done = benchmark("path", "--quick")
    assert done.returncode in (0, 1), done.stderr
    assert "in pairs, at embedded IOC (epicscorelibs " in done.stdout
    assert re.search(r"Python floor +10 ", done.stdout), done.stdout
    for percent, limit in ((50, 1.15), (90, 1.3)):
        ratio = rf"p{percent} of direct / Python floor, in pairs: [\d.]+ \([\d.]+ to [\d.]+\), at most {limit}"
        assert re.search(ratio, done.stdout), done.stdout


@pytest.mark.slow
def test_restarts() -> None:
    done = benchmark("restarts", "--n", "2")
    assert done.returncode in (0, 1), done.stderr
    assert re.search(r"flyer: \d+ threads before, \d+ after 2 restarts; [\d.]+, [\d.]+ MB; ", done.stdout), done.stdout
    assert re.search(r"pyepics, \d+ PVs: \d+ threads before", done.stdout), done.stdout
    for what in ("kB a restart", "threads gained"):
        assert f"{what}, flyer less pyepics: " in done.stdout


def test_collect() -> None:
    done = benchmark("collect", "--quick")
    assert done.returncode in (0, 1), done.stderr
    for limit in ("256 points", "10000 points", "tutorial / BusyFlyer", "BusyFlyer's memory"):
        assert any(line.startswith(("ok ", "MISS")) and limit in line for line in done.stdout.splitlines()), done.stdout
    assert re.search(r"BusyFlyer asks the IOC [7-9] times in flight, 0 times in collect", done.stdout), done.stdout


# What was measured, and what is said of it

MEASURED = ROOT / "benchmarks" / "results.json"


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    return results.load(MEASURED)


@pytest.mark.parametrize("readme", ["README.md", "benchmarks/README.md"])
def test_what_the_readmes_say_is_what_was_measured(readme: str, measured: dict[str, Any]) -> None:
    """`python -m benchmarks.tables benchmarks/results.json README.md benchmarks/README.md` writes it."""
    text = (ROOT / readme).read_text()
    assert "<!-- table: " in text
    assert tables.fill(text, measured) == text


def test_what_was_measured_was_measured_in_full(measured: dict[str, Any]) -> None:
    assert MEASURED.stat().st_size < 2_000_000
    assert measured["made"]["command"] == "python -m benchmarks"
    assert measured["made"]["quick"] is False
    assert {"latency", "scale", "turnaround", "collect", "kickoff"} <= measured.keys()
    quiet = results.delays_us(measured)["quiet"]
    for way in ("BusyFlyer, direct", "polling 50 ms", "aioca", "ophyd-async", "caproto", "C client"):
        assert len(quiet[way]) == 500
    assert not re.search(r'"/|localhost|\.local', MEASURED.read_text())


def test_tables_are_filled_in_their_place(measured: dict[str, Any]) -> None:
    text = "before\n<!-- table: brief -->\nold\n<!-- end -->\nafter"
    filled = tables.fill(text, measured)
    assert filled.startswith("before\n<!-- table: brief -->\n| from the IOC")
    assert filled.endswith(" |\n<!-- end -->\nafter")
    assert "old" not in filled


# The report, from figures that were made up


def made_up(**conditions: dict[str, list[float]]) -> dict[str, Any]:
    """Delays in microseconds, by condition and way."""
    told = {
        name: {way: {"client": "it", "early": 0, "delay_us": delays, "next_us": delays} for way, delays in ways.items()}
        for name, ways in conditions.items()
    }
    return {"made": results.made("it", False, 60.0), "latency": {"conditions": told, "clock_us": [-10.0, 20.0]}}


DIRECT, POLLING = "BusyFlyer, direct", "polling 50 ms"


def test_percentiles_are_samples() -> None:
    assert results.percentiles([*range(1, 101)], 50, 99, 100) == [50, 99, 100]


def test_a_ratio_and_its_interval() -> None:
    ratio, low, high = results.ratio_with_interval([20.0, 21.0, 22.0] * 30, [10.0, 10.5, 11.0] * 30, 50)
    assert ratio == 2
    assert 1.8 < low <= 2 <= high < 2.3
    assert math.isnan(results.ratio_with_interval([1.0], [2.0], 50)[1])


def test_a_ratio_of_pairs_of_blocks() -> None:
    """A minute that is bad for both does not widen the interval; a pair alone has none."""
    floor = [[10.0, 11.0, 12.0] * 3, [100.0, 110.0, 120.0] * 3, [10.0, 11.0, 12.0] * 3]
    direct = [[2 * delay for delay in block] for block in floor]
    assert results.paired_ratio(direct, floor, 90) == (2, 2, 2)
    assert math.isnan(results.paired_ratio(direct[:1], floor[:1], 50)[1])


def test_targets_of_pairs_and_of_load() -> None:
    found = made_up(
        **{
            "quiet": {DIRECT: [500.0] * 9},
            "monitor storm": {DIRECT: [11_000.0] * 9, "pyepics callback": [100_000.0] * 9},
            "8 MB arrays": {DIRECT: [900.0] * 9},
            "a pyepics callback sleeps": {DIRECT: [1_100.0] * 9},
        }
    )
    ways = {DIRECT: {"blocks_us": [[112.0], [112.0]]}, "Python floor": {"blocks_us": [[100.0], [100.0]]}}
    kept = {target.name: target.kept for target in results.targets(found | {"path": {"ways": ways}})}
    assert kept["p50 of direct / Python floor, in pairs"]
    assert kept["p90 of direct / Python floor, in pairs"]
    assert not kept["p50 of direct, monitor storm, less quiet"]
    assert kept["p90 of direct, monitor storm, less quiet"]
    assert kept["monitor storm: p50 of pyepics callback / direct"]
    assert kept["p90 of direct, 8 MB arrays / quiet"]
    assert not kept["p90 of direct, a pyepics callback sleeps / quiet"]


def test_tables_of_pairs_and_of_starts() -> None:
    found = made_up(quiet={DIRECT: [500.0] * 9})
    found["latency"]["conditions"]["quiet"][DIRECT]["start_us"] = [400.0, 600.0]
    found["path"] = {
        "ioc": "some IOC",
        "ways": {DIRECT: {"blocks_us": [[120.0], [120.0]]}, "Python floor": {"blocks_us": [[100.0], [100.0]]}},
    }
    assert "| BusyFlyer, direct | 0.400 · 0.600 |" in tables.start(found)
    assert "| some IOC | flights | p50, ms | p90, ms |" in tables.path(found)
    assert "| ratio (95 %) |  | 1.20 (1.20 to 1.20) | 1.20 (1.20 to 1.20) |" in tables.path(found)


def test_targets_are_missed_and_kept() -> None:
    good = made_up(quiet={DIRECT: [300.0] * 9, POLLING: [30_000.0] * 9, "C client": [250.0] * 9})
    bad = made_up(quiet={DIRECT: [700.0] * 9, POLLING: [30_000.0] * 9, "C client": [250.0] * 9})
    assert {target.kept for target in results.targets(good)} == {True}
    missed = [target.name for target in results.targets(bad) if not target.kept]
    assert missed == [
        "quiet: p50 of direct / C client",
        "quiet: p50 of polling 50 ms / direct",
        "quiet: p99 of polling 50 ms / direct",
    ]
    assert str(results.targets(bad)[0]) == "MISS quiet: p50 of direct / C client: 2.80, at most 1.5"


def test_two_runs_are_compared() -> None:
    old = made_up(quiet={DIRECT: [100.0, 101.0, 102.0] * 9, "aioca": [1.0] * 9})
    new = made_up(quiet={DIRECT: [200.0, 202.0, 204.0] * 9, POLLING: [1.0] * 9})
    new["made"] |= {"quick": True}
    text = results.compare(old, new)
    assert re.search(r"latency, quiet: BusyFlyer, direct +2\.00 \* 1\.9\d to 2\.0\d +2\.00", text)
    assert "caution: quick differs: True, and was False" in text
    assert "only in new: latency, quiet: polling 50 ms" in text
    assert "only in old: latency, quiet: aioca" in text


def test_the_report_needs_nothing_else(tmp_path: Path) -> None:
    found = made_up(
        quiet={DIRECT: [300.0, 400.0], POLLING: [30_000.0, 40_000.0], "<b>odd</b>": [1.0, 2.0]},
        **{"slow subscriber": {DIRECT: [300.0, 400.0]}},
    )
    found["latency"]["conditions"]["slow subscriber"]["aioca"] = {
        "client": "it",
        "early": 2,
        "delay_us": [],
        "failure": "it had <i>enough</i>",
    }
    page = report.render(found, tmp_path).read_text()
    assert not re.search(r"""(src|srcset|href)=["']?(?!data:|#|https://blueskyproject\.io)[^"' >]""", page)
    assert "&lt;b&gt;odd&lt;/b&gt;" in page
    assert "it had &lt;i&gt;enough&lt;/i&gt;" in page
    assert "slow subscriber" in page
    (picture,) = report.pictures(found, tmp_path)
    assert imread(picture).shape[:2] == (810, 1440)


def test_the_report_of_what_was_measured(measured: dict[str, Any], tmp_path: Path) -> None:
    page = report.render(measured, tmp_path).read_text()
    for section in ("quiet", "conditions", "scale", "together", "turnaround", "collect", "kickoff"):
        assert f'id="{section}"' in page


def test_compare_from_the_command_line(tmp_path: Path) -> None:
    """Of a run that was saved, without another."""
    done = benchmark("--from", str(MEASURED), "--compare", str(MEASURED), "--out", str(tmp_path))
    assert done.returncode in (0, 1), done.stderr
    assert re.search(r"latency, quiet: BusyFlyer, direct +1\.00", done.stdout)
    assert "quiet: p50 of direct / C client" in done.stdout
    assert {"report.html", "results.json", "latency.png"} <= {path.name for path in tmp_path.iterdir()}
