"""How stamps are said."""

from __future__ import annotations

import re
from datetime import datetime

import pytest

from busy_callback_flyer.engine.timeline import dated


def test_a_stamp_is_said_as_a_local_date_to_the_microsecond() -> None:
    said = dated(1_795_600_000.25)
    assert re.fullmatch(r"2026-11-2\d \d\d:\d\d:\d\d\.250000[+-]\d\d:\d\d", said)
    assert datetime.fromisoformat(said).timestamp() == 1_795_600_000.25


@pytest.mark.parametrize("stamp", [float("nan"), float("inf"), 1e20, -1e18])
def test_a_stamp_that_is_no_date_is_said_as_a_number(stamp: float) -> None:
    assert dated(stamp) == f"{stamp:.6f}"
