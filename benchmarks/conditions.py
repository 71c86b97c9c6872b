"""What else goes on in the client's process while it waits, and in the IOC to make it so."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from busy_callback_flyer.tools.ways import CONNECT_TIMEOUT, Way

STORM = 1000
"""PVs that change ten times a second each."""

ELEMENTS = 1_000_000
"""Of 8 bytes, ten times a second."""

SLOW = 0.05
"""Seconds that a slow callback takes for each event, which come ten times a second."""

SHORT_SWITCH = 0.0005
"""Seconds of the interpreter's switch interval, instead of 0.005."""


def records(prefix: str) -> str:
    """Those that the conditions need; they rest until `Condition.of_ioc`."""
    counters = [f"{prefix}tick", *_storm(prefix)]
    return "".join(
        f'record(calc, "{name}") {{ field(INPA, "{name}.VAL") field(CALC, "A+1") }}\n' for name in counters
    ) + (
        f'record(waveform, "{prefix}wave") {{ field(FTVL, "DOUBLE") field(NELM, "{ELEMENTS}") '
        'field(MPST, "Always") field(APST, "Always") }\n'
    )


def _storm(prefix: str) -> list[str]:
    return [f"{prefix}storm{number}" for number in range(STORM)]


@dataclass(frozen=True)
class Condition:
    """What the IOC has to do for it, and the client."""

    of_client: Callable[[Way, str], Any] = lambda way, prefix: None
    """Takes the way of waiting and the prefix of the records."""
    scanned: Callable[[str], list[str]] = lambda prefix: []
    """Records that the IOC processes ten times a second meanwhile."""

    @contextmanager
    def of_ioc(self, prefix: str) -> Iterator[None]:
        """While its records are processed."""
        import ophyd  # noqa: F401 - before epics: it chooses the libca that pyepics loads

        # isort: split
        import epics

        names = [f"{name}.SCAN" for name in self.scanned(prefix)]
        if f"{prefix}wave.SCAN" in names:
            epics.caput(f"{prefix}wave", np.zeros(ELEMENTS), wait=True, timeout=30)
        _put_all(epics, names, ".1 second")
        try:
            yield
        finally:
            _put_all(epics, names, "Passive")


def _put_all(epics: Any, names: list[str], value: str) -> None:
    if names:
        epics.caput_many(names, [value] * len(names), wait="all")


def monitor_by_pyepics(pvs: Sequence[str], hears: Callable[[], None]) -> None:
    """The load that is the same in every Python way's process: pyepics, as a profile has it."""
    if "epics" not in sys.modules:  # ophyd is there without its control layer
        import epicscorelibs.path.pyepics  # noqa: F401 - the libca that ophyd chooses
    import epics

    channels = [epics.get_pv(pv, callback=lambda **_: hears(), auto_monitor=True) for pv in pvs]
    if not all(channel.wait_for_connection(timeout=CONNECT_TIMEOUT) for channel in channels):
        raise TimeoutError(f"the load's {len(pvs)} PVs did not connect within {CONNECT_TIMEOUT:g} s each")


def hold_gil(*_: object) -> None:
    """A thread that computes, in Python, without end."""

    def compute() -> None:
        while True:
            sum(number * number for number in range(1000))

    threading.Thread(target=compute, daemon=True).start()


def hold_gil_shortly(*_: object) -> None:
    """The same, asked to let others run ten times as often."""
    sys.setswitchinterval(SHORT_SWITCH)
    hold_gil()


CONDITIONS = {
    "quiet": Condition(),
    "a thread holds the GIL": Condition(hold_gil),
    "the same, switch interval 0.5 ms": Condition(hold_gil_shortly),
    "slow subscriber": Condition(
        lambda way, prefix: way.monitor([f"{prefix}tick"], lambda: time.sleep(SLOW)), lambda prefix: [f"{prefix}tick"]
    ),
    "a pyepics callback sleeps": Condition(
        lambda way, prefix: monitor_by_pyepics([f"{prefix}tick"], lambda: time.sleep(SLOW)),
        lambda prefix: [f"{prefix}tick"],
    ),
    "monitor storm": Condition(lambda way, prefix: monitor_by_pyepics(_storm(prefix), lambda: None), _storm),
    "8 MB arrays": Condition(
        lambda way, prefix: monitor_by_pyepics([f"{prefix}wave"], lambda: None), lambda prefix: [f"{prefix}wave"]
    ),
}
"""The slow subscriber is one of the way's own library, the last three are pyepics' in every process."""
