"""What collect costs: beside a flyer that has its pages at hand, the tutorial's own, and bare reads of the arrays.

The arrays that are too long to be told from what else a process holds are read in processes of
their own, `python -m benchmarks.collect WAY POINTS FLIGHTS`.
"""

from __future__ import annotations

import copy
import json
import random
import re
import subprocess
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from unittest import mock

import bluesky.plan_stubs as bps
from bluesky import RunEngine
from bluesky.utils import MsgGenerator
from event_model import PartialEventPage
from tqdm import tqdm

import busy_callback_flyer

from .stage import HEAD, hold, in_words, percentile, start_ioc

if TYPE_CHECKING:  # at run time not before there is an IOC: importing ophyd starts Channel Access
    from ophyd.status import Status

    from busy_callback_flyer import BusyFlyer

PREFIX = "prj:"
"""The tutorial's flyer has it built in."""

ARRAYS = [f"{PREFIX}{name}_array" for name in "txy"]
TIMEOUT = 60.0
MOST_POINTS = 1_000_000

Layout = Literal["rows", "array"]
ROUNDS: dict[Layout, dict[int, int]] = {
    "rows": {256: 100, 1_000: 30, 10_000: 15, 100_000: 1},
    "array": {256: 30, 1_000: 30, 10_000: 30, 100_000: 10, 1_000_000: 5},
}
"""Collects of each way, by points; a row of the RunEngine's takes 0.1 ms."""
QUICK_ROUNDS: dict[Layout, dict[int, int]] = {
    "rows": {256: 20, 1_000: 3, 10_000: 1},
    "array": {256: 3, 10_000: 3, 100_000: 3},
}
AT_MOST: dict[Layout, dict[int, float]] = {"rows": {256: 1.10, 10_000: 1.05}, "array": {}}
"""Ratio to the floor, by points."""

TUTORIAL_POINTS = 256
TIMES_FASTER = 50.0

BLOCKS = 3
AT_MOST_OF_RAW = 2.5
"""Peak of memory, in arrays' bytes."""

FLYER, FLOOR, TUTORIAL, BARE = "BusyFlyer", "floor", "tutorial", "pyepics get"


