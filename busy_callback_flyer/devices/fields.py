"""Fields of a record as components that need not be there: other records, and servers that are no IOC, have others."""

from __future__ import annotations

import copy
import time
from typing import Any

from ophyd import Component, Device, EpicsSignal, EpicsSignalRO, Signal

from ..channels.private_names import read_pv

__all__ = ["RecordField"]

FIELD_GRACE = 0.5
"""Seconds that a field may need to connect when its record has connected; then there is no such field."""


class RecordField(Component):
    """A field of the record that a Device stands for, where the record has it.

    Nothing waits for a field that is not there, and it is not read. Of a PV ``x.VAL`` it is a field of ``x``; a PV
    that is another field has none.

    Parameters
    ----------
    cls : type
        `EpicsSignal` or `EpicsSignalRO`.
    suffix : str
        The field, with its dot.
    value : str
        Component of the Device that is the record's value: the field is there soon after it, or not at all.
    **kwargs
        Of every Component.
    """

    def __init__(self, cls: type[Signal], suffix: str, *, value: str, **kwargs: Any) -> None:
        super().__init__(cls, suffix, **kwargs)
        self.value = value

    def maybe_add_prefix(self, instance: Device, kw: str, suffix: Any) -> Any:
        """The record's name comes before the field, be `VAL` given or not."""
        return instance.prefix.removesuffix(".VAL") + suffix if kw in self.add_prefix else suffix

    def create_component(self, instance: Device) -> Signal:
        """Make the signal."""
        stand_in = copy.copy(self)
        if "." in instance.prefix.removesuffix(".VAL"):
            stand_in.cls, stand_in.suffix, stand_in.kwargs = _NoField, None, {"value": None}
        else:
            stand_in.cls = _OPTIONAL.get(self.cls, self.cls)  # fake devices have classes of their own
        signal = Component.create_component(stand_in, instance)
        if isinstance(signal, _EpicsField):
            signal.follow(getattr(instance, self.value))
        return signal


class _Field:
    """A signal that reads nothing where the record has no such field."""

    @property
    def missing(self) -> bool:
        """Whether the record has no such field, as far as is known now."""
        return True

    def read(self) -> dict[str, Any]:
        """Its value, if there is one."""
        return super().read() if self._is_there() else {}  # type: ignore[misc]

    def describe(self) -> dict[str, Any]:
        """Describe what `read` reads."""
        return super().describe() if self._is_there() else {}  # type: ignore[misc]

    def _is_there(self) -> bool:
        """Whether there is such a field; waits, where that is not known yet."""
        return not self.missing


class _NoField(_Field, Signal):
    """Stands for a field that a PV cannot have."""


class _EpicsField(_Field):
    """A field that may be there: it counts as connected where the record is, and has none."""

    _since: float | None = None  # the record is connected

    def follow(self, record: Signal) -> None:
        """Learn from now on whether the record is connected."""
        record.subscribe(self._record_changed, event_type=record.SUB_META, run=False)
        self._record_changed(connected=record.connected)

    @property
    def missing(self) -> bool:
        """Whether the record has been connected for a while, and the field was never found."""
        since = self._since
        if since is None or time.monotonic() < since + FIELD_GRACE:
            return False
        return self.alarm_severity is None and not read_pv(self).connected  # type: ignore[attr-defined]

    @property
    def connected(self) -> bool:
        """Whether nothing is to be waited for."""
        return super().connected or self.missing  # type: ignore[misc]

    def _is_there(self) -> bool:
        try:
            self.wait_for_connection()  # type: ignore[attr-defined]
        except TimeoutError:
            if not self.missing:
                raise
        return not self.missing

    def _record_changed(self, connected: bool = True, **_: Any) -> None:
        if not connected:
            self._since = None
        elif self._since is None:
            self._since = time.monotonic()


class _FieldSignal(_EpicsField, EpicsSignal):
    pass


class _FieldSignalRO(_EpicsField, EpicsSignalRO):
    pass


_OPTIONAL: dict[type, type] = {EpicsSignal: _FieldSignal, EpicsSignalRO: _FieldSignalRO}
