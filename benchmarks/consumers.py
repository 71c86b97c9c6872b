"""From Done to the finished status while the RunEngine is held up: by nothing, by Tiled, by a Tiled that is frozen."""

from __future__ import annotations

import random
import time
from typing import Any

import psutil
from tqdm import tqdm

from .stage import DURATION, HEAD, PREFIX, hold, in_words, percentile, start_ioc

NOTHING, TILED, FROZEN = "no consumer", "Tiled", "Tiled, frozen"
WAYS = (NOTHING, TILED, FROZEN)
FLIGHTS, QUICK_FLIGHTS = 100, 5
WARM_UP = 2
"""Flights of each way that do not count."""

SECONDS = (0.1, 0.2)
"""Length of a flight, random between these."""

AT_MOST = 1.25
TIMEOUT = 60.0


class Watched:
    """A consumer, and when it was waited for."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self.calls: list[tuple[float, float]] = []

    def __call__(self, name: str, doc: Any) -> None:
        began = time.time()
        self._consumer(name, doc)
        self.calls.append((began, time.time()))


def measure(quick: bool) -> dict[str, Any]:
    """Fly in random order; in flight another device is read, whose documents the consumer has to take."""
    start_ioc()
    import bluesky.plan_stubs as bps
    from bluesky import RunEngine
    from bluesky.utils import MsgGenerator
    from bluesky_tiled_plugins import TiledWriter
    from ophyd import Signal
    from tiled.client import from_uri

    from busy_callback_flyer import BusyFlyer
    from busy_callback_flyer.tools.tiled_server import TiledServer

    # isort: split
    import epics  # after ophyd, which chooses its libca

    flyer = BusyFlyer(PREFIX, name="ifly", kickoff_finishes_on="busy")
    flyer.wait_for_connection(timeout=TIMEOUT)
    beside = Signal(name="beside", value=0)
    run_engine = RunEngine()
    order = list(WAYS) * (QUICK_FLIGHTS if quick else FLIGHTS)
    random.Random(1).shuffle(order)
    order = list(WAYS) * WARM_UP + order
    delays: dict[str, list[float]] = {way: [] for way in WAYS}
    waited_for = dict.fromkeys(WAYS, 0)

    with TiledServer() as server:
        process = psutil.Process(server.pid)
        tiled = Watched(TiledWriter(from_uri(server.uri)))

        flyer.subscribe(lambda **_: process.resume(), flyer.SUB_FLIGHT_DONE, run=False)

        def flight(way: str) -> MsgGenerator[None]:
            yield from bps.open_run()
            yield from bps.kickoff(flyer, wait=True)
            if way == FROZEN:
                process.suspend()
                if "done" in flyer.timeline:  # too late to be frozen in flight
                    process.resume()
            yield from bps.trigger_and_read([beside], name="beside")
            yield from bps.complete(flyer, wait=True)
            yield from bps.collect(flyer)
            yield from bps.close_run()

        for number, way in enumerate(tqdm(order, desc="consumers", disable=None, leave=False)):
            epics.caput(DURATION, random.uniform(*SECONDS), wait=True, timeout=TIMEOUT)
            consumers = [] if way == NOTHING else [tiled]
            run_engine(flight(way), consumers)
            if number >= WARM_UP * len(WAYS):
                timeline = flyer.timeline
                assert timeline.latency is not None
                delays[way].append(round(1e6 * timeline.latency, 1))
                waited_for[way] += any(began < timeline["done"].client < ended for began, ended in tiled.calls)
            tiled.calls.clear()
    return {"delay_us": delays, "waited_for": waited_for}


def show(results: dict[str, Any]) -> bool:
    """Print the delays, and the limit; whether it is kept."""
    delays = results["delay_us"]
    print(f"from Done to the finished status, beside\n{HEAD}")
    for way, samples in delays.items():
        print(in_words(way, [1e-6 * sample for sample in samples]))
    for way, count in results["waited_for"].items():
        print(f"     {way}: the RunEngine waited for it at the end of {count} of {len(delays[way])} flights")
    medians = {way: percentile(samples, 50) for way, samples in delays.items()}
    return hold(f"p50, {FROZEN} / {NOTHING}", medians[FROZEN] / medians[NOTHING], AT_MOST)
