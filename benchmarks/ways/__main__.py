"""`python -m benchmarks.ways WAY PV TIMEOUT CONDITION PREFIX`: a way's program, under a condition."""

from __future__ import annotations

import sys
from importlib import import_module

from busy_callback_flyer.tools.ways import Way, make_way, serve

from ..conditions import CONDITIONS
from . import PEERS


def make(way: str, pv: str, timeout: float) -> Way:
    """A peer, or one of the package's own."""
    if way in PEERS:
        peer: Way = import_module(f".{way.replace('-', '_')}", __package__).Peer(pv)
        return peer
    return make_way(way, pv, timeout)


def main(way: str, pv: str, timeout: str, condition: str, prefix: str) -> None:
    """Serve it."""

    def under_condition() -> Way:
        made = make(way, pv, float(timeout))
        CONDITIONS[condition].of_client(made, prefix)
        return made

    serve(under_condition, float(timeout))


if __name__ == "__main__":
    main(*sys.argv[1:])
