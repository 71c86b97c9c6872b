"""How long after the IOC's stamp of Done the client knows: BusyFlyer beside its peers.

Each way is a process of its own, so that none is in another's way, and flies a block of
flights; the blocks come in random order, so that what else the machine does hits all alike.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from tqdm import tqdm

from .stage import HEAD, PREFIX, hold, in_words, percentile
from .ways import c_client

BLOCKS = 10
SHORTEST, LONGEST = 0.005, 0.03
"""Seconds of a flight; varied, so that nothing aliases with it."""

DIRECT, OPHYD, SUBSCRIBE, FLOOR = (
    "BusyFlyer, events='direct'",
    "BusyFlyer, events='ophyd'",
    "ophyd subscribe",
    "C client",
)
AT_MOST_OF_C = 1.5
AT_MOST_OF_ADDED = 0.5
"""Of what ophyd adds to the floor. The floor itself, kernel and IOC, is no client's to shorten."""


def run(flights: int) -> int:
    """Fly so many of each way; print delays and ratios. 1 where a ratio misses its limit."""
    python = [sys.executable, "-m"]
    ways = {
        DIRECT: [*python, "benchmarks.ways.busy_flyer", PREFIX, "direct"],
        OPHYD: [*python, "benchmarks.ways.busy_flyer", PREFIX, "ophyd"],
        SUBSCRIBE: [*python, "benchmarks.ways.ophyd_subscribe", PREFIX],
    }
    with tempfile.TemporaryDirectory() as folder:
        if c_client.compiler() is not None:
            ways[FLOOR] = [str(c_client.build(Path(folder))), PREFIX]
        delays = _fly(ways, flights)
    print(HEAD)
    for name, samples in delays.items():
        print(in_words(name, samples))
    median = {name: percentile(samples, 50) for name, samples in delays.items()}
    print(f"     p50 of direct / ophyd subscribe: {median[DIRECT] / median[SUBSCRIBE]:.2f}")
    if FLOOR not in median:
        print("there is no C compiler: no floor to hold it against")
        return 0
    floor = median[FLOOR]
    print(f"     p50 of C client / ophyd subscribe: {floor / median[SUBSCRIBE]:.2f}")
    kept = hold("p50 of direct / C client", median[DIRECT] / floor, AT_MOST_OF_C)
    added = (median[DIRECT] - floor) / (median[SUBSCRIBE] - floor)
    return int(not hold("p50 added to the C client's, direct / ophyd subscribe", added, AT_MOST_OF_ADDED) or not kept)


def _fly(ways: dict[str, list[str]], flights: int) -> dict[str, list[float]]:
    rng = random.Random(1)
    delays: dict[str, list[float]] = defaultdict(list)
    sizes = [flights // BLOCKS + (block < flights % BLOCKS) for block in range(BLOCKS)]
    blocks = [(name, size) for size in sizes if size for name in rng.sample(sorted(ways), len(ways))]
    for name, size in tqdm(blocks, desc="blocks", disable=None):
        lengths = "\n".join(str(rng.uniform(SHORTEST, LONGEST)) for _ in range(size))
        done = subprocess.run(ways[name], input=lengths, text=True, stdout=subprocess.PIPE, check=True)
        delays[name] += map(float, done.stdout.split())
    return {name: delays[name] for name in ways}
