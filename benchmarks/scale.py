"""Up to 1,000 flyers in flight at once in one process: what their waiting takes, and how soon each knows of its Done.

Each number of flyers is measured in a process of its own, `python -m benchmarks.scale WAY FLYERS SECONDS`.
Another one, which runs the IOC, writes Done to all of them together.
"""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psutil
from tqdm import tqdm

from .stage import PREFIX, percentile, start_ioc

if TYPE_CHECKING:
    from busy_callback_flyer import BusyFlyer

MOST_FLYERS = 1_000
RECORDS = "".join(f'record(busy, "{PREFIX}busy{number}") {{}}\n' for number in range(MOST_FLYERS))
"""Nobody acts on them: they stay Busy until a client writes Done."""

DIRECT, OPHYD, SLOW_POLLS, FAST_POLLS = "BusyFlyer, direct", "BusyFlyer, ophyd events", "polling 50 ms", "polling 1 ms"
INTERVALS = {SLOW_POLLS: 0.05, FAST_POLLS: 0.001}
POINTS = [
    *((DIRECT, flyers) for flyers in (0, 1, 10, 100, 1_000)),
    *((way, flyers) for way in (OPHYD, SLOW_POLLS) for flyers in (1, 10, 100)),
    (FAST_POLLS, 1),
]
"""No flyer at all: what ophyd's threads and libca's take by themselves."""
QUICK_POINTS = [(DIRECT, 0), (DIRECT, 1), (DIRECT, 100), (SLOW_POLLS, 1), (SLOW_POLLS, 10), (FAST_POLLS, 1)]
WAITING, QUICK_WAITING = 20.0, 2.5
"""Seconds."""

SETTLE = 1.0
"""Seconds from the last kickoff's Busy until it counts: what connecting has begun ends in them."""
TIMEOUT = 60.0
WAITED = "waited"


