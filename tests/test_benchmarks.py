"""The benchmarks in short: that they run and count; the figures are theirs, not of a test."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EPICS_")}
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
    )


def test_soak() -> None:
    """No flight hangs, ends early or twice, and nothing grows, by either path of the events."""
    done = benchmark("soak", "--flights", "300", "--random", "30")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    for line in lines:
        assert line.startswith("ok ")
        assert "0 hangs, 0 failures, 0 early finishes, 0 duplicate finishes, 0 missing finishes, 0 wrong pages" in line


@pytest.mark.slow
def test_smoke() -> None:
    done = benchmark("smoke", "--flights", "10")
    assert done.returncode in (0, 1), done.stderr
    ways = ["BusyFlyer, events='direct'", "BusyFlyer, events='ophyd'", "ophyd subscribe"]
    if shutil.which("cc") or shutil.which("gcc"):
        ways.append("C client")
    for way in ways:
        assert any(line.startswith(way) and line.split()[-5] == "10" for line in done.stdout.splitlines()), done.stdout
    assert "p50 of direct / ophyd subscribe" in done.stdout


def test_kickoff() -> None:
    done = benchmark("kickoff", "--kickoffs", "5")
    assert done.returncode in (0, 1), done.stderr
    for row in (
        "kickoff(), IOC live",
        "EpicsSignal.put, IOC live",
        "kickoff(), IOC frozen",
        "EpicsSignal.put, IOC frozen",
    ):
        assert f"{row} " in done.stdout
    assert done.stdout.count("at most 3") == 4


def test_collect(tmp_path: Path) -> None:
    plot = tmp_path / "collect.png"
    done = benchmark("collect", "--quick", "--plot", str(plot))
    assert done.returncode in (0, 1), done.stderr
    for limit in ("256 points", "10000 points", "tutorial / BusyFlyer", "BusyFlyer's memory"):
        assert any(line.startswith(("ok ", "MISS")) and limit in line for line in done.stdout.splitlines()), done.stdout
    assert re.search(r"BusyFlyer asks the IOC [4-6] times in flight, 0 times in collect", done.stdout), done.stdout
    assert plot.stat().st_size > 0
