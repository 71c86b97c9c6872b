"""What is EPICS' own and no control layer's: its alarms in words."""

from __future__ import annotations

from ..engine.ports import BUSY, Reading

LINK_ALARM = 14


def alarm_text(severity: int, status: int) -> str:
    """Say in words what the alarm is; empty where there is none."""
    if severity == 0:
        return ""
    return f"status {status}" + " (LINK: the controller may never have got it)" * (status == LINK_ALARM)


def why_not_taken(value: int, reading: Reading | None, refusal: str | None = None) -> str | None:
    """Say why a record did not take a value that was put, by a read behind the put; None where it took it."""
    if reading is None:
        return refusal or "no read behind it was answered, so nobody knows"
    if reading.value == value:
        return None
    says = "Busy" if reading.value == BUSY else str(reading.value)
    why = f"it refused the put ({refusal})" if refusal else "was the put refused (DISP, or access security)?"
    return f"the record still says {says}: {why}"
