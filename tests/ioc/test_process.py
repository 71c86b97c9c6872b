"""The embedded IOC's process: start, end, crash, freeze, and what it leaves behind."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from busy_callback_flyer.ioc import EmbeddedIOC, IOCError, process
from busy_callback_flyer.ioc.repeater import random_ports

from .client import PATIENCE, RemoteClient, run_python

HERE = Path(__file__).parent
ROWS = HERE / "busy_rows.db"
PARENT = """
import os, sys
from busy_callback_flyer.ioc import EmbeddedIOC
ioc = EmbeddedIOC(controller=False)
ioc.start()
if sys.argv[1] == "frozen":
    ioc.freeze()
print(ioc.pid, flush=True)
"""


@contextlib.contextmanager
def client_of(ioc: EmbeddedIOC) -> Iterator[RemoteClient]:
    client = RemoteClient(ioc.client_environment)
    try:
        yield client
    finally:
        client.close()


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE  # nobody may be there to reap an orphan
    except psutil.NoSuchProcess:
        return True


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while not is_gone(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.01)


def test_start_and_stop() -> None:
    with EmbeddedIOC("a:", controller=False) as ioc:
        assert ioc.alive
        assert psutil.Process(ioc.pid).ppid() == os.getpid()
        assert ioc.pvs == ("a:mybusy", "a:mytaxi", "a:str_wave", "a:t_array", "a:x_array", "a:y_array")
        assert ioc.client_environment["EPICS_CA_ADDR_LIST"] == f"127.0.0.1:{ioc.port}"
        pid = ioc.pid
        ioc.start()  # it runs: nothing to do
        assert ioc.pid == pid
    assert not ioc.alive
    assert is_gone(pid)
    ioc.stop()  # nothing to do
    with pytest.raises(IOCError, match="not started, or it was stopped"):
        _ = ioc.port


def test_before_its_start_it_has_nothing_to_tell() -> None:
    ioc = EmbeddedIOC()
    assert not ioc.alive
    for ask in (lambda: ioc.pid, lambda: ioc.port, lambda: ioc.pvs, lambda: ioc.client_environment, ioc.freeze):
        with pytest.raises(IOCError, match="not started"):
            ask()


def test_a_client_sees_the_records_and_macros() -> None:
    with (
        EmbeddedIOC("a:", nelm=7, controller=False, databases=[ROWS], macros={"TEXT": "a, b=c"}) as ioc,
        client_of(ioc) as client,
    ):
        assert client.get("a:x_array.NELM") == 7
        assert client.get("a:x_array.EGU") == "mm"
        assert client.get("a:text") == "a, b=c"
        assert "a:text" in ioc.pvs


def test_it_listens_on_loopback_only(rows_ioc: EmbeddedIOC) -> None:
    connections = psutil.Process(rows_ioc.pid).net_connections("inet")

    def addresses(chosen: list[Any]) -> set[tuple[str, int]]:
        return {(connection.laddr.ip, connection.laddr.port) for connection in chosen}

    tcp = addresses([c for c in connections if c.status == psutil.CONN_LISTEN])
    assert tcp == {("127.0.0.1", rows_ioc.port)}
    udp = addresses([c for c in connections if c.type == socket.SOCK_DGRAM])
    served = {address for address in udp if address[1] == rows_ioc.port}
    assert served
    assert all(address[0].startswith("127.") for address in served)
    # EPICS base's own sockets to send from: bound to a passing port, no service
    assert all(address[1] >= 32768 for address in udp - served)


@pytest.mark.slow
def test_kill_and_restart_on_the_same_port() -> None:
    with EmbeddedIOC("a:", controller=False) as ioc, client_of(ioc) as client:
        client.put_and_wait("a:x_array", [1.0, 2.0])
        port, pid = ioc.port, ioc.pid
        ioc.kill()
        assert not ioc.alive
        client.wait_for_connection("a:x_array", False)
        assert ioc.client_environment["EPICS_CA_ADDR_LIST"] == f"127.0.0.1:{port}"
        ioc.restart()
        assert ioc.alive
        assert ioc.port == port
        assert ioc.pid != pid
        client.wait_for_connection("a:x_array")
        assert client.get("a:x_array.NORD") == 0


def test_restart_of_one_that_runs() -> None:
    with EmbeddedIOC("a:", controller=False) as ioc:
        port, pid = ioc.port, ioc.pid
        ioc.restart()
        assert is_gone(pid)
        assert ioc.port == port


@pytest.mark.skipif(sys.platform != "linux", reason="looks at the process's state")
def test_freeze_and_thaw(rows_ioc: EmbeddedIOC, client: RemoteClient) -> None:
    client.put("t:plain", 0)
    client.watch("t:plain")
    rows_ioc.freeze()
    try:
        assert psutil.Process(rows_ioc.pid).status() == psutil.STATUS_STOPPED
        assert rows_ioc.alive
        client.put_callback("t:plain", 1)
    finally:
        rows_ioc.thaw()
    client.wait_for_events("t:plain", [1])
    client.put("t:plain", 0)
    client.wait_until_returned("t:plain")


def test_a_frozen_one_can_be_stopped_and_one_that_is_dead_cannot_be_frozen() -> None:
    with EmbeddedIOC(controller=False) as ioc:
        ioc.freeze()
        pid = ioc.pid
    assert is_gone(pid)
    with EmbeddedIOC(controller=False) as ioc:
        ioc.kill()
        ioc.kill()
        for act in (ioc.freeze, ioc.thaw):
            with pytest.raises(IOCError, match="not running"):
                act()


@pytest.mark.skipif(sys.platform != "linux", reason="needs the system to end a process with its parent")
@pytest.mark.parametrize("state", ["running", "frozen"])
def test_it_dies_with_a_parent_that_is_killed(state: str) -> None:
    code = PARENT + "sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, state], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not is_gone(pid)
        parent.kill()
    wait_until_gone(pid)


@pytest.mark.parametrize("state", ["running", "frozen"])
def test_a_forgotten_one_neither_stays_nor_keeps_the_interpreter(state: str) -> None:
    forgetful = run_python(PARENT, state)
    assert forgetful.returncode == 0
    assert forgetful.stderr == ""
    wait_until_gone(int(forgetful.stdout))


def test_one_that_nobody_refers_to_is_ended() -> None:
    ioc = EmbeddedIOC(controller=False)
    ioc.start()
    pid = ioc.pid
    del ioc
    wait_until_gone(pid)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_copy_of_the_parent_ends_without_it() -> None:
    code = """
