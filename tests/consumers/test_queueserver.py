"""Flights from a queue: each part of it the real one, in a process and at an address of its own.

The IOC; Redis and the queue server's manager, with the startup directory that the package brings; bluesky's 0MQ proxy;
what listens there and writes to Tiled; and Tiled.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import epics
import numpy as np
import psutil
import pytest

import busy_callback_flyer
from busy_callback_flyer.tools.tiled_server import TiledServer

from ..conftest import PREFIX, look
from ..faults.interruptions import until
from .conftest import free_ports, proxy_command

pytest.importorskip("bluesky_queueserver", reason="of the extra `queueserver`")
pytest.importorskip("bluesky_tiled_plugins", reason="of the extra `tiled`")
from bluesky_queueserver_api import BPlan
from bluesky_queueserver_api.comm_base import RequestFailedError
from bluesky_queueserver_api.zmq import REManagerAPI
from tiled.client import from_uri

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server here; Debian's package has one"),
]
EXAMPLE = Path(busy_callback_flyer.__file__).with_name("queueserver")
SCRIPTS = Path(sys.executable).parent
TIMEOUT = 60


class Site(NamedTuple):
    """What a user of the queue has in hand."""

    queue: Any
    runs: Any
    processes: list[psutil.Process]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    here = tmp_path_factory.mktemp("site") / "queueserver"
    shutil.copytree(EXAMPLE, here)
    redis, control, info, publish, listen = (f"127.0.0.1:{port}" for port in free_ports(5))
    with ExitStack() as stack:
        tiled = stack.enter_context(TiledServer(here / "tiled"))
        processes = [psutil.Process(tiled.pid)]

        def start(*command: object, **environment: str) -> None:
            log = stack.enter_context(here.joinpath(f"{len(processes)}.log").open("w"))
            process = stack.enter_context(
                subprocess.Popen(
                    [str(word) for word in command],
                    cwd=here,
                    env=os.environ | environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
            processes.append(psutil.Process(process.pid))
            stack.callback(end_with_children, processes[-1])

        start("redis-server", "--bind", "127.0.0.1", "--port", redis.split(":")[1], "--save", "")
        start(*proxy_command(publish, listen))
        address, key = tiled.uri.split("?api_key=")
        start(
            *(sys.executable, "-m", "busy_callback_flyer.queueserver.bus_to_tiled", listen, address),
            TILED_API_KEY=key,
        )
        start(
            *(SCRIPTS / "start-re-manager", "--config", "config.yml", "--redis-addr", redis),
            *("--zmq-control-addr", f"tcp://{control}", "--zmq-info-addr", f"tcp://{info}"),
            BLUESKY_0MQ_IN=publish,
        )
        queue = REManagerAPI(zmq_control_addr=f"tcp://{control}", zmq_info_addr=f"tcp://{info}")
        stack.callback(queue.close)
        until(lambda: answers(queue), TIMEOUT)
        queue.environment_open()
        queue.wait_for_idle(timeout=TIMEOUT)
        site = Site(queue, from_uri(tiled.uri), processes)
        while not len(site.runs):  # who joins a 0MQ proxy hears what is said from some moment on
            assert all(process.status() != psutil.STATUS_ZOMBIE for process in processes)
            run_plan(site, BPlan("line", points=1, seconds=0.1))
        yield site
        queue.environment_close()
        queue.wait_for_idle(timeout=TIMEOUT)
        queue.send_request(method="manager_stop")


def end_with_children(process: psutil.Process) -> None:
    """The manager's own are left alone where it is ended by a signal."""
    if process.is_running():
        children = process.children(recursive=True)
        process.terminate()
        _, left = psutil.wait_procs(children, timeout=5)
        for child in left:
            child.kill()


def answers(queue: Any) -> bool:
    try:
        queue.ping()
    except queue.RequestTimeoutError:
        return False
    return True


def run_plan(site: Site, plan: BPlan) -> dict[str, Any]:
    """Put it into the queue and see it through; what the history says of it."""
    begin(site, plan)
    return end(site)


def begin(site: Site, plan: BPlan) -> None:
    site.queue.item_add(plan)
    site.queue.queue_start()


def end(site: Site) -> dict[str, Any]:
    """What the history says of the plan, once nothing runs; one that was interrupted does not stay in the queue."""
    site.queue.wait_for_idle(timeout=TIMEOUT)
    site.queue.queue_clear()
    result: dict[str, Any] = site.queue.history_get()["items"][-1]["result"]
    return result


def filed(site: Site, result: dict[str, Any]) -> Any:
    """The one run of a plan, once Tiled has the end of it."""
    (uid,) = result["run_uids"]
    until(lambda: uid in site.runs and site.runs[uid].metadata.get("stop"), TIMEOUT)
    return site.runs[uid]


