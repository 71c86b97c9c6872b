"""sscan, flown as `docs/how-to/sscan.md` has it: the page's own code, at a server that behaves like the record."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import free_ports

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "sscan.md"
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
CODE = "\n".join(code for language, code in BLOCKS if language == "python")
(DATABASE,) = (code for language, code in BLOCKS if not language)

HELP = """
import json, logging, threading
import bluesky.plans as bp, epics, numpy as np
from busy_callback_flyer import FlightAborted, PollingFlyer

told = []
class Keep(logging.Handler):
    def emit(self, record):
        told.append(record.getMessage())
logging.getLogger("busy_callback_flyer").addHandler(Keep(logging.WARNING))

def put(field, value):
    assert epics.caput("xxx:" + field, value, wait=True, timeout=20) == 1

def get(field):
    return epics.get_pv("xxx:" + field, connect=True, timeout=20).get(use_monitor=False)

def pages(flyer):
    emitted = []
    token = RE.subscribe(lambda name, page: emitted.append(page["data"]), "event_page")
    RE(bp.fly([flyer]))
    RE.unsubscribe(token)
    return emitted
"""

FLY = """
said = []
for flyer in (sfly, scan, bscan, polled):
    for events in ("direct", "ophyd"):
        flyer.events = events
        flyer.wait_for_connection(timeout=20)
        for points in (5, 7, 3):
            put("scan1.NPTS", points)
            (page,) = pages(flyer)
            x, det = (page[f"{flyer.name}_{attr}"] for attr in ("x", "det"))
            expected = int(get("scans")) + 0.01 * np.arange(points)
            assert np.allclose(x, expected) and np.allclose(det, 10 * expected), page
        text = str(flyer.timeline)
        said.append([flyer.name, flyer.events, sorted(page), text.splitlines()[0].split(",")[0], text])
assert not told, told
print(json.dumps(said))
"""

REFUSE = """
(page,) = pages(sfly)
put("refuse", 1)
said = {"refused": pages(sfly), "told": list(told), "flown": len(page["sfly_x"])}
put("refuse", 0)
(page,) = pages(sfly)
said["again"] = [len(page["sfly_x"]), round(page["sfly_x"][0]) == int(get("scans"))]
sfly.points = None
(page,) = pages(sfly)
said["without points"] = len(page["sfly_x"])
print(json.dumps(said))
"""

ABORT = """
said = []
for flyer in (sfly, bscan):
    for events in ("direct", "ophyd"):
        flyer.events = events
        flyer.wait_for_connection(timeout=20)
        put("scan1.NPTS", 90)
        begun = threading.Event()
        token = flyer.subscribe(lambda **_: begun.set(), flyer.SUB_FLIGHT_BUSY)
        status = flyer.kickoff()
        assert begun.wait(20)
        flyer.unsubscribe(token)
        flyer.stop()
        error = status.exception(20)
        put("scan1.NPTS", 4)
        (page,) = pages(flyer)
        said.append([type(error).__name__, len(page[f"{flyer.name}_x"]), int(get("scan1.EXSC"))])
print(json.dumps(said))
"""

CAPROTO = """
import ophyd
assert ophyd.get_cl().name == "caproto"
put("scan1.NPTS", 4)
said = []
for flyer in (sfly, bscan):
    flyer.wait_for_connection(timeout=20)
    (page,) = pages(flyer)
    said.append([len(page[f"{flyer.name}_x"]), flyer.busy.output_link.read()])
print(json.dumps(said))
"""

POLLED = """
class Polled(PollingFlyer):
    busy, x, det, cpt = ScanFlyer.busy, ScanFlyer.x, ScanFlyer.det, ScanFlyer.cpt
    tArr = xArr = yArr = None
