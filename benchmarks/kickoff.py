"""What `kickoff()` costs the caller, beside a bare `EpicsSignal.put(wait=False)`."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from functools import partial

from ophyd import Component, EpicsSignal
from tqdm import tqdm

from busy_callback_flyer import BusyFlyer, BusyRecord
from busy_callback_flyer.ioc import EmbeddedIOC

from .stage import HEAD, PREFIX, hold, in_words, percentile

BARE = f"{PREFIX}fill"
"""A record of the same kind that nothing hangs on, for the bare puts."""

AT_MOST = 3.0
TIMEOUT = 30.0
PERCENTILES = (50, 99)


class Flyer(BusyFlyer):
    """On a record that nobody acts on, and without arrays."""

    busy = Component(BusyRecord, "mytaxi", kind="config")
    tArr = xArr = yArr = None  # noqa: N815


def run(ioc: EmbeddedIOC, kickoffs: int) -> int:
    """Measure with a live and with a frozen IOC; 1 where a ratio misses its limit."""
    print(HEAD)
    kept = _compare("live", _live(kickoffs))
    # A flyer a kickoff: a second one would wait for what the frozen IOC still owes the first.
    flyers = [Flyer(PREFIX, name=f"ifly{number}", time_array=None) for number in range(kickoffs)]
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
    return int(not (_compare("frozen", frozen) and kept))


def _live(kickoffs: int) -> dict[str, list[float]]:
    flyer = Flyer(PREFIX, name="ifly", time_array=None)
    taxi = EpicsSignal(f"{PREFIX}mytaxi", name="taxi")
    bare = EpicsSignal(BARE, name="bare")
    for device in (flyer, taxi, bare):
        device.wait_for_connection(timeout=TIMEOUT)
    samples: dict[str, list[float]] = {"kickoff()": [], "EpicsSignal.put": []}
    for _ in tqdm(range(kickoffs), desc="live", disable=None, leave=False):
        samples["kickoff()"].append(_timed(flyer.kickoff))
        taxi.put(0)  # a put-callback would be queued behind the flight
        flyer.complete().wait(TIMEOUT)
        samples["EpicsSignal.put"].append(_timed(partial(bare.put, 0, wait=False)))
    return samples


def _frozen(flyers: list[Flyer], puts: list[EpicsSignal]) -> dict[str, list[float]]:
    samples: dict[str, list[float]] = {"kickoff()": [], "EpicsSignal.put": []}
    for flyer, signal in zip(flyers, puts, strict=True):
        samples["kickoff()"].append(_timed(flyer.kickoff))
        samples["EpicsSignal.put"].append(_timed(partial(signal.put, 1, wait=False)))
    return samples


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _compare(ioc_is: str, samples: dict[str, list[float]]) -> bool:
    for name, values in samples.items():
        print(in_words(f"{name}, IOC {ioc_is}", values))
    kickoff, put = samples.values()
    kept = True
    for percent in PERCENTILES:
        ratio = percentile(kickoff, percent) / percentile(put, percent)
        kept &= hold(f"p{percent} of kickoff / put, IOC {ioc_is}", ratio, AT_MOST)
    return kept
