"""What importing the package's names costs, beside importing what it stands on."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tqdm import tqdm

from .stage import HEAD, hold, in_words, percentile

IMPORTS, QUICK_IMPORTS = 30, 2

AT_MOST = 1.1

CODE = """
import time
begin = time.perf_counter()
import bluesky, ophyd
between = time.perf_counter()
from busy_callback_flyer import *
end = time.perf_counter()
print([between - begin, end - begin])
"""
BASE, ALL = "bluesky and ophyd", "the same, then our names"


def measure(quick: bool) -> dict[str, Any]:
    """Import both, one after the other, in new interpreters: a slow moment of the machine slows both."""
    _import()  # from here on, what is on disk is in the system's cache
    times = range(QUICK_IMPORTS if quick else IMPORTS)
    taken = [_import() for _ in tqdm(times, desc="imports", disable=None, leave=False)]
    return {"taken_us": {way: [round(1e6 * pair[at]) for pair in taken] for at, way in enumerate((BASE, ALL))}}


def _import() -> list[float]:
    done = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True)
    taken: list[float] = json.loads(done.stdout)
    return taken


def show(results: dict[str, Any]) -> bool:
    """Print how long it took, and the limit; whether it is kept."""
    taken = results["taken_us"]
    print(f"importing\n{HEAD}")
    for way, samples in taken.items():
        print(in_words(way, [1e-6 * sample for sample in samples]))
    ratios = [both / base for base, both in zip(taken[BASE], taken[ALL], strict=True)]
    return hold("p50 of the ratios of both", percentile(ratios, 50), AT_MOST)
