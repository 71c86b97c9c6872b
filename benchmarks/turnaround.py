"""Flights of no length through a RunEngine: how many a second, and how many the RunEngine alone would make."""

from __future__ import annotations

import random
import time
from typing import Any

from tqdm import tqdm

from .results import print_targets
from .stage import DURATION, HEAD, PREFIX, in_words, percentile, start_ioc

POINTS = (51, 256)
"""Of a flight: the embedded IOC's default, and what the tutorial's arrays hold."""

DIRECT, POLLING, CEILING = "BusyFlyer, direct", "polling 50 ms", "without EPICS"
FLIGHTS = {DIRECT: 300, POLLING: 40, CEILING: 300}
QUICK_FLIGHTS = 15
WARM_UP = 5
"""Flights of each way that do not count."""

TIMEOUT = 60.0


def measure(quick: bool) -> dict[str, Any]:
    """Time flights of each way, in random order."""
    start_ioc()
    from bluesky import RunEngine
    from bluesky.plans import fly

    from busy_callback_flyer import BusyFlyer, PollingFlyer

    from .collect import Floor

    # isort: split
    import epics  # after ophyd, which chooses its libca

    class Ceiling(Floor):
        """Its pages are copied before the flight, as the RunEngine writes into them."""

        def prepare(self) -> None:
            super().kickoff()

        def kickoff(self) -> Any:
            return self.complete()

    epics.caput(DURATION, 0, wait=True, timeout=TIMEOUT)
    # One after the other: pyepics can miss to tell a second user of a PV that is just connecting.
    direct = BusyFlyer(PREFIX, name="ifly")
    direct.wait_for_connection(timeout=TIMEOUT)
    polling = PollingFlyer(PREFIX, name="ifly")
    polling.wait_for_connection(timeout=TIMEOUT)
    run_engine = RunEngine()
    found: dict[str, Any] = {}
    for points in POINTS:
        epics.caput(f"{PREFIX}npts", points, wait=True, timeout=TIMEOUT)
        ceiling = Ceiling(direct)
        ways: dict[str, Any] = {DIRECT: direct, POLLING: polling, CEILING: ceiling}
        order = [way for way in ways for _ in range(QUICK_FLIGHTS if quick else FLIGHTS[way])]
        random.Random(1).shuffle(order)
        flights: dict[str, list[float]] = {way: [] for way in ways}
        steps: dict[str, list[float]] = {"kickoff_us": [], "arrays_us": []}
        order = [*ways] * WARM_UP + order
        for number, way in enumerate(tqdm(order, desc=f"{points} points", disable=None, leave=False)):
            ceiling.prepare()
            began = time.perf_counter()
            run_engine(fly([ways[way]]))
            seconds = time.perf_counter() - began
            if number < WARM_UP * len(ways):
                continue
            flights[way].append(_us(seconds))
            if way == DIRECT:
                put, finished, arrays = (direct.timeline[step].client for step in ("put", "finished", "arrays"))
                steps["kickoff_us"].append(_us(finished - put))
                steps["arrays_us"].append(_us(arrays - finished))
        found[str(points)] = {way: {"flight_us": samples} for way, samples in flights.items()}
        found[str(points)][DIRECT] |= steps
    return {"points": found}


def _us(seconds: float) -> float:
    return round(1e6 * seconds, 1)


def show(results: dict[str, Any]) -> bool:
    """Print how long the flights took, and the limits; whether they are kept."""
    for points, ways in results["points"].items():
        print(f"a run of one flight of no length, {points} points\n{HEAD}")
        for way, samples in ways.items():
            print(in_words(way, _seconds(samples["flight_us"])))
        print(in_words(f"{DIRECT}: in flight", _seconds(ways[DIRECT]["kickoff_us"])))
        print(in_words(f"{DIRECT}: arrays", _seconds(ways[DIRECT]["arrays_us"])))
        medians = {way: percentile(samples["flight_us"], 50) for way, samples in ways.items()}
        for way, median in medians.items():
            print(f"     {way}: {1e6 / median:.0f} flights a second")
    return print_targets({"turnaround": results})


def _seconds(microseconds: list[float]) -> list[float]:
    return [sample / 1e6 for sample in microseconds]
