"""What comes over the bus is on disk until it is in Tiled. Behind a queue: test_queueserver."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from busy_callback_flyer.tools.tiled_server import TiledServer

from ..faults.interruptions import until
from .conftest import free_ports

# isort: split
import psutil

pytest.importorskip("bluesky_tiled_plugins", reason="of the extra `tiled`")
pytest.importorskip("zmq", reason="of the extra `queueserver`")
from bluesky.callbacks.zmq import Publisher
from bluesky_tiled_plugins import TiledWriter
from tiled.client import from_uri

from busy_callback_flyer.messages import pack, unpack_all
from busy_callback_flyer.queueserver import bus_to_tiled
from busy_callback_flyer.queueserver.bus_to_tiled import send, spool

pytestmark = pytest.mark.timeout(300)  # as in test_tiled
Documents = list[tuple[str, dict[str, Any]]]


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
    layout: str, tiled_server: TiledServer, tmp_path: Path, fly: Callable[..., Documents]
) -> None:
    documents = fly(points=9, layout=layout)
    assert take(tmp_path, documents[:-1]) == 0
    assert suffixes(tmp_path) == [".part"]
    tmp_path.joinpath(f"{documents[0][1]['uid']}.part").unlink()

    assert take(tmp_path, documents) == 1
    assert suffixes(tmp_path) == [".run"]
    send(tmp_path, tiled_server.uri)
    assert suffixes(tmp_path) == []
    run = from_uri(tiled_server.uri)[documents[0][1]["uid"]]
    (page,) = (doc for name, doc in documents if name == "event_page")
    for key, column in page["data"].items():
        np.testing.assert_array_equal(run["ifly"].read()[key], np.asarray(column), key)


def test_where_tiled_is_not_there_runs_wait(
    tiled_server: TiledServer, tmp_path: Path, fly: Callable[..., Documents], caplog: pytest.LogCaptureFixture
) -> None:
    documents = fly(points=9)
    take(tmp_path, documents)
    wrong_key = tiled_server.uri.split("=")[0] + "=wrong"
    for uri in (f"http://127.0.0.1:{free_ports(1)[0]}", wrong_key):
        caplog.clear()
        send(tmp_path, uri)
        assert suffixes(tmp_path) == [".run"]
        assert f"1 runs wait in {tmp_path}, as Tiled at {uri.split('?')[0]} cannot be had" in caplog.text
        assert "wrong" not in caplog.text, "no key in a log"
    send(tmp_path, tiled_server.uri)
    assert suffixes(tmp_path) == []


def test_a_run_that_is_there_already_is_not_written_twice(
    tiled_server: TiledServer, tmp_path: Path, fly: Callable[..., Documents], caplog: pytest.LogCaptureFixture
) -> None:
    documents = fly(points=9)
    for _ in range(2):
        take(tmp_path, documents)
        send(tmp_path, tiled_server.uri)
    assert suffixes(tmp_path) == []
    assert "does not take" not in caplog.text


def test_where_tiled_went_in_the_middle_of_a_run_it_gets_the_whole(
    tiled_server: TiledServer, tmp_path: Path, fly: Callable[..., Documents]
) -> None:
    documents = fly(points=9)
    write = TiledWriter(from_uri(tiled_server.uri))
    for name, doc in documents[:-1]:
        write(name, doc)
    take(tmp_path, documents)
    send(tmp_path, tiled_server.uri)
    assert suffixes(tmp_path) == []
    run = from_uri(tiled_server.uri)[documents[0][1]["uid"]]
    assert run.metadata["stop"]["exit_status"] == "success"
    assert len(run["ifly"].read()["ifly_xArr"]) == 9


def without(documents: Documents, *dropped: str) -> Documents:
    return [(name, doc) for name, doc in documents if name not in dropped]


def one_row_less(documents: Documents) -> Documents:
    """The bus has dropped one of several pages."""
    (page,) = (doc for name, doc in documents if name == "event_page")
    shorter = {
        **page,
        **{key: page[key][:-1] for key in ("uid", "time", "seq_num")},
        "data": {key: column[:-1] for key, column in page["data"].items()},
        "timestamps": {key: column[:-1] for key, column in page["timestamps"].items()},
    }
    return [(name, shorter if name == "event_page" else doc) for name, doc in documents]


def one_row_twice(documents: Documents) -> Documents:
    """As many as there were, but not all of them."""
    (page,) = (doc for name, doc in documents if name == "event_page")
    twice = {**page, "seq_num": [*page["seq_num"][:-1], page["seq_num"][0]]}
    return [(name, twice if name == "event_page" else doc) for name, doc in documents]


def uncounted(documents: Documents) -> Documents:
    *others, (name, stop) = documents
    return [*others, (name, {key: value for key, value in stop.items() if key != "num_events"})]


def referring(documents: Documents) -> Documents:
    """A column in a file of its own, of which nothing was heard."""
    heard: Documents = []
    for name, doc in documents:
        if name == "descriptor":
            keys = {**doc["data_keys"]}
            keys["ifly_yArr"] = {**keys["ifly_yArr"], "external": "FILESTORE:"}
            heard.append((name, {**doc, "data_keys": keys}))
        elif name == "event_page":
            count = len(doc["seq_num"])
            data = {**doc["data"], "ifly_yArr": [f"datum/{number}" for number in range(count)]}
            heard.append((name, {**doc, "data": data}))
        else:
            heard.append((name, doc))
    return heard


@pytest.mark.parametrize(
    ("lacking", "says"),
    [
        (lambda documents: without(documents, "event_page"), "of 9 events in ifly, 0 were heard"),
        (lambda documents: without(documents, "descriptor", "event_page"), "the descriptor of ifly was not heard"),
        (one_row_less, "of 9 events in ifly, 8 were heard"),
        (one_row_twice, "of 9 events in ifly, 8 were heard"),
        (uncounted, "does not say how many events there were"),
        (referring, "what datum/0 in ifly_yArr refers to was not heard"),
    ],
    ids=["no events", "no descriptor", "one row less", "one row twice", "uncounted", "no datum"],
)
def test_a_run_in_tiled_is_not_replaced_by_one_of_which_not_all_was_heard(
    lacking: Callable[[Documents], Documents],
    says: str,
    tiled_server: TiledServer,
    tmp_path: Path,
    fly: Callable[..., Documents],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Somebody else is writing it: a RunEngine with a TiledWriter of its own, say."""
    documents = fly(points=9)
    uid = documents[0][1]["uid"]
    write = TiledWriter(from_uri(tiled_server.uri), batch_size=1)
    for name, doc in documents[:-1]:
        write(name, doc)
    take(tmp_path, lacking(documents))
    send(tmp_path, tiled_server.uri)
    assert suffixes(tmp_path) == [".refused"]
    assert says in caplog.text
    assert f"run {uid} is in Tiled without its end" in caplog.text
    write(*documents[-1])
    assert len(from_uri(tiled_server.uri)[uid]["ifly"].read()["ifly_xArr"]) == 9


