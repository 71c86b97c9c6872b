"""The success path: from Done to the finished status by direct, beside the least that Python can do, in pairs.

Both fly blocks of the same lengths one right after the other, in random order, in a new process each.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from tqdm import tqdm

from .results import DIRECT, PYTHON_FLOOR, print_targets
from .stage import BUSY, DURATION, HEAD, PREFIX, in_words, start_ioc
from .ways import command

BLOCKS, FLIGHTS = 25, 40
"""Pairs, and flights that count of each block."""
QUICK_BLOCKS, QUICK_FLIGHTS = 2, 5

LENGTHS = (0.005, 0.055)
"""Seconds of a flight; nobody polls here."""

TIMEOUT = 10.0
STEPS = {"event": "handler of Done begins", "finished": "found to be finished"}


def measure(quick: bool, pv: str | None = None, length_pv: str | None = None) -> dict[str, Any]:
    """Fly at the embedded IOC, or at another busy record whose controller takes lengths; without one we write Done."""
    if pv is None:
        start_ioc()
        pv, length_pv = BUSY, DURATION
        where = f"embedded IOC (epicscorelibs {version('epicscorelibs')}, the busy record in Python)"
    else:
        where = ""
    from busy_callback_flyer.tools.latency import WARM_UP, BusyPV, LengthPV, SelfClear
    from busy_callback_flyer.tools.latency import measure as fly

    record = BusyPV(pv)
    blocks, flights = (QUICK_BLOCKS, QUICK_FLIGHTS) if quick else (BLOCKS, FLIGHTS)
    programs = {
        way: command(name, pv, TIMEOUT, "quiet", PREFIX) for way, name in ((DIRECT, "direct"), (PYTHON_FLOOR, "floor"))
    }
    ways: dict[str, dict[str, Any]] = {way: {"early": 0, "blocks_us": []} for way in programs}
    with tqdm(total=blocks * len(ways) * (flights + WARM_UP), desc="path", disable=None, leave=False) as bar:
        for block in range(blocks):
            measured = fly(
                record,
                programs,
                flights=flights,
                blocks=1,
                controller=SelfClear(pv) if length_pv is None else LengthPV(length_pv),
                lengths=LENGTHS,
                timeout=TIMEOUT,
                seed=block,
                flew=bar.update,
            )
            for way, delays in measured.ways.items():
                told = ways[way]
                told["client"] = delays.client
                told["early"] += delays.early
                if delays.failure:
                    told["failure"] = delays.failure
                told["blocks_us"].append(_us(delays.of()))
                for step in STEPS:
                    told.setdefault(f"{step}_us", []).extend(_us(delays.of(step)))
            if any("failure" in told for told in ways.values()):
                break
    return {"ioc": where or f"{pv} at {record.host}", "ways": ways}


def _us(seconds: Any) -> list[float]:
    return [round(1e6 * sample, 1) for sample in seconds]


def show(results: Mapping[str, Any]) -> bool:
    """Print the delays and the ratios; whether these keep their limits, and all flights went well."""
    print(f"from Done to the finished status, in pairs, at {results['ioc']}\n{HEAD}")
    good = True
    for way, told in results["ways"].items():
        print(in_words(way, [1e-6 * delay for block in told["blocks_us"] for delay in block]))
        for step, what in STEPS.items():
            if told[f"{step}_us"]:
                print(in_words(f"  {what}", [1e-6 * sample for sample in told[f"{step}_us"]]))
        if "failure" in told or told["early"]:
            good = False
            print(f"MISS {way}: {told['early']} early; {told.get('failure', 'none failed')}")
    return good and print_targets({"path": results})