def measure(quick: bool) -> dict[str, Any]:
    """Collect by all ways; what each took, in seconds."""
    start_ioc(nelm=MOST_POINTS, prefix=PREFIX)
    import ophyd  # noqa: F401 - before epics: it chooses the libca that pyepics loads

    # isort: split
    import epics

    flyer = busy_callback_flyer.BusyFlyer(PREFIX, name="ifly")
    flyer.wait_for_connection(timeout=TIMEOUT)
    epics.caput(f"{PREFIX}duration", 0, wait=True)
    run_engine = RunEngine()
    growth: dict[str, dict[str, list[float]]] = {}
    for layout, rounds in (QUICK_ROUNDS if quick else ROUNDS).items():
        samples = _beside_floor(run_engine, flyer, layout, rounds)
        growth |= {f"{way}, {layout}": _by_text(by_points) for way, by_points in samples.items()}
    flyer.layout = "rows"
    rows_in_hand, requests = _beside_tutorial(run_engine, flyer, 1 if quick else 7)
    growth[TUTORIAL] = _by_text({TUTORIAL_POINTS: rows_in_hand[f"{TUTORIAL}, `collect`"]})
    long = _long_arrays(MOST_POINTS // 10 if quick else MOST_POINTS, 1 if quick else BLOCKS, 2 if quick else 5)
    return {"growth": growth, "rows_in_hand": rows_in_hand, "requests": requests, "long": long}


def show(results: dict[str, Any]) -> bool:
    """Print it all; whether all limits are kept."""
    growth = results["growth"]
    kept = True
    for layout in AT_MOST:
        print(f"\nthe RunEngine's `collect`, layout={layout!r}\n{HEAD}")
        kept &= _compare({way: growth[f"{way}, {layout}"] for way in (FLYER, FLOOR)}, layout)
    kept &= _compare_tutorial(results["rows_in_hand"], results["requests"])
    kept &= _compare_long(results["long"])
    return kept


def _by_text(by_points: Mapping[int, list[float]]) -> dict[str, list[float]]:
    """As JSON has its keys."""
    return {str(points): seconds for points, seconds in by_points.items()}


# In the RunEngine, beside a flyer that has its pages at hand


class Floor:
    """A flyer without EPICS: the pages of another's flight, and what that told of them, from memory."""

    parent = None

    def __init__(self, flyer: BusyFlyer) -> None:
        _fly(flyer)
        self._pages = list(flyer.collect_pages())
        self.name = flyer.name
        self.hints = flyer.hints
        self._described = flyer.describe_collect()
        self._configuration_described = flyer.describe_configuration()
        self._configuration = flyer.read_configuration()

    def kickoff(self) -> Status:
        self._next = copy.deepcopy(self._pages)
        return self.complete()

    def complete(self) -> Status:
        from ophyd.status import Status

        status = Status()
        status.set_finished()
        return status

    def describe_collect(self) -> dict[str, Any]:
        return self._described

    def describe_configuration(self) -> dict[str, Any]:
        return self._configuration_described

    def read_configuration(self) -> dict[str, Any]:
        return self._configuration

    def collect_pages(self) -> Iterator[PartialEventPage]:
        yield from self._next


def collect_timed(flyer: Any, seconds: list[float]) -> MsgGenerator[None]:
    """A run of one flight, and how long its `collect` took."""
    yield from bps.open_run()
    yield from bps.kickoff(flyer, wait=True)
    yield from bps.complete(flyer, wait=True)
    began = time.perf_counter()
    yield from bps.collect(flyer, return_payload=False)
    seconds.append(time.perf_counter() - began)
    yield from bps.close_run()


def _beside_floor(
    run_engine: RunEngine, flyer: BusyFlyer, layout: Layout, rounds: Mapping[int, int]
) -> dict[str, dict[int, list[float]]]:
    """Seconds of each way, by points; those of one round stand at the same place."""
    flyer.layout = layout
    floors: dict[int, Floor] = {}
    for points in rounds:
        _set_points(flyer, points)
        floors[points] = Floor(flyer)
    rng = random.Random(1)
    order = [points for points, count in rounds.items() for _ in range(count)]
    rng.shuffle(order)
    samples: dict[str, dict[int, list[float]]] = {way: {points: [] for points in rounds} for way in (FLYER, FLOOR)}
    warm_up = min(rounds)
    for number, points in enumerate(tqdm([warm_up, *order], desc=layout, disable=None, leave=False)):
        _set_points(flyer, points)
        ways: dict[str, Any] = {FLYER: flyer, FLOOR: floors[points]}
        for way in rng.sample(sorted(ways), len(ways)):
            run_engine(collect_timed(ways[way], samples[way][points] if number else []))
    return samples


def _compare(samples: Mapping[str, Mapping[str, list[float]]], layout: Layout) -> bool:
    for points in samples[FLYER]:
        for way, by_points in samples.items():
            print(in_words(f"{way}, {points} points", by_points[points]))
    kept = True
    for points in samples[FLYER]:
        rounds = zip(samples[FLYER][points], samples[FLOOR][points], strict=True)
        ratio = percentile([ours / floor for ours, floor in rounds], 50)
        what = f"p50 of {FLYER} / {FLOOR}, {points} points"
        limit = AT_MOST[layout].get(int(points))
        if limit is not None:
            kept &= hold(what, ratio, limit)
        else:
            print(f"     {what}: {ratio:.2f}")
    return kept


def _set_points(flyer: BusyFlyer, points: int) -> None:
    import epics

    epics.caput(f"{PREFIX}npts", points, wait=True)
    flyer.array_length = points


def _fly(flyer: Any) -> None:
    flyer.kickoff().wait(TIMEOUT)
    flyer.complete().wait(TIMEOUT)


# Beside the tutorial's own flyer


def _beside_tutorial(
    run_engine: RunEngine, ours: BusyFlyer, rounds: int
) -> tuple[dict[str, list[float]], dict[str, tuple[int, int]]]:
    """Seconds of each way, and how often ours and theirs ask the IOC for a value: in flight, in collect."""
    from tests.tutorial_flyer import ifly as theirs  # made at once: not before there is an IOC

    theirs.wait_for_connection(timeout=TIMEOUT)
    _set_points(ours, TUTORIAL_POINTS)
    ways: dict[str, Callable[[], float]] = {
        FLYER: partial(_rows_in_hand, ours),
        TUTORIAL: partial(_rows_in_hand, theirs),
        f"{TUTORIAL}'s gets alone": _tutorial_gets,
        f"{FLYER}, `collect`": partial(_collected, run_engine, ours),
        f"{TUTORIAL}, `collect`": partial(_collected, run_engine, theirs),
    }
    samples: dict[str, list[float]] = {way: [] for way in ways}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ophyd, at each of the tutorial's values
        requests = {way: _requests(flyer) for way, flyer in ((FLYER, ours), (TUTORIAL, theirs))}  # warms up, too
        rng = random.Random(1)
        for _ in tqdm(range(rounds), desc=TUTORIAL, disable=None, leave=False):
            for way in rng.sample(sorted(ways), len(ways)):
                samples[way].append(ways[way]())
    return samples, requests


def _compare_tutorial(samples: Mapping[str, list[float]], requests: Mapping[str, Sequence[int]]) -> bool:
    print(f"\nfrom the finished flight to its rows in hand, {TUTORIAL_POINTS} points\n{HEAD}")
    for way, seconds in samples.items():
        print(in_words(way, seconds))
    for way, (in_flight, in_collect) in requests.items():
        print(f"     {way} asks the IOC {in_flight} times in flight, {in_collect} times in collect")
    median = {way: percentile(seconds, 50) for way, seconds in samples.items()}
    for slow, fast in ((f"{TUTORIAL}'s gets alone", FLYER), (f"{TUTORIAL}, `collect`", f"{FLYER}, `collect`")):
        print(f"     p50 of {slow} / {fast}: {median[slow] / median[fast]:.0f}")
    faster = median[TUTORIAL] / median[FLYER]
    kept = faster >= TIMES_FASTER
    print(f"{'ok  ' if kept else 'MISS'} p50 of {TUTORIAL} / {FLYER}: {faster:.0f}, at least {TIMES_FASTER:g}")
    return kept


def _rows_in_hand(flyer: Any) -> float:
    """Seconds from the flight's finished status to all its rows: ours asks for them in between, theirs in collect."""
    flyer.kickoff().wait(TIMEOUT)
    began = time.time()
    flyer.complete().wait(TIMEOUT)
    _collect_all(flyer)
    ended = time.time()
    if isinstance(flyer, busy_callback_flyer.BusyFlyer):
        began = flyer.timeline["finished"].client  # sooner than our thread knew
    return ended - began


def _collect_all(flyer: Any) -> None:
    list(flyer.collect_pages() if isinstance(flyer, busy_callback_flyer.BusyFlyer) else flyer.collect())


def _collected(run_engine: RunEngine, flyer: Any) -> float:
    """Seconds of `collect` in a run."""
    seconds: list[float] = []
    run_engine(collect_timed(flyer, seconds))
    return seconds[0]


def _tutorial_gets() -> float:
    """Seconds of the round trips that the tutorial makes, by pyepics alone."""
    import epics

    pvs = [epics.get_pv(pv, auto_monitor=False, connect=True, timeout=TIMEOUT) for pv in ARRAYS]
    began = time.perf_counter()
    for _ in range(TUTORIAL_POINTS):
        for pv in pvs:
            pv.get(use_monitor=False, timeout=TIMEOUT)
    return time.perf_counter() - began


def _requests(flyer: Any) -> tuple[int, int]:
    """How often the IOC is asked for a value in flight, and in collect; by us by us or by pyepics."""
    import epics

    from busy_callback_flyer.channels.ca.library import library

    name, handles = "ca_array_get_callback", (library().calls, epics.ca.libca)
    with ExitStack() as patches:
        asked = [
            patches.enter_context(mock.patch.object(handle, name, wraps=getattr(handle, name))) for handle in handles
        ]
        _fly(flyer)
        in_flight = sum(ask.call_count for ask in asked)
        _collect_all(flyer)
        return in_flight, sum(ask.call_count for ask in asked) - in_flight


# Long arrays, in processes of their own


class Report(NamedTuple):
    """What a process has to tell of its way."""

    in_hand: Sequence[float]
    """Seconds from Done to the arrays."""
    emitted: Sequence[float]
    """Seconds from Done to their page."""
    allocated: int
    """Bytes of Python's, numpy's and ctypes' at their peak, beyond those before."""
    resident: int
    """Bytes that the process's peak has grown by in its first long flight."""


def _long_arrays(points: int, blocks: int, flights: int) -> dict[str, Any]:
    """From Done to the emitted page, and what it takes of memory; beside bare reads of the arrays."""
    rng = random.Random(1)
    order = [way for _ in range(blocks) for way in rng.sample(sorted(LONG), len(LONG))]
    reports: dict[str, list[dict[str, Any]]] = {way: [] for way in LONG}
    for way in tqdm(order, desc=f"{points} points", disable=None, leave=False):
        command = [sys.executable, "-m", "benchmarks.collect", way, str(points), str(flights)]
        done = subprocess.run(command, text=True, stdout=subprocess.PIPE, check=True)
        reports[way].append(json.loads(done.stdout))
    return {"points": points, "ways": reports}


def _compare_long(results: dict[str, Any]) -> bool:
    points = results["points"]
    reports = {way: [Report(**report) for report in results["ways"][way]] for way in (FLYER, BARE)}
    samples = {
        f"{FLYER}, to the page": [second for report in reports[FLYER] for second in report.emitted],
        f"{FLYER}, to the arrays": [second for report in reports[FLYER] for second in report.in_hand],
        BARE: [second for report in reports[BARE] for second in report.in_hand],
    }
    raw = 8 * points * len(ARRAYS)
    print(f"\nfrom Done to {len(ARRAYS)} arrays of {points} points, {raw / 1e6:g} MB\n{HEAD}")
    for what, seconds in samples.items():
        print(in_words(what, seconds))
    allocated = {way: max(report.allocated for report in told) for way, told in reports.items()}
    for way, told in reports.items():
        resident = max(report.resident for report in told)
        print(f"     {way}: {allocated[way] / 1e6:.1f} MB allocated, the process grew by {resident / 1e6:.1f} MB")
    for what in list(samples)[:2]:
        print(f"     p50 of {what} / {BARE}: {percentile(samples[what], 50) / percentile(samples[BARE], 50):.2f}")
    return hold(f"peak of {FLYER}'s memory / the arrays' own", allocated[FLYER] / raw, AT_MOST_OF_RAW)


def _page_by_flyer() -> Callable[[int], tuple[float, float]]:
    flyer = busy_callback_flyer.BusyFlyer(PREFIX, name="ifly", layout="array")
    flyer.wait_for_connection(timeout=TIMEOUT)
    run_engine = RunEngine()

    def fly(points: int) -> tuple[float, float]:
        _set_points(flyer, points)
        emitted: dict[str, float] = {}
        run_engine(collect_timed(flyer, []), lambda name, _: emitted.update({name: time.time()}))
        stamp = flyer.timeline["done"].stamp
        assert stamp is not None
        return flyer.timeline["arrays"].client - stamp, emitted["event_page"] - stamp

    return fly


def _get_by_pyepics() -> Callable[[int], tuple[float, float]]:
    import ophyd  # noqa: F401 - the libca that ophyd chooses, as above

    # isort: split
    import epics

    pvs = [epics.get_pv(pv, auto_monitor=False, connect=True, timeout=TIMEOUT) for pv in ARRAYS]

    def fly(points: int) -> tuple[float, float]:
        epics.caput(f"{PREFIX}npts", points, wait=True)
        epics.caput(f"{PREFIX}mybusy", 1, wait=True, timeout=TIMEOUT)
        began = time.perf_counter()
        arrays = [pv.get(use_monitor=False, timeout=TIMEOUT) for pv in pvs]
        ended = time.perf_counter()
        assert [len(array) for array in arrays] == [points] * len(ARRAYS)
        return ended - began, ended - began  # without a page

    return fly


LONG = {FLYER: _page_by_flyer, BARE: _get_by_pyepics}


def main(way: str, points: int, flights: int) -> None:
    """Print the `Report` of one way."""
    fly = LONG[way]()
    fly(256)
    before = _peak()
    fly(points)
    resident = _peak() - before
    in_hand, emitted = zip(*(fly(points) for _ in range(flights)), strict=True)
    tracemalloc.start()
    fly(points)
    print(json.dumps(Report(in_hand, emitted, tracemalloc.get_traced_memory()[1], resident)._asdict()))


def _peak() -> int:
    """Most bytes that this process ever had in memory; `getrusage` would count its parent's, too."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