def test_runs_that_never_end_keep_no_file_open(tmp_path: Path, fly: Callable[..., Documents]) -> None:
    documents = fly(points=9)
    before = open_files()
    consume = spool(tmp_path, lambda: None)
    for number in range(20):
        consume("start", {**documents[0][1], "uid": f"run {number}"})
        descriptor = {**documents[1][1], "uid": f"descriptor {number}", "run_start": f"run {number}"}
        consume("descriptor", descriptor)
    assert open_files() == before
    assert suffixes(tmp_path) == [".part"] * 20
    consume("stop", {**documents[-1][1], "run_start": "run 7"})
    with (tmp_path / "run 7.run").open("rb") as file:
        assert [name for name, _ in unpack_all(file)] == ["start", "descriptor", "stop"]


def open_files() -> list[str]:
    return sorted(opened.path for opened in psutil.Process().open_files())


def test_the_end_of_a_run_whose_beginning_an_earlier_process_heard_makes_no_run_of_it(
    tmp_path: Path, fly: Callable[..., Documents], caplog: pytest.LogCaptureFixture
) -> None:
    documents = fly(points=9)
    take(tmp_path, documents[:2])
    assert take(tmp_path, documents[2:]) == 0
    assert suffixes(tmp_path) == [".part"]
    assert "stop goes nowhere" in caplog.text


