"""The embedded IOC as seen from Python: a process to start, watch and end."""

from __future__ import annotations

import collections
import contextlib
import importlib.util
import json
import math
import os
import queue
import re
import signal
import subprocess
import threading
import time
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from .. import launch
from .base import NOT_INSTALLED, IOCError
from .repeater import LOOPBACK, Repeater, is_free, random_ports

__all__ = ["EmbeddedIOC"]

# what the server and we agree upon
MARK = "busy_callback_flyer.ioc "  # begins a line that is meant for us
PORT_TAKEN = 75  # its exit status when somebody else has its port

STOP_TIMEOUT = 5.0  # seconds for an orderly end, then it is killed
MOST_ELEMENTS = 10_000_000
ROOT = Path(__file__).resolve().parents[2]  # where the package was imported from

# legal in an EPICS record name; `.` would start a field's name
PREFIX = re.compile(r"[A-Za-z0-9_:;<>][A-Za-z0-9_:;<>+\-\[\]]*")
LONGEST_PREFIX = 40  # of 60 characters of a record name
MACRO = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class EmbeddedIOC:
    """An EPICS IOC with busy records, in a process of its own, on loopback and a free port.

    It serves a busy record ``mybusy``, another ``mytaxi``, the waveforms
    ``str_wave``, ``t_array``, ``x_array`` and ``y_array``, and a controller that
    scans and fills the arrays while ``mybusy`` is Busy; on ``mytaxi`` it moves
    to the start. It ends with the process that started it, however that ends.

    Parameters
    ----------
    prefix : str
        First part of the records' names.
    nelm : int
        Most points that an array holds.
    controller : bool
        Whether somebody acts on the busy records. Without, they stay Busy until a client writes Done.
    databases : iterable of path
        Further .db files to load.
    macros : mapping
        Macros for them, besides ``P`` (the prefix) and ``NELM``.
    start_timeout : float
        Seconds that a start may take.

    Examples
    --------
    >>> with EmbeddedIOC(prefix="prj:") as ioc:
    ...     os.environ.update(ioc.client_environment)  # before ophyd or epics is imported
    ...     import ophyd
    """

    def __init__(
        self,
        prefix: str = "prj:",
        *,
        nelm: int = 256,
        controller: bool = True,
        databases: Iterable[str | os.PathLike[str]] = (),
        macros: Mapping[str, object] | None = None,
        start_timeout: float = 20.0,
    ) -> None:
        self._prefix = checked_prefix(prefix)
        self._nelm = checked_nelm(nelm)
        self._controller = checked_flag("controller", controller)
        self._databases = checked_databases(databases)
        self._macros = checked_macros(macros or {})
        self._start_timeout = checked_timeout(start_timeout)
        self._resources = _Resources()
        # at the latest when the interpreter exits
        self._finalizer = weakref.finalize(self, self._resources.release)

    def __repr__(self) -> str:
        state = f"port={self._resources.port}" if self.alive else "not running"
        return f"{type(self).__name__}(prefix={self._prefix!r}, {state})"

    def __enter__(self) -> EmbeddedIOC:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # -- life

    def start(self) -> None:
        """Start it and wait until clients can connect. Nothing happens if it runs already.

        Raises
        ------
        IOCError
            It does not start; the message says why.
        """
        if self.alive:
            return
        if importlib.util.find_spec("epicscorelibs") is None:
            raise IOCError(NOT_INSTALLED)
        if self._resources.repeater is None:
            self._resources.repeater = Repeater()
        try:
            if self._resources.port is None:
                self._start_somewhere()
            else:  # it died
                self._start_at(self._resources.port)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it in order, or by force if that takes longer than five seconds."""
        self._resources.stop()

    def restart(self) -> None:
        """End it if it runs, then start it on the same port, so that clients find it again."""
        port = self.port
        self._resources.end_server()
        self._start_at(port)

    def kill(self) -> None:
        """End it at once (SIGKILL), as in a crash."""
        self._server.end(0)

    def freeze(self) -> None:
        """Hold its execution (SIGSTOP), as if the network to it were gone."""
        self._server.signal(signal.SIGSTOP)
        self._server.wait_until_stopped()

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        self._server.signal(signal.SIGCONT)

    # -- facts

    @property
    def alive(self) -> bool:
        """Whether its process exists (a frozen one does)."""
        server = self._resources.server
        return server is not None and server.alive

    @property
    def pid(self) -> int:
        """Number of its process, or of the last it had."""
        return self._server.pid

    @property
    def port(self) -> int:
        """Its port, TCP and UDP alike. The same after `restart`."""
        if self._resources.port is None:
            raise IOCError("The IOC has no port: it was not started, or it was stopped.")
        return self._resources.port

    @property
    def pvs(self) -> tuple[str, ...]:
        """Names of the records that it serves."""
        return self._server.pvs

    @property
    def output(self) -> str:
        """The last lines that it printed."""
        return self._server.output

    @property
    def client_environment(self) -> dict[str, str]:
        """What a client's environment must have, before libca is loaded, to reach this IOC and nothing else."""
        assert self.port
        assert self._resources.repeater is not None
        return {
            "EPICS_CA_ADDR_LIST": f"{LOOPBACK}:{self.port}",
            "EPICS_CA_AUTO_ADDR_LIST": "NO",
            "EPICS_CA_NAME_SERVERS": "",
            "EPICS_CA_SERVER_PORT": str(self.port),
            "EPICS_CA_REPEATER_PORT": str(self._resources.repeater.port),
            # libca's own defaults, whatever the machine says
            "EPICS_CA_AUTO_ARRAY_BYTES": "YES",
            "EPICS_CA_MAX_ARRAY_BYTES": str(max(16384, 8 * self._nelm + 1024)),
            "EPICS_CA_CONN_TMO": "30.0",
            "EPICS_CA_BEACON_PERIOD": "15.0",
            "EPICS_CA_MAX_SEARCH_PERIOD": "300",
            "EPICS_CA_MCAST_TTL": "1",
        }

    # -- inside

    @property
    def _server(self) -> _Server:
        if self._resources.server is None:
            raise IOCError("The IOC was not started.")
        return self._resources.server

    def _start_somewhere(self) -> None:
        deadline = time.monotonic() + self._start_timeout
        for port in (port for port in random_ports(100) if is_free(port)):
            with contextlib.suppress(_PortTakenError):
                return self._start_at(port, deadline)
        raise IOCError("The IOC found no free port on loopback.")

    def _start_at(self, port: int, deadline: float | None = None) -> None:
        resources = self._resources
        assert resources.repeater is not None
        deadline = deadline or time.monotonic() + self._start_timeout
        resources.server = _Server(self._command(port, resources.repeater.port), server_environment())
        resources.port = port
        try:
            resources.server.wait_until_ready(deadline, self._start_timeout)
        except BaseException:
            resources.end_server()
            raise

    def _command(self, port: int, repeater_port: int) -> list[str]:
        return [
            *launch.command("busy_callback_flyer.ioc.server"),
            *(f"--prefix={self._prefix}", f"--nelm={self._nelm}"),
            *(f"--port={port}", f"--repeater-port={repeater_port}", f"--parent={os.getpid()}"),
            "--controller" if self._controller else "--no-controller",
            *(f"--database={file}" for file in self._databases),
            *(f"--macro={name}={value}" for name, value in self._macros.items()),
        ]


