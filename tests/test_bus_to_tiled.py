"""What comes over the bus is on disk until it is in Tiled; the process itself runs in test_queueserver."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import numpy as np
import pytest
from bluesky import RunEngine

from busy_callback_flyer import BusyFlyer
from busy_callback_flyer.tiled_server import TiledServer

from .conftest import free_ports

pytest.importorskip("bluesky_tiled_plugins", reason="of the extra `tiled`")
pytest.importorskip("zmq", reason="of the extra `queueserver`")
from tiled.client import from_uri

from busy_callback_flyer.queueserver.bus_to_tiled import send, spool

pytestmark = pytest.mark.timeout(300)  # as in test_tiled
Documents = list[tuple[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TiledServer]:
    with TiledServer(tmp_path_factory.mktemp("tiled")) as server:
        yield server


@pytest.fixture
def flown(
    make_flyer: Callable[..., BusyFlyer],
    controller: Callable[..., None],
    run_engine: RunEngine,
    documents: Documents,
) -> Callable[..., Documents]:
    """Flies once; the documents."""

    def fly_once(**options: Any) -> Documents:
        documents.clear()
        controller(npts=9)
        run_engine(bp.fly([make_flyer(**options)]))
        return list(documents)

    return fly_once


def suffixes(folder: Path) -> list[str]:
    return sorted(file.suffix for file in folder.iterdir())


def take(folder: Path, documents: Documents) -> int:
    """How often a run was complete."""
    complete: list[None] = []
    consume = spool(folder, lambda: complete.append(None))
    for name, doc in documents:
        consume(name, doc)
    return len(complete)


@pytest.mark.parametrize("layout", ["rows", "array"])
def test_a_run_is_on_disk_until_it_is_in_tiled(
    layout: str, server: TiledServer, tmp_path: Path, flown: Callable[..., Documents]
) -> None:
    documents = flown(layout=layout)
    assert take(tmp_path, documents[:-1]) == 0
    assert suffixes(tmp_path) == [".part"]
    tmp_path.joinpath(f"{documents[0][1]['uid']}.part").unlink()

    assert take(tmp_path, documents) == 1
    assert suffixes(tmp_path) == [".run"]
    send(tmp_path, server.uri)
    assert suffixes(tmp_path) == []
    run = from_uri(server.uri)[documents[0][1]["uid"]]
    (page,) = (doc for name, doc in documents if name == "event_page")
    for key, column in page["data"].items():
        np.testing.assert_array_equal(run["ifly"].read()[key], np.asarray(column), key)


def test_where_tiled_is_not_there_runs_wait(
    server: TiledServer, tmp_path: Path, flown: Callable[..., Documents], caplog: pytest.LogCaptureFixture
) -> None:
    documents = flown()
    take(tmp_path, documents)
    wrong_key = server.uri.split("=")[0] + "=wrong"
    for address in (f"http://127.0.0.1:{free_ports(1)[0]}", wrong_key):
        caplog.clear()
        send(tmp_path, address)
        assert suffixes(tmp_path) == [".run"]
        assert f"1 runs wait in {tmp_path}, as Tiled at {address} cannot be had" in caplog.text
    send(tmp_path, server.uri)
    assert suffixes(tmp_path) == []


def test_a_run_that_is_there_already_is_not_written_twice(
    server: TiledServer, tmp_path: Path, flown: Callable[..., Documents], caplog: pytest.LogCaptureFixture
) -> None:
    documents = flown()
    for _ in range(2):
        take(tmp_path, documents)
        send(tmp_path, server.uri)
    assert suffixes(tmp_path) == []
    assert "does not take" not in caplog.text


def test_what_tiled_refuses_is_kept_and_the_next_one_goes_on(
    server: TiledServer, tmp_path: Path, flown: Callable[..., Documents], caplog: pytest.LogCaptureFixture
) -> None:
    first, second = flown(), flown()
    half = first[:2]
    take(tmp_path, [*half, first[-1]])
    (file,) = tmp_path.iterdir()
    from bluesky_tiled_plugins import TiledWriter

    write = TiledWriter(from_uri(server.uri))
    for name, doc in half:
        write(name, doc)  # and here it died
    take(tmp_path, second)
    send(tmp_path, server.uri)
    assert suffixes(tmp_path) == [".refused"]
    assert f"Tiled does not take {file.with_suffix('.refused')}" in caplog.text
    assert second[0][1]["uid"] in from_uri(server.uri)


def test_the_middle_of_a_run_and_its_beginning_are_told(
    tmp_path: Path, flown: Callable[..., Documents], caplog: pytest.LogCaptureFixture
) -> None:
    documents = flown()
    assert take(tmp_path, documents[1:]) == 0
    assert "event_page of a run whose start was not heard" in caplog.text
    take(tmp_path, documents[:2])
    with caplog.at_level(logging.WARNING):
        spool(tmp_path, lambda: None)
    assert f"{documents[0][1]['uid']}.part is the beginning of a run" in caplog.text
