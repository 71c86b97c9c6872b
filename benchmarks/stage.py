"""An IOC of our own to measure at, and the figures' summary."""

from __future__ import annotations

import atexit
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from busy_callback_flyer.ioc import EmbeddedIOC

PREFIX = "bench:"
BUSY = f"{PREFIX}mybusy"
DURATION = f"{PREFIX}duration"


def start_ioc(nelm: int = 256, prefix: str = PREFIX, records: str = "") -> EmbeddedIOC:
    """Start it, with more `records` (the text of a .db file); to be called before ophyd is imported."""
    with tempfile.TemporaryDirectory() as folder:
        more = Path(folder, "more.db")
        more.write_text(records)
        ioc = EmbeddedIOC(prefix, nelm=nelm, databases=[more] if records else [])
        ioc.start()
    atexit.register(ioc.stop)  # before Channel Access registers its own, so it goes down after it
    for name in [name for name in os.environ if name.startswith("EPICS_")]:
        del os.environ[name]
    os.environ.update(ioc.client_environment)
    return ioc


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that so many percent of them do not exceed."""
    return float(np.percentile(samples, percent, method="inverted_cdf"))


def in_words(name: str, samples: Sequence[float]) -> str:
    """A line of microseconds: n, p50, p90, p99 and the greatest."""
    figures = [percentile(samples, percent) * 1e6 for percent in (50, 90, 99, 100)]
    return f"{name:<28} {len(samples):>6} " + " ".join(f"{figure:>9.0f}" for figure in figures)


HEAD = f"{'':<28} {'n':>6} {'p50':>9} {'p90':>9} {'p99':>9} {'max':>9}   (microseconds)"


def hold(what: str, ratio: float, limit: float) -> bool:
    """Print a ratio beside its limit; whether it is kept."""
    kept = ratio <= limit
    print(f"{'ok  ' if kept else 'MISS'} {what}: {ratio:.2f}, at most {limit:g}")
    return kept
