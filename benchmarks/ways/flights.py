"""What the ways have in common: flights to fly, in; delays, out.

A way is run as ``python -m benchmarks.ways.<name> PREFIX``, with the lengths of the flights (s)
in its standard input, a line each. It writes a line a flight: the seconds from the IOC's
stamp of Done to the moment when its client knew.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

WARM_UP = 5
"""Flights before the first that counts."""

TIMEOUT = 30.0


def fly_all(fly: Callable[[float], float]) -> None:
    """Fly what is asked for, by a function that takes a length and returns a delay."""
    lengths = [float(line) for line in sys.stdin]
    for length in lengths[:1] * WARM_UP:
        fly(length)
    for length in lengths:
        print(repr(fly(length)))