def positions(run: Any) -> list[float]:
    """Of all its rows."""
    columns = run["ifly"].read() if "ifly" in run else {}
    return list(np.asarray(columns.get("ifly_xArr", [])))


def line(points: int) -> list[float]:
    """Positions of the plan `line`, and of the controller as it is set by default."""
    return list(np.linspace(-5, 5, points))


def test_every_part_listens_on_loopback_alone(site: Site) -> None:
    processes = [one for process in site.processes for one in (process, *process.children(recursive=True))]
    listening = {
        one.laddr.ip for process in processes for one in process.net_connections() if one.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


def test_the_queue_offers_the_flyer_and_the_plans_and_nothing_else(site: Site) -> None:
    (name, flyer), *others = site.queue.devices_allowed()["devices_allowed"].items()
    assert (name, flyer["is_flyable"], others) == ("ifly", True, [])
    assert set(site.queue.plans_allowed()["plans_allowed"]) == {"fly", "line", "recover"}
    with pytest.raises(RequestFailedError, match="not in the list of allowed plans"):
        site.queue.item_add(BPlan("count", ["ifly"]))


@pytest.mark.parametrize("flyers", ["ifly", ["ifly"]])
def test_a_flight_from_the_queue_is_in_tiled(site: Site, flyers: Any, controller: Callable[..., None]) -> None:
    controller(npts=21, duration=0.2, start=1, stop=2)
    result = run_plan(site, BPlan("fly", flyers, md={"sample": "gold"}))
    assert result["exit_status"] == "completed"
    run = filed(site, result)
    assert run.metadata["start"]["sample"] == "gold"
    table = run["ifly"].read()
    assert list(table["ifly_xArr"]) == list(np.linspace(1, 2, 21))
    assert list(table["ifly_yArr"]) == list(epics.caget(f"{PREFIX}y_array"))
    assert np.ptp(table["time"].values) == pytest.approx(0.2), "each point's own"


def test_what_goes_wrong_is_told_and_the_next_flight_flies(site: Site, controller: Callable[..., None]) -> None:
    controller(fault=4)  # the arrays stay as they are
    result = run_plan(site, BPlan("fly", "ifly"))
    assert result["exit_status"] == "failed"
    assert "StaleArrayError" in result["traceback"]
    assert positions(filed(site, result)) == []
    controller(npts=4)
    again = run_plan(site, BPlan("fly", "ifly"))
    assert positions(filed(site, again)) == line(4)
    recovered = filed(site, run_plan(site, BPlan("recover", "ifly")))
    assert recovered.metadata["start"]["recovers"] == again["run_uids"][0]
    assert positions(recovered) == line(4)


@pytest.mark.parametrize(
    ("verb", "status"), [("resume", "completed"), ("abort", "aborted"), ("stop", "stopped"), ("halt", "halted")]
)
def test_interrupted_in_flight(site: Site, verb: str, status: str, controller: Callable[..., None]) -> None:
    """After a good flight, whose rows are in no other run."""
    good = filed(site, run_plan(site, BPlan("line", points=5, seconds=0.1)))
    controller(fault=1)  # never Done
    begin(site, BPlan("line", points=7, seconds=0.1))
    until(lambda: len(epics.caget(f"{PREFIX}x_array")) == 7)
    assert busy() == 1
    site.queue.re_pause(option="immediate")
    site.queue.wait_for_idle_or_paused(timeout=TIMEOUT)
    assert site.queue.status(reload=True)["manager_state"] == "paused"
    getattr(site.queue, f"re_{verb}")()
    if verb == "resume":
        site.queue.wait_for_idle_or_running(timeout=TIMEOUT)
        epics.caput(f"{PREFIX}mybusy", 0)
    result = end(site)
    assert busy() == 0
    assert result["exit_status"] == status
    assert positions(filed(site, result)) == (line(7) if verb == "resume" else [])
    assert positions(good) == line(5)
    controller()
    assert positions(filed(site, run_plan(site, BPlan("line", points=9, seconds=0.1)))) == line(9)


def test_what_the_controller_does_not_take_does_not_hang(site: Site, controller: Callable[..., None]) -> None:
    for arguments in ({"points": 1000}, {"points": 0}, {"seconds": -1}):
        result = run_plan(site, BPlan("line", **arguments))
        assert result["exit_status"] == "failed"
        assert f"instead of {next(iter(arguments.values()))}: nothing was flown" in result["traceback"]
        assert result["run_uids"] == []
    assert run_plan(site, BPlan("line", points=3, seconds=0.1))["exit_status"] == "completed"


def busy() -> float:
    return look(f"{PREFIX}mybusy")[0]
