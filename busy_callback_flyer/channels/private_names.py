"""Private names of ophyd and pyepics, each asked for in one place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ophyd import Device, Kind, Signal
from ophyd.device import Staged
from ophyd.signal import EpicsSignalBase

# isort: split
from epics import ca


def library_file() -> str:
    """Path of the libca that pyepics loaded; AttributeError where it does not tell."""
    name: str = ca.libca._name
    return name


def read_pv(signal: Signal | None) -> Any:
    """The control layer's object that a signal is read by; None where it has none."""
    return getattr(signal, "_read_pv", None)


def reads_strings(signal: Signal) -> bool:
    """Whether the signal was made with ``string=True``."""
    return bool(getattr(signal, "_string", False))


@contextmanager
def asked_afresh(signal: EpicsSignalBase) -> Iterator[None]:
    """Let the signal's own ``get`` ask the PV meanwhile, though it is monitored."""
    monitored = bool(signal._auto_monitor) and bool(signal._monitors[signal.pvname])  # else it may be about to begin
    if monitored:
        signal._auto_monitor = False
    try:
        yield
    finally:
        if monitored:
            signal._auto_monitor = True


def is_staged(device: Device) -> bool:
    """Whether it is staged, or about to be."""
    return device._staged is not Staged.no


def component_kind(device: Device, attr: str) -> Kind:
    """Kind of one of its components, without making it where it is lazy."""
    kind: Kind = device._get_kind(attr)
    return kind


def copy_kinds(source: Device, target: Device) -> None:
    """Give the components of a device the kinds that those of another one have; what is lazy is not made."""
    for attr in source.component_names:
        target._set_kind(attr, source._get_kind(attr))
        if attr in source._signals and attr in target._signals and isinstance(source._signals[attr], Device):
            copy_kinds(source._signals[attr], target._signals[attr])


def arguments(device: Device) -> dict[str, Any]:
    """Keyword arguments of another one like it."""
    return dict(device._repr_info())


def subscribers(device: Device, event: str) -> list[int]:
    """Tokens of those who are subscribed to an event now."""
    return list(device._callbacks[event])


def tell(device: Device, event: str, tokens: Iterable[int], details: Mapping[str, Any]) -> None:
    """Call these subscribers, but those who have unsubscribed since."""
    for token in tokens:
        callback = device._callbacks[event].get(token)
        if callback is not None:
            callback(**details)
