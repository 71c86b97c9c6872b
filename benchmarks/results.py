"""A run's results as JSON: made, saved, loaded, held against targets and against another run."""

from __future__ import annotations

import json
import math
import os
import platform
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
from scipy.stats import bootstrap

from .stage import percentile

Results = dict[str, Any]

DIRECT = "BusyFlyer, direct"
OPHYD = "BusyFlyer, ophyd events"
POLLING = "polling 50 ms"
FASTEST_POLLING = "polling 1 ms"
FLOOR = "C client"
PYTHON_FLOOR = "Python floor"
PYEPICS = "pyepics callback"
WITHOUT_EPICS = "without EPICS"
QUIET = "quiet"
GIL = "a thread holds the GIL"
SLOW_SUBSCRIBER = "slow subscriber"
SLEEPS = "a pyepics callback sleeps"
STORM = "monitor storm"
ARRAYS = "8 MB arrays"

PACKAGES = (
    "busy_callback_flyer",
    "ophyd",
    "bluesky",
    "pyepics",
    "numpy",
    "epicscorelibs",
    "event-model",
    "aioca",
    "ophyd-async",
    "caproto",
    "ophyd-epicsrs",
)

RESAMPLES = 999
BATCH = 100
"""Resamples at a time, as memory goes by them."""


# A run, as a file


def made(command: str, quick: bool, seconds: float) -> Results:
    """When, how and by what the other results were made."""
    return {
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "quick": quick,
        "seconds": seconds,
        "versions": {"python": platform.python_version(), **dict(_installed())},
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 2**30),
            "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        },
    }


def _installed() -> Iterator[tuple[str, str]]:
    for package in PACKAGES:
        try:
            yield package, metadata.version(package)
        except metadata.PackageNotFoundError:
            continue


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.machine()


def load(path: Path | str) -> Results:
    """What `save` saved."""
    results: Results = json.loads(Path(path).read_text())
    return results


def save(path: Path | str, results: Results) -> None:
    """As compact JSON; times are rounded to 0.1 microseconds."""
    Path(path).write_text(json.dumps(_rounded(results, 7), separators=(",", ":")) + "\n")


def _rounded(value: Any, decimals: int) -> Any:
    if isinstance(value, float):
        return round(value, decimals)
    if isinstance(value, dict):
        return {key: _rounded(item, 1 if str(key).endswith("_us") else decimals) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item, decimals) for item in value]
    return value


# Statistics


def percentiles(samples: Sequence[float], *percents: float) -> list[float]:
    """Of each: the smallest sample that so many percent of them do not exceed."""
    return [percentile(samples, percent) for percent in percents]


def ratio_with_interval(a: Sequence[float], b: Sequence[float], percent: float) -> tuple[float, float, float]:
    """Ratio of a percentile of two independent samples, and the bounds of its 95 % bootstrap interval."""

    def ratio(a: Any, b: Any, axis: int = -1) -> Any:
        above, below = (np.percentile(samples, percent, axis=axis, method="inverted_cdf") for samples in (a, b))
        with np.errstate(divide="ignore", invalid="ignore"):
            return above / below

    value = float(ratio(a, b))
    if min(len(a), len(b)) < 2:
        return value, math.nan, math.nan
    interval = bootstrap(
        (a, b), ratio, n_resamples=RESAMPLES, batch=BATCH, vectorized=True, method="percentile", rng=1
    ).confidence_interval
    return value, float(interval.low), float(interval.high)


def paired_ratio(
    above: Sequence[Sequence[float]], below: Sequence[Sequence[float]], percent: float
) -> tuple[float, float, float]:
    """The same of blocks that were flown in pairs: pairs are drawn again, as a block's flights are not independent."""

    def ratio(pairs: Iterable[int]) -> float:
        pairs = list(pairs)
        a, b = ([delay for pair in pairs for delay in blocks[pair]] for blocks in (above, below))
        return percentile(a, percent) / percentile(b, percent)

    value, count = ratio(range(len(above))), len(above)
    if count < 2:
        return value, math.nan, math.nan
    drawn = np.random.default_rng(1).integers(0, count, (RESAMPLES, count))
    low, high = np.percentile([ratio(pairs) for pairs in drawn], [2.5, 97.5])
    return value, float(low), float(high)


