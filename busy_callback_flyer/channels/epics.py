"""What is EPICS' own and no control layer's: its epoch, its alarms in words, its texts."""

from __future__ import annotations

EPICS_EPOCH = 631152000.0
"""Stamp of a record that was never processed (1990-01-01), seconds of the POSIX epoch."""

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


def decoded(text: bytes) -> str:
    """Decode what a record holds, such as units: UTF-8, else Latin-1."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")