polled = Polled("xxx:", name="polled", time_array=None, points="cpt", when_busy="wait", flight_timeout=20)
"""


@pytest.fixture(scope="module")
def client() -> Iterator[dict[str, str]]:
    """What the clients of the server need in their environment."""
    (port,) = map(str, free_ports(1))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EPICS_")}
    server = {
        **environment,
        "EPICS_CA_SERVER_PORT": port,
        "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "no",
        "EPICS_CAS_BEACON_ADDR_LIST": "",
    }
    with subprocess.Popen([sys.executable, Path(__file__).with_name("sscan.py")], env=server) as serving:
        yield {**environment, "EPICS_CA_ADDR_LIST": f"127.0.0.1:{port}", "EPICS_CA_AUTO_ADDR_LIST": "NO"}
        serving.kill()


def run(client: dict[str, str], *parts: str) -> Any:
    """Run the page's code, with its timeouts, and then these parts; what they print."""
    wait = "import epics; epics.get_pv('xxx:scan1.EXSC').wait_for_connection(60)"
    program = "\n".join(["import busy_callback_flyer, ophyd", wait, CODE, HELP, *parts])
    done = subprocess.run(
        [sys.executable, "-c", program], env=client, capture_output=True, text=True, timeout=110, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_page_flies(client: dict[str, str]) -> None:
    for name, events, keys, pv, timeline in run(client, POLLED, FLY):
        assert keys == [f"{name}_{attr}" for attr in (("cpt", "det", "x") if name == "sfly" else ("det", "x"))]
        assert pv == ("xxx:mybusy" if name == "bscan" else "xxx:scan1.EXSC")
        assert ("client's time of the put" in timeline) == (name != "bscan"), (name, events)


def test_a_scan_that_refuses_to_start_has_no_points_and_is_told(client: dict[str, str]) -> None:
    said = run(client, 'put("scan1.NPTS", 5)', REFUSE)
    assert said["flown"] == 5
    assert said["refused"] == []
    (told,) = said["told"]
    assert "xxx:scan1.EXSC is Done, and its put-callback has not come" in told
    assert said["again"] == [5, True]
    assert said["without points"] == 100, "so many elements the array has, and the page says that `points` is needed"


def test_stop_aborts_the_scan(client: dict[str, str]) -> None:
    assert run(client, ABORT) == [["FlightAborted", 4, 0]] * 4


def test_the_page_flies_on_another_control_layer(client: dict[str, str]) -> None:
    assert run(client | {"OPHYD_CONTROL_LAYER": "caproto"}, CAPROTO) == [[4, {}]] * 2


DATABASE_PROGRAM = """
import os, sys, threading
from busy_callback_flyer.ioc import EmbeddedIOC
with EmbeddedIOC("other:", databases=[sys.argv[1]]) as ioc:
    os.environ.update(ioc.client_environment)
    import epics
    def pv(name):
        return epics.get_pv("xxx:" + name, connect=True, timeout=20)
    def says(name, value):
        while pv(name).get(use_monitor=False) != value:
            pass
    def scan_ends():
        pv("exsc").put(0, wait=True)
        pv("scanDone.PROC").put(1, wait=True)
    pv("mybusy").put(1)
    says("exsc", 1)
    pv("mybusy").put(0)
    says("exsc", 0)
    back = threading.Event()
    pv("mybusy").put(1, callback=lambda **_: back.set())
    says("exsc", 1)
    assert not back.is_set()
    scan_ends()
    assert back.wait(20)
    says("mybusy", 0)
    print(pv("exsc_writes").get(use_monitor=False))
"""


def test_the_page_s_database(tmp_path: Path) -> None:
    """A longout stands for sscan's EXSC: it is not written to when the scan is over."""
    database = tmp_path / "sscan.db"
    records = DATABASE.replace("xxx:scan1.EXSC", "xxx:exsc")
    assert records.count("xxx:exsc") == 2
    count = 'record(calc, "xxx:exsc_writes") {field(INPA, "xxx:exsc_writes") field(CALC, "A+1") field(VAL, "0")}\n'
    database.write_text(records + 'record(longout, "xxx:exsc") {field(FLNK, "xxx:exsc_writes")}\n' + count)
    done = subprocess.run(
        [sys.executable, "-c", DATABASE_PROGRAM, str(database)],
        env={name: value for name, value in os.environ.items() if not name.startswith("EPICS_")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == 4, "1, 0, 1, and the end of the scan itself"
