"""Peers to compare with, one small class each: a `Way` as ``busy_callback_flyer/tools/ways.py`` has it."""

from __future__ import annotations

import importlib.util
import sys
from typing import NamedTuple

from busy_callback_flyer.tools.ways import name_in_words


class Peer(NamedTuple):
    """A way of waiting that is not the package's own."""

    words: str
    needs: str
    """The package that has to be installed."""


PEERS = {
    "pyepics": Peer("pyepics callback", "epics"),
    "floor": Peer("Python floor", "epics"),
    "ophyd-async": Peer("ophyd-async", "ophyd_async"),
    "aioca": Peer("aioca", "aioca"),
    "caproto": Peer("caproto", "caproto"),
    "rust": Peer("ophyd on the Rust client", "ophyd_epicsrs"),
}
"""In ``<name>.py`` (``_`` for ``-``), where the class is `Peer`."""

FLOOR = "C client"


def installed(ways: list[str]) -> list[str]:
    """Those of these ways that can be flown here."""
    return [way for way in ways if way not in PEERS or importlib.util.find_spec(PEERS[way].needs) is not None]


def words(way: str) -> str:
    """What tables and pictures call it."""
    return PEERS[way].words if way in PEERS else name_in_words(way)


def command(way: str, pv: str, timeout: float, condition: str, prefix: str) -> list[str]:
    """The program of a way, under a condition (``conditions.py``)."""
    return [sys.executable, "-m", "benchmarks.ways", way, pv, str(timeout), condition, prefix]