@pytest.mark.parametrize("length", [0, -3])
def test_a_file_that_is_cut_short_is_kept_and_the_next_one_goes_on(
    length: int,
    tiled_server: TiledServer,
    tmp_path: Path,
    fly: Callable[..., Documents],
    caplog: pytest.LogCaptureFixture,
) -> None:
    take(tmp_path, fly(points=9))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:length])
    second = fly(points=9)
    take(tmp_path, second)
    send(tmp_path, tiled_server.uri)
    assert suffixes(tmp_path) == [".refused"]
    assert f"Tiled does not take {file.with_suffix('.refused')}" in caplog.text
    assert file.stem not in from_uri(tiled_server.uri)
    assert second[0][1]["uid"] in from_uri(tiled_server.uri)


def test_what_the_bus_has_dropped_is_told(
    tiled_server: TiledServer, tmp_path: Path, fly: Callable[..., Documents], caplog: pytest.LogCaptureFixture
) -> None:
    documents = fly(points=9)
    take(tmp_path, [(name, doc) for name, doc in documents if name != "event_page"])
    send(tmp_path, tiled_server.uri)
    assert f"run {documents[0][1]['uid']}: of 9 events in ifly, 0 were heard" in caplog.text


def test_the_middle_of_a_run_and_its_beginning_are_told(
    tmp_path: Path, fly: Callable[..., Documents], caplog: pytest.LogCaptureFixture
) -> None:
    documents = fly(points=9)
    assert take(tmp_path, documents[1:]) == 0
    for name in ("descriptor", "event_page", "stop"):
        assert f"{name} goes nowhere" in caplog.text
    assert suffixes(tmp_path) == []
    take(tmp_path, documents[:2])
    spool(tmp_path, lambda: None)
    assert f"{documents[0][1]['uid']}.part is the beginning of a run" in caplog.text


@pytest.mark.parametrize("uid", ["../outside", "/outside", ""])
def test_a_run_is_kept_in_the_folder(uid: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no uid"):
        spool(tmp_path, lambda: None)("start", {"uid": uid, "time": 0.0})


def test_the_process_files_what_it_heard_before_tiled_was_there(
    proxy: tuple[str, str], tiled_server: TiledServer, tmp_path: Path, fly: Callable[..., Documents]
) -> None:
    documents = fly(points=9)
    uid = documents[0][1]["uid"]
    tiled, key = tiled_server.uri.split("?api_key=")
    publish = Publisher(proxy[0], serializer=pack)
    with listening(proxy[1], f"http://127.0.0.1:{free_ports(1)[0]}", tmp_path):
        while not (tmp_path / "hello.part").exists():  # who joins a proxy hears what is said from some moment on
            publish("start", {"uid": "hello", "time": 0.0})
            time.sleep(0.1)
        for name, doc in documents:
            publish(name, doc)
        until((tmp_path / f"{uid}.run").exists)
    publish.close()
    with listening(proxy[1], tiled, tmp_path, TILED_API_KEY=key):
        until(lambda: not (tmp_path / f"{uid}.run").exists(), 60)
    assert len(from_uri(tiled_server.uri)[uid]["ifly"].read()["ifly_xArr"]) == 9


@contextmanager
def listening(bus: str, tiled: str, folder: Path, **environment: str) -> Iterator[None]:
    command = [sys.executable, "-m", bus_to_tiled.__name__, bus, tiled, "--folder", str(folder)]
    with subprocess.Popen(command, env=os.environ | environment) as process:
        try:
            yield
        finally:
            process.kill()