def digits(value: float) -> str:
    """With three significant digits, and never as a power of ten; a count as it is."""
    if isinstance(value, int) or abs(value) >= 999.5:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


def is_peer(way: str) -> bool:
    """Whether it is another Python way than the package's flyers, and not the floor, which nobody can use."""
    return way not in (FLOOR, PYTHON_FLOOR) and not way.startswith("BusyFlyer")


def delays_us(results: Results) -> dict[str, dict[str, list[float]]]:
    """The delays by condition and way; a way that was given up at once has none."""
    conditions = results.get("latency", {}).get("conditions", {})
    return {
        condition: {way: told["delay_us"] for way, told in ways.items() if told["delay_us"]}
        for condition, ways in conditions.items()
    }


def starts_us(results: Results) -> dict[str, dict[str, list[float]]]:
    """From kickoff to the IOC's stamp of Busy, by condition and way, of those that tell."""
    conditions = results.get("latency", {}).get("conditions", {})
    return {
        condition: {way: told["start_us"] for way, told in ways.items() if told.get("start_us")}
        for condition, ways in conditions.items()
    }


# Targets


@dataclass(frozen=True)
class Target:
    """A figure, and what it has to be."""

    name: str
    value: float
    bound: Literal["at least", "more than", "at most", "less than"]
    limit: float
    unit: str = ""
    interval: tuple[float, float] | None = None
    """Of 95 %, where there is one; the figure alone decides."""

    @property
    def kept(self) -> bool:
        """Whether it is what it has to be."""
        if self.bound == "at least":
            return self.value >= self.limit
        if self.bound == "more than":
            return self.value > self.limit
        return self.value <= self.limit if self.bound == "at most" else self.value < self.limit

    def __str__(self) -> str:
        kept = "ok  " if self.kept else "MISS"
        return f"{kept} {self.name}: {self.figure}, {self.bound} {self.limit:g}{self.unit}"

    @property
    def figure(self) -> str:
        """With its unit and its interval."""
        interval = "" if self.interval is None else " ({} to {})".format(*map(digits, self.interval))
        return f"{digits(self.value)}{interval}{self.unit}"


def targets(results: Results) -> list[Target]:
    """All targets of which the results tell."""
    return [
        *_path_targets(results),
        *_latency_targets(results),
        *_scale_targets(results),
        *_turnaround_targets(results),
    ]


def print_targets(results: Results) -> bool:
    """Print each; whether all are kept."""
    found = targets(results)
    for target in found:
        print(target)
    return all(target.kept for target in found)


def _path_targets(results: Results) -> Iterator[Target]:
    blocks = {way: told["blocks_us"] for way, told in results.get("path", {}).get("ways", {}).items()}
    if not all(blocks.get(way) for way in (DIRECT, PYTHON_FLOOR)):
        return
    for percent, limit in ((50, 1.15), (90, 1.3)):
        value, *interval = paired_ratio(blocks[DIRECT], blocks[PYTHON_FLOOR], percent)
        bounds = None if math.isnan(interval[0]) else (interval[0], interval[1])
        yield Target(f"p{percent} of direct / {PYTHON_FLOOR}, in pairs", value, "at most", limit, interval=bounds)


