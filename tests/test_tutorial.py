"""The tutorial's own flyer runs against the embedded IOC, and ours takes its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bluesky.plans as bp
from bluesky import RunEngine

from busy_callback_flyer import BusyFlyer

Documents = list[tuple[str, dict[str, Any]]]


def test_same_keys_same_rows(
    controller: Callable[..., None],
    make_flyer: Callable[..., BusyFlyer],
    run_engine: RunEngine,
    documents: Documents,
) -> None:
    from . import tutorial_flyer  # makes its flyer at once: not before there is an IOC

    tutorial_flyer.ifly.wait_for_connection(timeout=10)
    controller(npts=21, duration=0.3, seed=3)
    run_engine(bp.fly([tutorial_flyer.ifly]))
    theirs, documents[:] = dict(documents), []
    run_engine(bp.fly([make_flyer()]))
    ours = dict(documents)
    assert theirs["stop"]["exit_status"] == ours["stop"]["exit_status"] == "success"
    assert theirs["descriptor"]["name"] == ours["descriptor"]["name"]
    assert theirs["descriptor"]["data_keys"].keys() == ours["descriptor"]["data_keys"].keys()
    for key in ("ifly_xArr", "ifly_yArr"):
        assert list(theirs["event_page"]["data"][key]) == ours["event_page"]["data"][key]
        assert len(ours["event_page"]["data"][key]) == 21
