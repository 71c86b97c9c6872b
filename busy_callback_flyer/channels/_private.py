"""Private names of ophyd and pyepics, each asked for in one place."""

from __future__ import annotations

from typing import Any

from ophyd import Signal


def read_pv(signal: Signal) -> Any:
    """The control layer's object that a signal is read by; None where it has none."""
    return getattr(signal, "_read_pv", None)


def reads_strings(signal: Signal) -> bool:
    """Whether the signal was made with ``string=True``."""
    return bool(getattr(signal, "_string", False))
