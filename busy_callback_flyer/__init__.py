"""A bluesky flyer that subscribes to a synApps busy record instead of polling it.

What users import is here. It is loaded when it is first asked for: importing ophyd starts
Channel Access, which must not happen before its environment is set, nor ever in the
process of the embedded IOC.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .devices.flyer import BusyFlyer
    from .devices.make import make_flyer
    from .devices.polling import PollingFlyer
    from .devices.records import BusyRecord, BusyStatus, Waveform
    from .devices.status import FlightStatus
    from .devices.taxi import TaxiFlyer
    from .engine.errors import (
        CollectError,
        FlightAborted,
        FlightError,
        FlightLost,
        FlightRefused,
        FlightTimeout,
        RaggedArrayError,
        StaleArrayError,
    )
    from .engine.timeline import Timeline

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
    "FlightStatus",
    "FlightTimeout",
    "PollingFlyer",
    "RaggedArrayError",
    "StaleArrayError",
    "TaxiFlyer",
    "Timeline",
    "Waveform",
    "make_flyer",
]

_MODULES = {
    "BusyFlyer": "devices.flyer",
    "BusyRecord": "devices.records",
    "BusyStatus": "devices.records",
    "FlightStatus": "devices.status",
    "PollingFlyer": "devices.polling",
    "TaxiFlyer": "devices.taxi",
    "Timeline": "engine.timeline",
    "Waveform": "devices.records",
    "make_flyer": "devices.make",
}
"""Where they are; the errors are in ``engine.errors``."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f".{_MODULES.get(name, 'engine.errors')}", __name__)
    except AttributeError as error:  # of which Python would say no more than that there is no such name
        raise ImportError(f"{name} cannot be imported from {__name__}: {error}") from error
    value = getattr(module, name)
    globals()[name] = value  # found without us from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
