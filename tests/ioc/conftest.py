"""An IOC without a controller, and clients of it in processes of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from busy_callback_flyer.ioc import EmbeddedIOC

from .client import RemoteClient

HERE = Path(__file__).parent


@pytest.fixture(scope="package")
def rows_ioc() -> Iterator[EmbeddedIOC]:
    """Serves the records of busy_rows.db, ``t:plain`` and so on. Nobody but the tests acts on them."""
    with EmbeddedIOC("t:", controller=False, databases=[HERE / "busy_rows.db"]) as ioc:
        yield ioc


@pytest.fixture(scope="package")
def client(rows_ioc: EmbeddedIOC) -> Iterator[RemoteClient]:
    client = RemoteClient(rows_ioc.client_environment)
    yield client
    client.close()


@pytest.fixture(scope="package")
def other_client(rows_ioc: EmbeddedIOC) -> Iterator[RemoteClient]:
    client = RemoteClient(rows_ioc.client_environment)
    yield client
    client.close()