import os, sys
from busy_callback_flyer.ioc import EmbeddedIOC
ioc = EmbeddedIOC(controller=False)
ioc.start()
child = os.fork()
if not child:
    sys.exit(0)
os.waitpid(child, 0)
print(ioc.alive)
"""
    assert run_python(code).stdout == "True\n"


def test_two_of_the_same_names_do_not_meet() -> None:
    with (
        EmbeddedIOC(controller=False) as one,
        EmbeddedIOC(controller=False) as other,
        client_of(one) as client_of_one,
        client_of(other) as client_of_other,
    ):
        assert one.port != other.port
        client_of_one.put_and_wait("prj:x_array", [1.0])
        client_of_other.put_and_wait("prj:x_array", [1.0, 2.0])
        assert client_of_one.get("prj:x_array.NORD") == 1
        assert client_of_other.get("prj:x_array.NORD") == 2
        assert "prj" not in one.output + other.output


def test_settings_of_the_machine_do_not_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "EPICS_CA_SERVER_PORT": "1",
        "EPICS_CAS_SERVER_PORT": "2",
        "EPICS_CAS_INTF_ADDR_LIST": "192.0.2.1",
        "EPICS_CAS_IGNORE_ADDR_LIST": "127.0.0.1",
        "EPICS_CA_ADDR_LIST": "192.0.2.2",
        "EPICS_CA_NAME_SERVERS": "192.0.2.3",
        "EPICS_CA_MAX_ARRAY_BYTES": "x",
        "EPICS_CA_CONN_TMO": "x",
    }.items():
        monkeypatch.setenv(name, value)
    with EmbeddedIOC(controller=False) as ioc, client_of(ioc) as client:
        assert client.get("prj:mybusy") == 0


CHATTY_CLIENT = """
import sys, epics
pv = epics.PV("prj:mybusy")
assert pv.wait_for_connection(float(sys.argv[1])) == (sys.argv[2] == "reached")
"""


def test_a_client_prints_nothing() -> None:
    with EmbeddedIOC(controller=False) as ioc:

        def output(patience: float, outcome: str) -> tuple[int, str, str]:
            environment = {**ioc.client_environment, "PATH": ""}  # without caRepeater, wherever there is one
            ran = run_python(CHATTY_CLIENT, str(patience), outcome, environment=environment)
            return ran.returncode, ran.stdout, ran.stderr

        silence = (0, "", "")
        assert output(PATIENCE / 2, "reached") == silence
        ioc.freeze()
        assert output(0.5, "not reached") == silence
        ioc.kill()
        assert output(0.5, "not reached") == silence
        ioc.restart()
        assert output(PATIENCE / 2, "reached") == silence


def test_a_port_that_is_taken_is_given_up_for_another(monkeypatch: pytest.MonkeyPatch, rows_ioc: EmbeddedIOC) -> None:
    monkeypatch.setattr(process, "random_ports", lambda count: [rows_ioc.port, *random_ports(count)])
    monkeypatch.setattr(process, "is_free", lambda port: True)
    with EmbeddedIOC(controller=False) as ioc:
        assert ioc.port != rows_ioc.port


def test_a_port_that_is_taken_in_the_last_moment_is_noticed() -> None:
    code = """
