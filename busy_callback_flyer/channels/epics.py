"""What is EPICS' own and no control layer's: its alarms in words."""

from __future__ import annotations

from ..engine.ports import BUSY, Reading

ALARMS = (
    *("NO_ALARM", "READ", "WRITE", "HIHI", "HIGH", "LOLO", "LOW", "STATE", "COS", "COMM", "TIMEOUT", "HWLIMIT"),
    *("CALC", "SCAN", "LINK", "SOFT", "BAD_SUB", "UDF", "DISABLE", "SIMM", "READ_ACCESS", "WRITE_ACCESS"),
)
"""Names of the alarm statuses (alarm.h)."""

LINK, DISABLE = ALARMS.index("LINK"), ALARMS.index("DISABLE")

_HINTS = {
    LINK: "the controller may never have got it",
    DISABLE: "the record is disabled, as DISA = DISV: nobody gets what is put to it",
}


def alarm_text(severity: int, status: int) -> str:
    """Say in words what the alarm is; empty where there is none. To be disabled may be one without any severity."""
    if severity == 0 and status != DISABLE:
        return ""
    name = ALARMS[status] if 0 <= status < len(ALARMS) else f"status {status}"
    return f"{name} ({_HINTS[status]})" if status in _HINTS else name


def why_not_taken(value: int, reading: Reading | None, refusal: str | None = None) -> str | None:
    """Say why a record did not take a value that was put, by a read behind the put; None where it took it."""
    if reading is None:
        return refusal or "no read behind it was answered, so nobody knows"
    if reading.value == value:
        return None
    says = "Busy" if reading.value == BUSY else str(reading.value)
    why = f"it refused the put ({refusal})" if refusal else "was the put refused (DISP, or access security)?"
    return f"the record still says {says}: {why}"
