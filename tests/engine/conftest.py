"""What tests of the engine share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from busy_callback_flyer.engine.worker import Worker

TIMEOUT = 20.0


@pytest.fixture
def teller() -> Iterator[Worker]:
    worker = Worker("teller")
    yield worker
    worker.stop(TIMEOUT)