def measure(quick: bool) -> dict[str, Any]:
    """Measure each number of flyers of each way, against an IOC of our own."""
    start_ioc(records=RECORDS)
    write_done = _writer()
    waiting = QUICK_WAITING if quick else WAITING
    points = []
    for way, flyers in tqdm(QUICK_POINTS if quick else POINTS, desc="scale", disable=None, leave=False):
        command = [sys.executable, "-m", "benchmarks.scale", way, str(flyers), str(waiting)]
        with subprocess.Popen(command, text=True, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                if process.stdout.readline().strip() != WAITED:
                    raise RuntimeError(f"{way}, {flyers} flyers: its process has failed")
                write_done(flyers)
                points.append(json.loads(process.stdout.readline()))
                process.wait(TIMEOUT)
            finally:
                process.kill()
    return {"waiting_s": waiting, "points": points}


def _writer() -> Callable[[int], None]:
    """What writes Done to so many records: all in one go, as pyepics would wait a little after each put."""
    from epics import PV, ca, dbr

    pvs = [PV(f"{PREFIX}busy{number}", auto_monitor=False) for number in range(MOST_FLYERS)]
    for pv in pvs:
        if not pv.wait_for_connection(TIMEOUT):
            raise TimeoutError(f"{pv.pvname} is not connected")
    done = ctypes.c_uint16(0)

    def write(flyers: int) -> None:
        ca.use_initial_context()
        for pv in pvs[:flyers]:
            ca.PySEVCHK("put", ca.libca.ca_array_put(dbr.ENUM, 1, pv.chid, ctypes.byref(done)))
        ca.libca.ca_flush_io()

    return write


def show(results: dict[str, Any]) -> bool:
    """Print a line for each number of flyers, and the limits; whether all are kept."""
    from .results import print_targets  # here, as the measured processes do without scipy

    waiting, points = results["waiting_s"], results["points"]
    print(f"{waiting:g} s of waiting. CPU, packets and bytes are per flyer and minute; without flyers, per minute.")
    print("Packets and bytes are those of the whole machine's loopback, memory is a flyer's.")
    heads = ("flyers", "threads", "% of core", "CPU ms", "packets", "bytes", "memory kB", "Done p50 ms", "p99 ms")
    print(f"{'':<24}" + "".join(f"{head:>12}" for head in heads))
    for point in points:
        shares, minutes = max(point["flyers"], 1), waiting / 60
        figures = [
            f"{point['flyers']}",
            f"+{point['threads'] - point['threads_before']}",
            f"{100 * point['cpu_s'] / waiting:.3f}",
            f"{1e3 * point['cpu_s'] / shares / minutes:.3f}",
            f"{point['packets'] / shares / minutes:.2f}",
            f"{point['bytes'] / shares / minutes:.0f}",
            f"{point['memory_bytes'] / shares / 1e3:.0f}",
            *(f"{percentile(point['finish_us'], percent) / 1e3:.2f}" for percent in (50, 99) if point["flyers"]),
        ]
        print(f"{point['way']:<24}" + "".join(f"{figure:>12}" for figure in figures))
    return print_targets({"scale": results})


# In a process of its own


def main(way: str, number: int, seconds: float) -> None:
    """Print `WAITED` when Done is to be written, and then what was measured of one way."""
    from ophyd import EpicsSignalRO

    other = EpicsSignalRO(f"{PREFIX}npts", name="other")  # so ophyd's threads and libca's are there before
    other.wait_for_connection(timeout=TIMEOUT)
    make = _maker(way)
    process = psutil.Process()
    threads_before, memory_before = process.num_threads(), process.memory_info().rss
    flyers = [make(index) for index in range(number)]
    for flyer in flyers:
        flyer.wait_for_connection(timeout=TIMEOUT)
    gc.collect()
    gc.freeze()  # nobody has so many flyers: their collection would be part of the delays
    for status in [flyer.kickoff() for flyer in flyers]:
        status.wait(TIMEOUT)
    finished = [flyer.complete() for flyer in flyers]
    time.sleep(SETTLE)
    threads, memory = process.num_threads(), process.memory_info().rss
    # The loopback is the whole machine's, so nothing else may use it. What is sent on it is received on it, too.
    net_before = psutil.net_io_counters(pernic=True)["lo"]
    cpu_before = time.process_time()  # psutil tells it to 10 ms
    time.sleep(seconds)
    cpu = time.process_time() - cpu_before
    net = psutil.net_io_counters(pernic=True)["lo"]
    assert all(flyer.flying for flyer in flyers)
    print(WAITED, flush=True)
    for status in finished:
        status.wait(TIMEOUT)
    point = {
        "way": way,
        "flyers": number,
        "threads": threads,
        "threads_before": threads_before,
        "cpu_s": round(cpu, 6),
        "packets": net.packets_sent - net_before.packets_sent,
        "bytes": net.bytes_sent - net_before.bytes_sent,
        "memory_bytes": memory - memory_before,
        "finish_us": [_delay_us(flyer) for flyer in flyers],
    }
    print(json.dumps(point), flush=True)


def _maker(way: str) -> Callable[[int], BusyFlyer]:
    """What makes a flyer without arrays, on a record of its own."""
    from ophyd import Component

    from busy_callback_flyer import BusyFlyer, BusyRecord, PollingFlyer

    parts = {"busy": Component(BusyRecord, "", kind="config"), "tArr": None, "xArr": None, "yArr": None}
    flyer_class = type("Flyer", (PollingFlyer if way in INTERVALS else BusyFlyer,), parts)

    def make(index: int) -> BusyFlyer:
        flyer: BusyFlyer = flyer_class(
            f"{PREFIX}busy{index}",
            name=f"ifly{index}",
            kickoff_finishes_on="busy",  # so that all are known to be in flight before it counts
            flight_timeout=600.0,
            time_array=None,
            events="ophyd" if way == OPHYD else "direct",
        )
        if isinstance(flyer, PollingFlyer):
            flyer.poll_sleep_interval_s = INTERVALS[way]
        return flyer

    return make


def _delay_us(flyer: BusyFlyer) -> float:
    latency = flyer.timeline.latency
    assert latency is not None
    return round(1e6 * latency, 1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
