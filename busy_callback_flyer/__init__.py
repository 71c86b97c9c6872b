"""A bluesky flyer that subscribes to a synApps busy record instead of polling it.

What users import is here, loaded when it is first asked for: importing ophyd starts
Channel Access, which must not happen before its environment is set, nor ever in the
process of the embedded IOC.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .flight import FlightAborted, FlightError, FlightLost, FlightRefused, FlightTimeout
    from .flyer import BusyFlyer, make_flyer
    from .pages import CollectError, RaggedArrayError, StaleArrayError
    from .polling import PollingFlyer
    from .records import BusyRecord, BusyStatus, Waveform
    from .taxi import TaxiFlyer

logging.getLogger(__name__).addHandler(logging.NullHandler())  # silent unless somebody asks

__all__ = [
    "BusyFlyer",
    "BusyRecord",
    "BusyStatus",
    "CollectError",
    "FlightAborted",
    "FlightError",
    "FlightLost",
    "FlightRefused",
    "FlightTimeout",
    "PollingFlyer",
    "RaggedArrayError",
    "StaleArrayError",
    "TaxiFlyer",
    "Waveform",
    "make_flyer",
]

_ROOMS = {
    "flight": ("FlightAborted", "FlightError", "FlightLost", "FlightRefused", "FlightTimeout"),
    "flyer": ("BusyFlyer", "make_flyer"),
    "pages": ("CollectError", "RaggedArrayError", "StaleArrayError"),
    "polling": ("PollingFlyer",),
    "records": ("BusyRecord", "BusyStatus", "Waveform"),
    "taxi": ("TaxiFlyer",),
}
_HOMES = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        home = import_module(f".{_HOMES[name]}", __name__)
    except AttributeError as error:  # of which Python would say no more than that there is no such name
        raise ImportError(f"{name} cannot be imported from {__name__}: {error}") from error
    value = getattr(home, name)
    globals()[name] = value  # found without us from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
