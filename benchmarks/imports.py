"""What importing the package's names costs, beside importing what it stands on."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

from tqdm import tqdm

from .stage import HEAD, hold, in_words, percentile

IMPORTS, QUICK_IMPORTS = 30, 3
"""Of each, in turn and in random order, each in a process of its own."""

AT_MOST = 1.1

BASE, OURS = "bluesky and ophyd", "our names"
CODE = """
import time
began = time.perf_counter()
{imports}
print(time.perf_counter() - began)
"""
WAYS = {
    BASE: "import bluesky.plans, ophyd",
    OURS: "import bluesky.plans, ophyd; from busy_callback_flyer import *",
}


def measure(quick: bool) -> dict[str, Any]:
    """Import in new interpreters; what is on disk is in the system's cache by then."""
    order = [way for way in WAYS for _ in range(QUICK_IMPORTS if quick else IMPORTS)]
    random.Random(1).shuffle(order)
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for way in WAYS:
        _import(way)
    for way in tqdm(order, desc="imports", disable=None, leave=False):
        found[way].append(_import(way))
    return {"taken_us": {way: [round(1e6 * seconds) for seconds in taken] for way, taken in found.items()}}


def _import(way: str) -> float:
    code = CODE.format(imports=WAYS[way])
    return float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def show(results: dict[str, Any]) -> bool:
    """Print how long it took, and the limit; whether it is kept."""
    taken = results["taken_us"]
    print(f"importing\n{HEAD}")
    for way, samples in taken.items():
        print(in_words(way, [1e-6 * sample for sample in samples]))
    return hold(f"p50 of {OURS} / {BASE}", percentile(taken[OURS], 50) / percentile(taken[BASE], 50), AT_MOST)
