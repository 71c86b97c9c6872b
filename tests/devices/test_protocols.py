"""Flyers are what bluesky's protocols ask for: at run time, and for mypy."""

from __future__ import annotations

from typing import Any

import pytest
from bluesky.protocols import (
    Configurable,
    EventCollectable,
    EventPageCollectable,
    Flyable,
    HasHints,
    HasName,
    Pausable,
    Stageable,
    Status,
    Stoppable,
)

from busy_callback_flyer import BusyFlyer, PollingFlyer, make_flyer
from busy_callback_flyer.devices.status import FlightStatus

from ..conftest import PREFIX

KINDS = {
    "BusyFlyer": lambda: BusyFlyer(PREFIX, name="ifly"),
    "PollingFlyer": lambda: PollingFlyer(PREFIX, name="ifly"),
    "make_flyer": lambda: make_flyer("ifly", busy=f"{PREFIX}mybusy", arrays={}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "protocol", [Configurable, EventPageCollectable, Flyable, HasHints, HasName, Pausable, Stageable, Stoppable]
)
def test_at_run_time(kind: str, protocol: type) -> None:
    assert isinstance(KINDS[kind](), protocol)


@pytest.mark.parametrize("kind", KINDS)
def test_no_events_are_offered_beside_the_pages(kind: str) -> None:
    """The RunEngine would warn at every collect that it takes the pages."""
    assert not isinstance(KINDS[kind](), EventCollectable)


def test_what_the_verbs_return(direct_flyer: BusyFlyer) -> None:
    for status in (direct_flyer.kickoff(), direct_flyer.complete()):
        assert isinstance(status, Status)
        status.wait(timeout=20)


def for_mypy(flyer: BusyFlyer, status: FlightStatus) -> tuple[Any, ...]:
    """Never called: mypy looks at it, with the tests."""
    flyable: Flyable = flyer
    collectable: EventPageCollectable = flyer
    configurable: Configurable[Any] = flyer
    stageable: Stageable = flyer
    pausable: Pausable = flyer
    stoppable: Stoppable = flyer
    hints: HasHints = flyer
    status_: Status = status
    return flyable, collectable, configurable, stageable, pausable, stoppable, hints, status_
