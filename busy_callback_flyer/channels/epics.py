"""What is EPICS' own and no control layer's: its epoch, its alarms in words."""

from __future__ import annotations

EPICS_EPOCH = 631152000.0
"""Stamp of a record that was never processed (1990-01-01), seconds of the POSIX epoch."""

LINK_ALARM = 14


def alarm_text(severity: int, status: int) -> str:
    """Say in words what the alarm is; empty where there is none."""
    if severity == 0:
        return ""
    return f"status {status}" + " (LINK: the controller may never have got it)" * (status == LINK_ALARM)