class _Resources:
    """What has to be given back when an EmbeddedIOC is no more, whoever notices."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self.repeater: Repeater | None = None
        self.server: _Server | None = None
        self.port: int | None = None

    def end_server(self) -> None:
        if self.server is not None:
            self.server.end(STOP_TIMEOUT)

    def stop(self) -> None:
        self.end_server()
        self._close()

    def release(self) -> None:
        """End everything without delay. A forked copy of us owns nothing."""
        if os.getpid() == self._owner:
            if self.server is not None:
                self.server.end(0)
            self._close()

    def _close(self) -> None:
        if self.repeater is not None:
            self.repeater.close()
        self.repeater = self.port = None


class _PortTakenError(IOCError):
    """Somebody else has the port by now."""


class _Server:
    """One process of the IOC, and what it printed.

    A thread starts it and stays until it has ended: on Linux the process is to end
    with its parent, and takes the end of the thread that started it for that.
    """

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.pvs: tuple[str, ...] = ()
        self._printed: collections.deque[str] = collections.deque(maxlen=100)
        self._told: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._thread = threading.Thread(target=self._run, args=(command, environment), name="embedded-ioc", daemon=True)
        self._thread.start()
        topic, content = self._told.get()
        if topic != "started":
            raise IOCError(f"The IOC's process cannot be started: {content}")
        self._process: subprocess.Popen[bytes] = content
        self.pid: int = self._process.pid

    def _run(self, command: list[str], environment: dict[str, str]) -> None:
        try:
            process = subprocess.Popen(
                command,
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=environment,
                start_new_session=True,  # Ctrl-C in the terminal is not meant for it
            )
        except OSError as error:
            self._told.put(("failed", error))
            return
        self._told.put(("started", process))
        self._listen(process)
        process.wait()
        self._told.put(("ended", process.returncode))

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        rest = b""
        with contextlib.suppress(OSError, ValueError), process.stdout as pipe:
            while data := pipe.read(65536):
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._hear(line.decode(errors="replace"))
                rest = rest[-65536:]

    def _hear(self, line: str) -> None:
        if line.startswith(MARK):
            self._told.put(tuple(json.loads(line[len(MARK) :])))
        elif line.strip():
            self._printed.append(line)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def output(self) -> str:
        return "\n".join(self._printed)

    def wait_until_ready(self, deadline: float, timeout: float) -> None:
        pvs = []
        while True:
            try:
                topic, content = self._told.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise IOCError(self._report(f"The IOC was not ready after {timeout:g} s.")) from None
            if topic == "pv":
                pvs.append(content)
            elif topic == "ready":
                self.pvs = tuple(pvs)
                return
            elif topic == "error":
                raise IOCError(self._report(content))
            elif content == PORT_TAKEN:
                raise _PortTakenError(self._report("The IOC did not get its port: another program has it."))
            else:
                raise IOCError(self._report(f"The IOC ended while it was starting (exit status {content})."))

    def _report(self, sentence: str) -> str:
        return f"{sentence}\nIt printed:\n{self.output}" if self._printed else sentence

    def signal(self, number: signal.Signals) -> None:
        if not self.alive:
            raise IOCError("The IOC is not running.")
        self._process.send_signal(number)

    def wait(self) -> None:
        self._process.wait()
        self._thread.join(STOP_TIMEOUT)

    def wait_until_stopped(self) -> None:
        if hasattr(os, "waitid"):  # macOS has it only in newer versions of Python
            with contextlib.suppress(ChildProcessError):
                os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def end(self, patience: float) -> None:
        """Ask the process to end, and make it if it does not in `patience` seconds."""
        if self.alive and patience:
            self._process.send_signal(signal.SIGCONT)  # it may be frozen
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
        if self.alive:
            self._process.kill()
        self.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()


def server_environment() -> dict[str, str]:
    """The environment of the IOC's process: this one's, without settings for other IOCs and their clients."""
    return {name: value for name, value in os.environ.items() if not name.startswith("EPICS_")}


def checked_prefix(prefix: object) -> str:
    if not isinstance(prefix, str):
        raise TypeError(f"prefix must be text, not {prefix!r}.")
    if not PREFIX.fullmatch(prefix):
        raise ValueError(f"prefix must be as record names are: letters, digits and _ - + : [ ] < > ;, not {prefix!r}.")
    if len(prefix) > LONGEST_PREFIX:
        raise ValueError(f"prefix must have {LONGEST_PREFIX} characters at most, not {len(prefix)}.")
    return prefix


def checked_nelm(nelm: object) -> int:
    if not isinstance(nelm, int) or isinstance(nelm, bool):
        raise TypeError(f"nelm must be a whole number, not {nelm!r}.")
    if not 1 <= nelm <= MOST_ELEMENTS:
        raise ValueError(f"nelm must be 1 to {MOST_ELEMENTS}, not {nelm}.")
    return nelm


def checked_flag(name: str, flag: object) -> bool:
    if not isinstance(flag, bool):
        raise TypeError(f"{name} must be True or False, not {flag!r}.")
    return flag


def checked_timeout(timeout: object) -> float:
    if not isinstance(timeout, (int, float)) or isinstance(timeout, bool):
        raise TypeError(f"start_timeout must be a number of seconds, not {timeout!r}.")
    if not (timeout > 0 and math.isfinite(timeout)):
        raise ValueError(f"start_timeout must be more than 0 seconds, and finite, not {timeout}.")
    return float(timeout)


def checked_databases(databases: object) -> tuple[Path, ...]:
    if isinstance(databases, (str, bytes, os.PathLike)) or not isinstance(databases, Iterable):
        raise TypeError(f"databases must be a list of paths, not {databases!r}.")
    files = []
    for database in databases:
        if not isinstance(database, (str, os.PathLike)):
            raise TypeError(f"databases must be a list of paths, not of {database!r}.")
        file = Path(database).absolute()
        if not file.is_file():
            raise FileNotFoundError(f"databases names {os.fspath(database)}, which is not a file.")
        files.append(file)
    return tuple(files)


def checked_macros(macros: object) -> dict[str, str]:
    if not isinstance(macros, Mapping):
        raise TypeError(f"macros must be a mapping of names to values, not {macros!r}.")
    for name, value in macros.items():
        if not isinstance(name, str) or not MACRO.fullmatch(name):
            raise ValueError(f"macros names {name!r}, which is not a macro's name.")
        if not isinstance(value, (str, int, float)) or not str(value).isprintable():
            raise ValueError(f"macros gives {name} the value {value!r}, which is neither a line of text nor a number.")
    return {name: str(value) for name, value in macros.items()}
