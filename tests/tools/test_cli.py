"""The command `busy-flyer`, as a user runs it."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from ophyd import EpicsSignalRO

from busy_callback_flyer.ioc import EmbeddedIOC

from ..conftest import look

TIMEOUT = 60.0
COMMAND = str(Path(sys.executable).with_name("busy-flyer"))
NO_EPICS = {name: value for name, value in os.environ.items() if not name.startswith(("EPICS_", "PYEPICS_"))}


def run(*arguments: str, timeout: float = TIMEOUT, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [COMMAND, *arguments], capture_output=True, text=True, timeout=timeout, env=NO_EPICS, **options
    )


@contextmanager
def running(*arguments: str, until: str, env: dict[str, str] = NO_EPICS) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A command in the background, and what it printed until it said `until`."""
    process = subprocess.Popen(
        [COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
        # Where the tests run in a shell's background, SIGINT is ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    printed = ""
    try:
        for line in process.stdout:
            printed += line
            if until in line:
                break
        else:
            pytest.fail(f"it ended, having said: {printed}")
        yield process, printed
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def listening(process: psutil.Process) -> list[tuple[str, str, str]]:
    """Sockets that anybody could reach: TCP that listens, UDP that is bound."""
    return [
        (family.name, connection.type.name, connection.laddr.ip)
        for member in (process, *process.children(recursive=True))
        for connection in member.net_connections()
        if connection.laddr and (family := connection.family) and connection.status in ("LISTEN", "NONE")
    ]


def test_demo(tmp_path: Path) -> None:
    picture = tmp_path / "scan.png"
    done = run("demo", "--points=7", "--duration=0.2", "--flights=2", f"--plot={picture}", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(re.findall(r"^│ +\d+ │", done.stdout, re.MULTILINE)) == 7
    for word in ("ifly_xArr", "the record is Busy", "the record is Done", "PollingFlyer", "BusyFlyer"):
        assert word in done.stdout
    assert not re.search("warning|traceback|exception|error", done.stdout, re.IGNORECASE)


def test_demo_without_a_display_is_not_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NO_EPICS, "MPLBACKEND", "Agg")
    done = run("demo", "--live", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("busy-flyer: there is no display to be live on")


@pytest.mark.parametrize("moment", ["An EPICS IOC runs", "Flying"])
def test_ctrl_c_ends_the_demo(moment: str) -> None:
    with running("demo", "--duration=60", until=moment) as (process, _):
        (server,) = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 130
        assert process.stdout is not None
        assert process.stdout.read().split("\n")[-2] == "Stopped."
        assert not server.is_running()


def test_demo_listens_on_loopback_only() -> None:
    with running("demo", "--flights=1", "--duration=30", until="An EPICS IOC runs") as (process, _):
        sockets = listening(psutil.Process(process.pid))
        assert {kind for _, kind, _ in sockets} >= {"SOCK_STREAM", "SOCK_DGRAM"}
        assert {address for family, kind, address in sockets if kind == "SOCK_STREAM"} == {"127.0.0.1"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ioc_serves_and_stops_cleanly(number: signal.Signals) -> None:
    with running("ioc", "--prefix=cli:", until="Ctrl-C stops it") as (process, printed):
        environment = dict(re.findall(r"export (\w+)='(.*)'", printed))
        assert "cli:mybusy" in printed
        (server,) = psutil.Process(process.pid).children(recursive=True)
        code = "import epics; print(epics.caget('cli:mybusy'), epics.caget('cli:npts'))"
        said = subprocess.run(
            [sys.executable, "-c", code], env=NO_EPICS | environment, capture_output=True, text=True, timeout=TIMEOUT
        )
        assert (said.stdout, said.stderr) == ("0 51\n", "")
        process.send_signal(number)
        assert process.wait(TIMEOUT) == 0
        assert process.stdout is not None
        assert "Stopped." in process.stdout.read()
        assert not server.is_running()


def test_killed_ioc_leaves_nothing() -> None:
    with running("ioc", until="Ctrl-C stops it") as (process, _):
        (server,) = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        server.wait(TIMEOUT)


def test_two_iocs_side_by_side() -> None:
    with running("ioc", until="Ctrl-C stops it") as (_, one), running("ioc", until="Ctrl-C stops it") as (_, two):
        pattern = r"127\.0\.0\.1:(\d+)"
        assert re.search(pattern, one)[1] != re.search(pattern, two)[1]  # type: ignore[index]


def test_controller_beside_an_ioc() -> None:
    from busy_callback_flyer.ioc import process

    database = Path(process.__file__).with_name("controller.db")
    with EmbeddedIOC("ctl:", controller=False, databases=[database]) as ioc:
        environment = NO_EPICS | ioc.client_environment
        with running("controller", "ctl:", until="Ctrl-C stops it", env=environment) as (process_, _):
            code = (
                "import epics; epics.caput('ctl:duration', 0.1, wait=True);"
                "print(epics.caput('ctl:mybusy', 1, wait=True, timeout=30), len(epics.caget('ctl:x_array')))"
            )
            said = subprocess.run(
                [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=TIMEOUT
            )
            assert said.stdout.split() == ["1", "51"], said.stderr
            process_.send_signal(signal.SIGINT)
            assert process_.wait(TIMEOUT) == 0


LATENCY = ("latency", "prj:own", "--flights=2", "--ways", "direct")


def test_latency_asks_before_it_writes(ioc: EmbeddedIOC, tmp_path: Path) -> None:
    _, before = look("prj:own")
    for answer in ("n\n", "\n", ""):
        done = subprocess.run([COMMAND, *LATENCY], input=answer, capture_output=True, text=True, timeout=TIMEOUT)
        assert (done.returncode, done.stderr) == (1, "busy-flyer: nothing was written\n")
        assert f":{ioc.port}" in done.stdout
        assert "Busy, 8 times: 2 flights by each way" in done.stdout
        assert "Done is for your controller to write" in done.stdout
    assert look("prj:own")[1] == before


def test_latency_measures_at_a_users_own_record(ioc: EmbeddedIOC, tmp_path: Path) -> None:
    picture, samples = tmp_path / "it.png", tmp_path / "it.json"
    options = [*LATENCY, "poll-20", "--self-clear", f"--plot={picture}", f"--json={samples}"]
    done = subprocess.run([COMMAND, *options], input="y\n", capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr
    assert "Done, 5 to 105 ms after each" in done.stdout
    for way in ("BusyFlyer, direct", "polling 20 ms"):
        (row,) = [line for line in done.stdout.splitlines() if way in line]
        assert re.fullmatch(way + r" +2(?: +\d+\.\d\d){5} +-", row.strip())
    assert picture.read_bytes().startswith(b"\x89PNG")
    ways = json.loads(samples.read_text())["ways"]
    assert [len(delays["flown"]) for delays in ways.values()] == [2, 2]
    assert look("prj:own")[0] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_latency_that_is_given_up_leaves_the_record_done(ioc: EmbeddedIOC, number: signal.Signals) -> None:
    """In a flight that nobody ends."""
    events: queue.Queue[int] = queue.Queue()
    monitor = EpicsSignalRO("prj:own", name="own", auto_monitor=True)
    monitor.wait_for_connection(timeout=TIMEOUT)
    monitor.subscribe(lambda value, **_: events.put(value), run=False)
    with running(*LATENCY, "--yes", until="where this is given up", env=dict(os.environ)) as (process, _):
        assert 1 in iter(lambda: events.get(timeout=TIMEOUT), None)
        process.send_signal(number)
        assert process.wait(TIMEOUT) == 130
        assert process.stdout is not None
        assert process.stdout.read().split("\n")[-2] == "Stopped."
    assert look("prj:own")[0] == 0


def test_latency_tells_of_a_way_that_failed(ioc: EmbeddedIOC) -> None:
    """Nobody ends the flight."""
    options = [*LATENCY, "--yes", "--timeout=1"]
    done = subprocess.run([COMMAND, *options], capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 1
    assert re.search(r"BusyFlyer, direct was given up: .*FlightTimeout.*prj:own", done.stdout)
    assert look("prj:own")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo", "--points=0"], "points"),
        (["demo", "--duration=-1"], "duration"),
        (["demo", "--duration=nan"], "duration"),
        (["ioc", "--nelm=-5"], "nelm"),
        (["ioc", "--prefix=a b"], "prefix"),
        (["controller", "nowhere:"], "nowhere:mybusy"),
        pytest.param(["latency", "nowhere:mybusy"], "nowhere:mybusy did not connect", marks=pytest.mark.slow),
        (["latency", "prj:npts"], "prj:npts is no busy record"),
        (["latency", "prj:mybusy", "--ways", "telepathy"], "'telepathy' is no way of waiting"),
        (["latency", "prj:own", "--self-clear", "--length-pv", "prj:duration"], "exclude each other"),
        (["latency", "prj:own", "--flights=0"], "flights"),
        ([], "COMMAND"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_refused_in_a_sentence(arguments: list[str], words: str, ioc: object) -> None:
    environment = dict(os.environ)  # of the tests' IOC: nothing else is searched for
    done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=TIMEOUT, env=environment)
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_help() -> None:
    done = run("--help")
    for command in ("demo", "ioc", "controller", "latency"):
        assert command in done.stdout
