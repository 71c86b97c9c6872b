"""What `kickoff()` costs the caller, beside a bare `EpicsSignal.put(wait=False)`."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from .stage import HEAD, PREFIX, hold, in_words, percentile, start_ioc

if TYPE_CHECKING:  # at run time not before there is an IOC: importing ophyd starts Channel Access
    from ophyd import EpicsSignal

    from busy_callback_flyer import BusyFlyer

KICKOFFS, QUICK_KICKOFFS = 500, 50
"""Of each kind."""

UNATTENDED = "unattended"
"""A busy record that nobody acts on."""

BARE = f"{PREFIX}fill"
"""A record of the same kind that nothing hangs on, for the bare puts."""

AT_MOST = {50: 4.0, 99: 4.0}
"""Times a bare put, by percentile. In it is what orders our put behind those of others, and what asks for arrays."""

TIMEOUT = 30.0


Samples = dict[str, dict[str, list[float]]]
"""By way, what each call took."""


def measure(quick: bool) -> dict[str, Any]:
    """Call with a live and with a frozen IOC."""
    ioc = start_ioc(records=f'record(busy, "{PREFIX}{UNATTENDED}") {{}}')
    from ophyd import EpicsSignal

    kickoffs = QUICK_KICKOFFS if quick else KICKOFFS
    flyer_class = _flyer_class()
    live = _live(flyer_class(PREFIX, name="ifly", fresh_timeout=0, on_stale="warn"), kickoffs)
    # A flyer a kickoff: a second one would wait for what the frozen IOC still owes the first.
    flyers = [flyer_class(PREFIX, name=f"ifly{number}") for number in range(kickoffs)]
    puts = [EpicsSignal(BARE, name=f"put{number}") for number in range(kickoffs)]
    for device in (*flyers, *puts):
        device.wait_for_connection(timeout=TIMEOUT)
    gc.collect()
    gc.freeze()  # nobody has so many flyers: their collection would be most of what is measured
    ioc.freeze()
    try:
        frozen = _frozen(flyers, puts)
    finally:
        for flyer in flyers:
            flyer.stop()
        ioc.thaw()
    return {"live": live, "frozen": frozen}


def show(results: dict[str, Any]) -> bool:
    """Print it; whether all ratios keep their limit."""
    print(HEAD)
    kept = [_compare(ioc_is, samples) for ioc_is, samples in results.items()]
    return all(kept)


def _flyer_class() -> type[BusyFlyer]:
    from ophyd import Component

    from busy_callback_flyer import BusyFlyer, BusyRecord

    class Flyer(BusyFlyer):
        """With the tutorial's arrays, which nobody writes."""

        busy = Component(BusyRecord, UNATTENDED, kind="config")

    return Flyer


def _live(flyer: BusyFlyer, kickoffs: int) -> Samples:
    from ophyd import EpicsSignal

    busy = EpicsSignal(f"{PREFIX}{UNATTENDED}", name="busy")
    bare = EpicsSignal(BARE, name="bare")
    for device in (flyer, busy, bare):
        device.wait_for_connection(timeout=TIMEOUT)
    kickoff_us, put_us = [], []
    for _ in tqdm(range(kickoffs), desc="live", disable=None, leave=False):
        kickoff_us.append(_timed(flyer.kickoff))
        while "busy" not in flyer.timeline:  # Done is put on another circuit, and could come before Busy
            time.sleep(0.0005)
        busy.put(0)  # a put-callback would be queued behind the flight
        flyer.complete().wait(TIMEOUT)
        put_us.append(_timed(partial(bare.put, 0, wait=False)))
    return _samples(kickoff_us, put_us)


def _frozen(flyers: list[BusyFlyer], puts: list[EpicsSignal]) -> Samples:
    kickoff_us, put_us = [], []
    for flyer, signal in zip(flyers, puts, strict=True):
        kickoff_us.append(_timed(flyer.kickoff))
        put_us.append(_timed(partial(signal.put, 1, wait=False)))
    return _samples(kickoff_us, put_us)


def _samples(kickoff_us: list[float], put_us: list[float]) -> Samples:
    return {"kickoff()": {"taken_us": kickoff_us}, "EpicsSignal.put": {"taken_us": put_us}}


def _timed(call: Callable[[], object]) -> float:
    """Microseconds of a call."""
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e6


def _compare(ioc_is: str, samples: Samples) -> bool:
    seconds = {name: [us / 1e6 for us in way["taken_us"]] for name, way in samples.items()}
    for name, values in seconds.items():
        print(in_words(f"{name}, IOC {ioc_is}", values))
    kickoff, put = seconds["kickoff()"], seconds["EpicsSignal.put"]
    kept = True
    for percent, limit in AT_MOST.items():
        ratio = percentile(kickoff, percent) / percentile(put, percent)
        kept &= hold(f"p{percent} of kickoff / put, IOC {ioc_is}", ratio, limit)
    return kept