def _latency_targets(results: Results) -> Iterator[Target]:
    delays = delays_us(results)
    quiet = delays.get(QUIET, {})
    if DIRECT not in quiet:
        return
    p50, p99 = percentiles(quiet[DIRECT], 50, 99)
    if FLOOR in quiet:
        yield Target("quiet: p50 of direct / C client", p50 / percentiles(quiet[FLOOR], 50)[0], "at most", 1.5)
    polling: tuple[tuple[str, Literal["at least", "more than"], float], ...] = (
        (POLLING, "at least", 50),
        (FASTEST_POLLING, "more than", 1),
    )
    for way, bound, limit in polling:
        if way in quiet:
            theirs = percentiles(quiet[way], 50, 99)
            yield Target(f"quiet: p50 of {way} / direct", theirs[0] / p50, bound, limit)
            yield Target(f"quiet: p99 of {way} / direct", theirs[1] / p99, bound, limit)
    if DIRECT in (slow := delays.get(SLOW_SUBSCRIBER, {})):
        ratio = percentiles(slow[DIRECT], 99)[0] / p99
        yield Target("p99 of direct, slow subscriber / quiet", ratio, "at most", 2)
    if DIRECT in (gil := delays.get(GIL, {})):
        longer = (percentiles(gil[DIRECT], 50)[0] - p50) / 1000
        yield Target(f"p50 of direct, {GIL}, less quiet", longer, "at most", 5, " ms")
    yield from _load_targets(delays)
    for condition, ways in delays.items():
        medians = {way: percentiles(delay, 50)[0] for way, delay in ways.items()}
        others = [way for way in medians if is_peer(way)]
        if DIRECT in medians and others:
            best = min(others, key=lambda way: medians[way])
            name = f"{condition}: p50 of the best other Python way ({best}) / direct"
            yield Target(name, medians[best] / medians[DIRECT], "more than", 1)


def _load_targets(delays: dict[str, dict[str, list[float]]]) -> Iterator[Target]:
    """Of direct, under what pyepics brings."""
    quiet = dict(zip((50, 90), percentiles(delays[QUIET][DIRECT], 50, 90), strict=True))
    storm = delays.get(STORM, {})
    if DIRECT in storm:
        for percent, limit in ((50, 10), (90, 12)):
            longer = (percentiles(storm[DIRECT], percent)[0] - quiet[percent]) / 1000
            yield Target(f"p{percent} of direct, {STORM}, less quiet", longer, "at most", limit, " ms")
        if PYEPICS in storm:
            ratio = percentiles(storm[PYEPICS], 50)[0] / percentiles(storm[DIRECT], 50)[0]
            yield Target(f"{STORM}: p50 of {PYEPICS} / direct", ratio, "more than", 1)
    for condition in (ARRAYS, SLEEPS):
        if DIRECT in (loaded := delays.get(condition, {})):
            ratio = percentiles(loaded[DIRECT], 90)[0] / quiet[90]
            yield Target(f"p90 of direct, {condition} / quiet", ratio, "at most", 2)


def _scale_targets(results: Results) -> Iterator[Target]:
    scale = results.get("scale", {})
    points = {(point["way"], point["flyers"]): point for point in scale.get("points", [])}
    # ophyd's own threads and libca's wake now and then without any flyer.
    alone = points[DIRECT, 0]["cpu_s"] if (DIRECT, 0) in points else 0.0
    most = max((flyers for way, flyers in points if way == DIRECT), default=0)
    if most:
        many = points[DIRECT, most]
        threads = float(many["threads"] - many["threads_before"])
        yield Target(f"threads that {most} direct flyers add", threads, "less than", 10)
        percent = 100 * (many["cpu_s"] - alone) / scale["waiting_s"]
        yield Target(f"CPU that {most} direct flyers in flight add", percent, "less than", 1, " % of a core")
    one, polling = points.get((DIRECT, 1)), points.get((FASTEST_POLLING, 1))
    if one is not None and polling is not None:
        part = (one["cpu_s"] - alone) / (polling["cpu_s"] - alone)
        yield Target(f"CPU that 1 flyer adds, direct / {FASTEST_POLLING}", part, "at most", 0.01)


def _turnaround_targets(results: Results) -> Iterator[Target]:
    for points, ways in turnarounds(results).items():
        rates = flights_a_second(ways)
        if DIRECT in rates and WITHOUT_EPICS in rates:
            ratio = rates[DIRECT] / rates[WITHOUT_EPICS]
            yield Target(f"flights of {points} points a second, direct / {WITHOUT_EPICS}", ratio, "at least", 0.8)


