"""Flights in Tiled: a real server in a process of its own, over HTTP."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.utils import MsgGenerator

from busy_callback_flyer import BusyFlyer
from busy_callback_flyer.callbacks import PointTimes
from busy_callback_flyer.plans import fly, recover
from busy_callback_flyer.tools.tiled_server import TiledServer

from ..faults.interruptions import until
from ..tools.test_cli import run

# isort: split
import psutil

pytest.importorskip("bluesky_tiled_plugins", reason="of the extra `tiled`")
from bluesky_tiled_plugins import TiledWriter
from tiled.client import from_uri

pytestmark = pytest.mark.timeout(300)  # a server needs 10 s to start, on a machine with little else to do
POINTS = 51
Documents = list[tuple[str, dict[str, Any]]]


def subscribe(run_engine: RunEngine, server: TiledServer) -> Any:
    """A writer with the points' own times; returns the client."""
    client = from_uri(server.uri)
    run_engine.subscribe(PointTimes(TiledWriter(client), "ifly_xArr"))
    return client


def run_of(run_engine: RunEngine, plan: MsgGenerator[Any]) -> str:
    """Run it; the uid of its one run."""
    (uid,) = cast(tuple[str], run_engine(plan))
    return uid


def check_rows(stream: Any, documents: Documents) -> None:
    """Hold a stream against the one page that was collected."""
    (page,) = (doc for name, doc in documents if name == "event_page")
    table = stream.read()
    for key, column in page["data"].items():
        np.testing.assert_array_equal(table[key], np.asarray(column), key)
        np.testing.assert_array_equal(stream[f"ts_{key}"].read(), page["timestamps"][key], key)
    np.testing.assert_array_equal(table["time"], page["timestamps"]["ifly_xArr"])


def test_a_server_listens_on_loopback_and_nobody_comes_in_without_its_key(tiled_server: TiledServer) -> None:
    listening = [one for one in psutil.Process(tiled_server.pid).net_connections() if one.status == psutil.CONN_LISTEN]
    assert {one.laddr.ip for one in listening} == {"127.0.0.1"}
    with pytest.raises(Exception, match="requires API key"):
        from_uri(tiled_server.uri.split("?")[0])


def test_a_server_imports_nothing_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "copy.py").write_text("raise SystemExit('hidden')")
    monkeypatch.chdir(tmp_path)
    with TiledServer() as server:
        assert len(from_uri(server.uri)) == 0


@pytest.mark.parametrize("layout", ["rows", "array"])
def test_what_is_written_is_read_back(
    layout: str,
    tiled_server: TiledServer,
    make_flyer: Callable[..., BusyFlyer],
    controller: Callable[..., None],
    run_engine: RunEngine,
    documents: Documents,
) -> None:
    client = subscribe(run_engine, tiled_server)
    controller(npts=POINTS, duration=0.2)
    uid = run_of(run_engine, fly([make_flyer(layout=layout)]))
    check_rows(client[uid]["ifly"], documents)
    if layout == "rows":
        assert np.ptp(client[uid]["ifly"].read()["time"].values) == pytest.approx(0.2)


def test_a_server_that_dies_in_flight_does_not_lose_it(
    tmp_path: Path,
    make_flyer: Callable[..., BusyFlyer],
    controller: Callable[..., None],
    run_engine: RunEngine,
    documents: Documents,
) -> None:
    controller(npts=POINTS, duration=2.0)
    flyer = make_flyer()
    with TiledServer(tmp_path) as server:
        subscribe(run_engine, server)
        flyer.subscribe(lambda **_: server.kill(), flyer.SUB_FLIGHT_BUSY, run=False)
        with pytest.raises(Exception, match=r"refused|disconnected|reset"):
            run_engine(fly([flyer]))
    assert "finished" in flyer.timeline
    (start,) = (doc for name, doc in documents if name == "start")

    run_engine.dispatcher.unsubscribe_all()
    run_engine.subscribe(lambda name, doc: documents.append((name, doc)))
    with TiledServer(tmp_path) as server:
        client = subscribe(run_engine, server)
        uid = run_of(run_engine, recover(flyer))
        check_rows(client[uid]["ifly"], documents)
        assert client[uid].metadata["start"]["recovers"] == start["uid"]


def test_a_server_that_is_frozen_delays_no_flight(
    tiled_server: TiledServer,
    make_flyer: Callable[..., BusyFlyer],
    controller: Callable[..., None],
    run_engine: RunEngine,
    documents: Documents,
) -> None:
    """The flight is finished and its arrays are in hand while the RunEngine waits for the server."""
    client = subscribe(run_engine, tiled_server)
    controller(npts=POINTS, duration=1.0)
    flyer, process = make_flyer(), psutil.Process(tiled_server.pid)
    in_hand: list[bool] = []

    def begun(**_: Any) -> None:
        process.suspend()
        in_hand.append("arrays" in flyer.timeline)

    def done(**_: Any) -> None:
        try:
            until(lambda: "arrays" in flyer.timeline)
            in_hand.append(process.status() == psutil.STATUS_STOPPED)
        finally:
            process.resume()

    flyer.subscribe(begun, flyer.SUB_FLIGHT_BUSY, run=False)
    flyer.subscribe(done, flyer.SUB_FLIGHT_DONE, run=False)
    try:
        uid = run_of(run_engine, fly([flyer]))
    finally:
        process.resume()
    assert in_hand == [False, True], "frozen before the arrays came, and when they were there"
    check_rows(client[uid]["ifly"], documents)


def test_the_demo_writes_there(tmp_path: Path) -> None:
    flight = ("--flights=1", "--points=7", "--duration=0.1")
    done = run("demo", "--tiled", *flight, cwd=tmp_path, stdin=subprocess.DEVNULL, timeout=100.0)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Tiled has 2 runs. The first, read back, has its 7 points, at their own times:" in done.stdout
    assert re.search(r"http://127\.0\.0\.1:\d+/ui/browse/[-0-9a-f]+\?api_key=\w+", done.stdout)