import os, sys
from busy_callback_flyer.ioc import server
server.is_free = lambda port: True
server.main(["--prefix=a:", f"--port={sys.argv[1]}", "--repeater-port=9", f"--parent={os.getppid()}"])
"""
    with socket.create_server(("127.0.0.1", 0)) as snatcher:
        ran = run_python(code, str(snatcher.getsockname()[1]))
    assert ran.returncode == process.PORT_TAKEN


def test_restart_says_when_its_port_is_taken() -> None:
    with EmbeddedIOC(controller=False) as ioc:
        ioc.kill()
        with socket.create_server(("127.0.0.1", ioc.port)), pytest.raises(IOCError, match="another program has it"):
            ioc.restart()
        ioc.restart()
        assert ioc.alive


@pytest.mark.parametrize("ending", ["SIGTERM", "SIGINT", "end of stdin"])
def test_the_server_ends_in_order(ending: str) -> None:
    ports = random_ports(2)
    command = [
        *(sys.executable, "-m", "busy_callback_flyer.ioc.server", "--prefix=a:", "--no-controller"),
        *(f"--port={ports[0]}", f"--repeater-port={ports[1]}", f"--parent={os.getpid()}"),
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        for line in server.stdout:
            if line.startswith(process.MARK) and json.loads(line[len(process.MARK) :])[0] == "ready":
                break
        if ending == "end of stdin":
            server.stdin.close()
        else:
            server.send_signal(signal.Signals[ending])
        assert server.wait(PATIENCE) == 0


def test_the_server_without_its_parent_does_not_start() -> None:
    command = [
        *(sys.executable, "-m", "busy_callback_flyer.ioc.server"),
        *("--prefix=a:", "--port=9", "--repeater-port=9", "--parent=0"),
    ]
    assert subprocess.run(command, stdin=subprocess.DEVNULL, timeout=PATIENCE, check=False).returncode == 1


def test_a_start_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ioc = EmbeddedIOC(start_timeout=0.5)
    monkeypatch.setattr(ioc, "_command", lambda *ports: [sys.executable, "-c", "print('busy here'); input()"])
    with pytest.raises(IOCError, match=r"not ready after 0\.5 s"):
        ioc.start()
    assert not ioc.alive


def test_a_start_that_fails_shows_what_was_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    ioc = EmbeddedIOC()
    monkeypatch.setattr(ioc, "_command", lambda *ports: [sys.executable, "-c", "print('odd'); raise SystemExit(3)"])
    with pytest.raises(IOCError, match=r"exit status 3.*\n.*\nodd"):
        ioc.start()


def test_a_process_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    ioc = EmbeddedIOC()
    monkeypatch.setattr(ioc, "_command", lambda *ports: ["/nonexistent"])
    with pytest.raises(IOCError, match="cannot be started"):
        ioc.start()


def test_a_bad_database_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.db"
    bad.write_text('record(nonsense, "$(P)x") {}\n')
    with pytest.raises(IOCError, match=r"cannot load the records of .*bad\.db(.|\n)*nonsense"):
        EmbeddedIOC(databases=[bad]).start()


def test_a_database_is_found_from_where_it_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.db").write_text('record(ao, "$(P)own") {}\n')
    monkeypatch.chdir(tmp_path)
    with EmbeddedIOC(controller=False, databases=["own.db"]) as ioc:
        assert "prj:own" in ioc.pvs


SHADOWS = ("copy", "json", "ctypes", "numpy", "epicscorelibs", "sitecustomize", "busy_callback_flyer")


@pytest.mark.parametrize("how", ["working directory", "script", "PYTHONPATH", "relative"])
def test_it_imports_nothing_from_where_its_user_works(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Python does: the working directory, or the script's, is first in `sys.path`, and so are PYTHONPATH's."""
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('hidden')")
    entry = {"working directory": "", "relative": "."}.get(how, str(tmp_path))
    if how == "script":
        monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "scan.py"), raising=False)
    else:
        monkeypatch.chdir(tmp_path)
    if how == "PYTHONPATH":
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [entry, *sys.path])
    with EmbeddedIOC("a:") as ioc:  # with all that it ever imports, numpy too
        assert "a:npts" in ioc.pvs