def turnarounds(results: Results) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Samples of each way of turnaround, by the points of a flight."""
    points: dict[str, dict[str, dict[str, list[float]]]] = results.get("turnaround", {}).get("points", {})
    return points


def flights_a_second(ways: dict[str, dict[str, list[float]]]) -> dict[str, float]:
    """Of each way of turnaround, by its median flight."""
    return {way: 1e6 / percentiles(told["flight_us"], 50)[0] for way, told in ways.items()}


# Two runs


def compare(old: Results, new: Results) -> str:
    """A table of new / old: of medians, with their 95 % interval, and of 99th percentiles; of costs."""
    lines = [f"new / old, of {new['made']['when']} and {old['made']['when']}; * where the interval excludes 1"]
    lines += [f"caution: {caution}" for caution in _cautions(old["made"], new["made"])]
    lines.append(f"\n{'':<64} {'p50':>7}   {'95 % interval':<15}   {'p99':>7}")
    ours, theirs = dict(_samples(new)), dict(_samples(old))
    for what in [what for what in ours if what in theirs]:
        p50, low, high = ratio_with_interval(ours[what], theirs[what], 50)
        p99 = percentiles(ours[what], 99)[0] / percentiles(theirs[what], 99)[0]
        mark = "*" if low > 1 or high < 1 else " "
        interval = "" if math.isnan(low) else f"{low:.2f} to {high:.2f}"
        lines.append(f"{what:<64} {p50:>7.2f} {mark} {interval:<15}   {p99:>7.2f}")
    our_costs, their_costs = dict(_costs(new)), dict(_costs(old))
    for what in [what for what in our_costs if their_costs.get(what)]:
        lines.append(f"{what:<64} {our_costs[what] / their_costs[what]:>7.2f}")
    in_new, in_old = [*ours, *our_costs], [*theirs, *their_costs]
    lines += [f"only in new: {what}" for what in in_new if what not in in_old]
    lines += [f"only in old: {what}" for what in in_old if what not in in_new]
    return "\n".join(lines)


def _cautions(old: Results, new: Results) -> Iterator[str]:
    for what in ("machine", "quick"):
        if old[what] != new[what]:
            yield f"{what} differs: {new[what]}, and was {old[what]}"
    for package in sorted(old["versions"].keys() | new["versions"].keys()):
        ours, theirs = new["versions"].get(package), old["versions"].get(package)
        if ours != theirs:
            yield f"{package} differs: {ours}, and was {theirs}"


def _samples(results: Results) -> Iterator[tuple[str, list[float]]]:
    for condition, ways in delays_us(results).items():
        for way, delays in ways.items():
            yield f"latency, {condition}: {way}", delays
    for condition, starts in starts_us(results).items():
        for way, start in starts.items():
            yield f"start, {condition}: {way}", start
    for way, told in results.get("path", {}).get("ways", {}).items():
        yield f"path: {way}", [delay for block in told["blocks_us"] for delay in block]
    for point in results.get("scale", {}).get("points", []):
        if point["flyers"]:
            yield f"scale, all finish together: {point['flyers']} {point['way']}", point["finish_us"]
    for points, turned in turnarounds(results).items():
        for way, samples in turned.items():
            yield f"turnaround, {points} points: {way}", samples["flight_us"]
    for way, by_points in results.get("collect", {}).get("growth", {}).items():
        for points, seconds in by_points.items():
            yield f"collect: {way}, {points} points", seconds
    for ioc_is, ways in results.get("kickoff", {}).items():
        for way, told in ways.items():
            yield f"kickoff, IOC {ioc_is}: {way}", told["taken_us"]


def _costs(results: Results) -> Iterator[tuple[str, float]]:
    for point in results.get("scale", {}).get("points", []):
        for cost, unit in (("cpu_s", "CPU"), ("memory_bytes", "memory")):
            yield f"scale, {unit}: {point['flyers']} {point['way']}", point[cost]
