"""From the IOC's stamp of Done to the client, by each way of waiting, under each condition."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from tqdm import tqdm

from .conditions import CONDITIONS, records
from .results import DIRECT, PYEPICS, percentiles, print_targets
from .stage import BUSY, DURATION, HEAD, PREFIX, in_words, start_ioc
from .ways import FLOOR, c_client, command, installed, words

if TYPE_CHECKING:
    from busy_callback_flyer.tools.latency import Measurement

TIMEOUT = 10.0
"""Seconds; who needs longer for a flight is given up."""

POLLING = ["poll-1", "poll-5", "poll-10", "poll-50", "poll-100", "cache-10"]
PEERS = ["pyepics", "floor", "ophyd-async", "aioca", "caproto", "rust"]
OURS = ["direct", "ophyd"]
OPHYD = ["subscribe", "put-callback"]
QUIET = [*OURS, *OPHYD, "pyepics", *POLLING, *PEERS[1:]]
LOADED = [*OURS, *OPHYD, "pyepics", "poll-50", *PEERS[1:]]
QUIET_FLIGHTS = (500, 10)
"""And the blocks that they come in: many, as a shared machine has good and bad minutes."""
LOADED_FLIGHTS = (100, 4)
STORM_FLIGHTS = (60, 3)
"""Some take half a second each."""
QUICK_FLIGHTS = 10
QUICK_CONDITIONS = ("quiet", "a thread holds the GIL", "a pyepics callback sleeps", "8 MB arrays")
LEFT_OUT_IF_QUICK = ("poll-5", "poll-10", "poll-100", "cache-10", "rust")


def measure(quick: bool) -> dict[str, Any]:
    """Every way when nothing else goes on, and most of them under each condition."""
    start_ioc(records=records(PREFIX))
    from busy_callback_flyer.tools.latency import WARM_UP, BusyPV, LengthPV
    from busy_callback_flyer.tools.latency import measure as fly

    conditions: dict[str, dict[str, Any]] = {}
    stolen: dict[str, float] = {}
    cores = os.cpu_count() or 1
    clock: tuple[float, float] = (-float("inf"), float("inf"))
    with tempfile.TemporaryDirectory() as folder:
        for name, condition in CONDITIONS.items():
            if quick and name not in QUICK_CONDITIONS:
                continue
            flights, blocks = {"quiet": QUIET_FLIGHTS, "monitor storm": STORM_FLIGHTS}.get(name, LOADED_FLIGHTS)
            if quick:
                flights, blocks = QUICK_FLIGHTS * (2 if name == "quiet" else 1), 1
            stolen_before, began = _stolen(), time.monotonic()
            ways = _programs(name, quick, folder)
            with tqdm(total=(flights + WARM_UP * blocks) * len(ways), desc=name, disable=None, leave=False) as bar:
                measured = fly(
                    BusyPV(BUSY),
                    ways,
                    flights=flights,
                    blocks=blocks,
                    controller=LengthPV(DURATION),
                    timeout=TIMEOUT,
                    flew=bar.update,
                    around=partial(condition.of_ioc, PREFIX),
                )
            conditions[name] = _samples(measured)
            stolen[name] = round(100 * (_stolen() - stolen_before) / (time.monotonic() - began) / cores, 1)
            clock = max(clock[0], measured.clock[0]), min(clock[1], measured.clock[1])
    clock_us = [round(1e6 * bound, 1) for bound in clock]
    return {"conditions": conditions, "clock_us": clock_us, "stolen_percent": stolen}


def _stolen() -> float:
    """CPU seconds that this machine, where it is a virtual one, wanted and its host gave to others."""
    return float(getattr(psutil.cpu_times(), "steal", 0.0))


def _programs(condition: str, quick: bool, folder: str) -> dict[str, list[str]]:
    ways = QUIET if condition == "quiet" else LOADED
    if quick and condition == "quiet":
        ways = [way for way in ways if way not in LEFT_OUT_IF_QUICK]
    elif quick:
        ways = [way for way in ways if way in ("direct", "subscribe", "poll-50")]
    programs = {words(way): command(way, BUSY, TIMEOUT, condition, PREFIX) for way in installed(ways)}
    if condition == "quiet" and c_client.compiler() is not None:
        programs[FLOOR] = [str(c_client.build(Path(folder))), BUSY]
    return programs


def _samples(measured: Measurement) -> dict[str, Any]:
    """As the results file has them: microseconds, a list for each time that this way tells."""
    found: dict[str, Any] = {}
    for name, delays in measured.ways.items():
        found[name] = {"client": delays.client, "early": delays.early, "delay_us": []}
        if delays.failure:
            found[name]["failure"] = delays.failure
        for what in ("length", "delay", "next", "event", "finished", "start"):
            if len(samples := delays.of(what)):
                found[name][f"{what}_us"] = [round(1e6 * sample, 1) for sample in samples]
    return found


def show(results: Mapping[str, Any]) -> bool:
    """Print tables for each condition, then the limits; whether all are kept."""
    for condition, ways in results["conditions"].items():
        stolen = results["stolen_percent"][condition]
        print(f"\nfrom Done to the client: {condition} (the machine's host took {stolen:g} % of its CPU away)")
        for name, found in ways.items():
            if found["delay_us"]:
                print(in_words(name, [1e-6 * sample for sample in found["delay_us"]]))
            if "failure" in found:
                print(f"     {name} was given up: {found['failure']}")
            if found["early"]:
                print(f"     {name} knew too early {found['early']} times")
        _show_starts({name: found["start_us"] for name, found in ways.items() if found.get("start_us")})
    low, high = results["clock_us"]
    print(f"\nIOC's clock less the clients': between {low:.0f} and {high:.0f} microseconds")
    return print_targets({"latency": results})


def _show_starts(starts: Mapping[str, list[float]]) -> None:
    print(f"start: from kickoff() to the IOC's stamp of Busy\n{HEAD}")
    for name, start in starts.items():
        print(in_words(name, [1e-6 * sample for sample in start]))
    if DIRECT in starts and PYEPICS in starts:
        ours, theirs = (percentiles(starts[way], 50, 90) for way in (DIRECT, PYEPICS))
        p50, p90 = ((our - their) / 1000 for our, their in zip(ours, theirs, strict=True))
        print(f"     direct starts later than {PYEPICS}: by {p50:.2f} ms at p50, {p90:.2f} ms at p90")