def test_modules_of_its_users_directories_do_not_hide_pythons_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in `sys.path` for other reasons stays there, behind the standard library."""
    (tmp_path / "copy.py").write_text("raise SystemExit('hidden')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with EmbeddedIOC("a:") as ioc:
        assert ioc.alive


ALIASES = """
alias("$(P)mybusy", "$(P)scan")
alias("$(P)mybusy", "other:name")
record(busy, "$(P)mybusy") { alias("$(P)a_third") }
alias("$(P)x_array", "$(P)positions")
"""


def test_aliases_are_other_names_of_the_same_records(tmp_path: Path) -> None:
    """The controller hears of the record by whatever name it is put to, its own among them."""
    file = tmp_path / "aliases.db"
    file.write_text(ALIASES)
    with EmbeddedIOC("a:", databases=[file]) as ioc, client_of(ioc) as client:
        assert {"a:mybusy", "a:scan", "other:name", "a:a_third", "a:positions"} <= set(ioc.pvs)
        for npts, name in enumerate(("a:mybusy", "a:scan", "other:name", "a:a_third"), start=3):
            client.put_and_wait("a:npts", npts)
            client.put_and_wait("a:duration", 0.0)
            client.put_callback(name, 1)
            client.wait_until_returned(name)
            assert client.get_text("a:message") == f"flew {npts} points"
            assert len(client.get_array("a:positions")) == npts


def test_without_epicscorelibs_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(IOCError, match=r"pip install busy_callback_flyer\[ioc\]"):
        EmbeddedIOC().start()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"prefix": ""}, "prefix must be as record names are"),
        ({"prefix": "a b:"}, "prefix must be as record names are"),
        ({"prefix": "a.b:"}, "prefix must be as record names are"),
        ({"prefix": "$(P)"}, "prefix must be as record names are"),
        ({"prefix": "-a:"}, "prefix must be as record names are"),
        ({"prefix": "a:\n"}, "prefix must be as record names are"),
        ({"prefix": "ä:"}, "prefix must be as record names are"),
        ({"prefix": "x" * 41}, "prefix must have 40 characters at most, not 41"),
        ({"prefix": 3}, "prefix must be text, not 3"),
        ({"nelm": 0}, "nelm must be 1 to 10000000, not 0"),
        ({"nelm": 10**9}, "nelm must be 1 to 10000000"),
        ({"nelm": 2.0}, r"nelm must be a whole number, not 2\.0"),
        ({"nelm": True}, "nelm must be a whole number"),
        ({"controller": 1}, "controller must be True or False, not 1"),
        ({"databases": "a.db"}, r"databases must be a list of paths, not 'a\.db'"),
        ({"databases": [3]}, "databases must be a list of paths, not of 3"),
        ({"databases": ["no.db"]}, r"databases names no\.db, which is not a file"),
        ({"macros": ["A=1"]}, "macros must be a mapping"),
        ({"macros": {"1": "x"}}, "macros names '1', which is not a macro's name"),
        ({"macros": {"A": None}}, "macros gives A the value None"),
        ({"macros": {"A": "x\ny"}}, "macros gives A the value"),
        ({"start_timeout": -1}, "start_timeout must be more than 0 seconds, and finite, not -1"),
        ({"start_timeout": float("nan")}, "start_timeout must be more than 0 seconds"),
        ({"start_timeout": "1"}, "start_timeout must be a number of seconds"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises((TypeError, ValueError, FileNotFoundError), match=sentence):
        EmbeddedIOC(**arguments)
