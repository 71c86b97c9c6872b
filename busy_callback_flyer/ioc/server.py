"""The process of the embedded IOC: ``python -m busy_callback_flyer.ioc.server``.

`busy_callback_flyer.ioc.EmbeddedIOC` starts and watches it. What it has to tell
goes to stdout, a line each that begins with ``MARK``. It ends on SIGTERM and when
its stdin is closed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .base import EpicsBase, IOCError
from .busy_record import BusyRecordType
from .process import MARK, PORT_TAKEN
from .repeater import LOOPBACK, is_free
from .self_check import SELF_CHECK_PREFIX, SelfCheck, die_with_parent

__all__ = ["main"]

EXIT_TIMEOUT = 3.0  # seconds for an orderly end
SWITCH_INTERVAL = 1e-4  # seconds that a record's processing may wait for the controller's Python code

HERE = Path(__file__).parent


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the IOC until it is told to end. Does not return."""
    options = parse(arguments)
    die_with_parent()
    if os.getppid() != options.parent:
        os._exit(1)  # it ended before we could watch it
    # blocked before EPICS makes threads, so that only the main thread sees them, in sigwait
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    threading.Thread(target=watch_stdin, name="watch-stdin", daemon=True).start()
    sys.setswitchinterval(SWITCH_INTERVAL)
    status = 1
    try:
        ioc = IOC(options)
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
        ioc.stop()
        status = 0
    except PortTakenError:
        status = PORT_TAKEN
    except (IOCError, OSError) as error:
        say("error", str(error))
    except BaseException:
        traceback.print_exc()
    # without Python's own tidying, under which threads of EPICS would crash
    os._exit(status)


class PortTakenError(IOCError):
    """Another server has the port that this one was given."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The process's options."""
    parser = argparse.ArgumentParser(prog="python -m busy_callback_flyer.ioc.server", description=__doc__)
    parser.add_argument("--prefix", required=True, help="first part of the records' names")
    parser.add_argument("--port", required=True, type=int, help="port of the Channel Access server, TCP and UDP")
    parser.add_argument("--repeater-port", required=True, type=int, help="port that beacons go to")
    parser.add_argument("--parent", required=True, type=int, help="process to end with")
    parser.add_argument("--nelm", default=256, type=int, help="most points in an array")
    parser.add_argument("--controller", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--database", action="append", default=[], metavar="FILE", help="further records")
    parser.add_argument("--macro", action="append", default=[], metavar="NAME=VALUE", help="macros for them")
    return parser.parse_args(arguments)


class IOC:
    """The IOC, running once it is made."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._controller: Any = None
        self._busy_name = f"{options.prefix}mybusy"
        set_environment(options.port, options.repeater_port)
        self._base = EpicsBase()
        self._base.load_definitions()
        self._base.register()
        self._busy = BusyRecordType(self._base, self._processed)
        self._busy.register()
        self._load_records()
        self._busy.adopt_records()
        if not is_free(options.port):
            raise PortTakenError
        check = SelfCheck(self._base.libca_path)
        if options.controller:
            # iocInit sleeps for half a second: time enough to import numpy
            threading.Thread(target=import_controller, daemon=True).start()
        self._base.init()
        if not listens_on(options.port):
            raise PortTakenError  # somebody was quicker, and the server took another port without a word
        check.begin()
        if options.controller:
            controller_class, database_class = import_controller()
            self._controller = controller_class(database_class(self._base, options.prefix))
        self._judge(check.faults())
        for name in sorted(self._base.record_names()):
            if not name.startswith(SELF_CHECK_PREFIX):
                say("pv", name)
        say("ready")

    def _load_records(self) -> None:
        options = self._options
        macros = {"P": options.prefix, "NELM": str(options.nelm)}
        self._base.load_records(HERE / "self_check.db", {"S": SELF_CHECK_PREFIX})
        self._base.load_records(HERE / "flyscan.db", macros)
        if options.controller:
            for file in ("controller.db", "taxi.db"):
                self._base.load_records(HERE / file, macros)
        macros |= dict(macro.split("=", 1) for macro in options.macro)
        for file in options.database:
            self._base.load_records(file, macros)

    def _processed(self, name: str, value: int) -> None:
        if name == self._busy_name and self._controller is not None:
            self._controller.busy_changed(value)

    def _judge(self, faults: list[str]) -> None:
        if faults:
            raise IOCError(
                f"The busy record made from epicscorelibs {self._base.version} does not behave as one: "
                + "; ".join(faults)
                + "."
            )

    def stop(self) -> None:
        """End in order, or not, within `EXIT_TIMEOUT`."""
        leave_later()
        if self._controller is not None:
            self._controller.stop()
        self._base.exit()


def import_controller() -> tuple[Any, Any]:
    """The controller and what it works on, imported late because numpy takes a while."""
    from .controller import Controller
    from .database import IOCDatabase

    return Controller, IOCDatabase


def listens_on(port: int) -> bool:
    """Whether this process has a TCP server on that port."""
    for descriptor in os.listdir("/dev/fd"):
        with (
            contextlib.suppress(OSError),
            socket.fromfd(int(descriptor), socket.AF_INET, socket.SOCK_STREAM) as candidate,
        ):
            if candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) and candidate.getsockname()[1] == port:
                return True
    return False


def set_environment(port: int, repeater_port: int) -> None:
    """Let EPICS base see no other settings than ours."""
    for name in [name for name in os.environ if name.startswith("EPICS_")]:
        del os.environ[name]
    os.environ.update(
        EPICS_CAS_SERVER_PORT=str(port),
        EPICS_CAS_INTF_ADDR_LIST=LOOPBACK,
        EPICS_CAS_BEACON_ADDR_LIST=LOOPBACK,
        EPICS_CAS_AUTO_BEACON_ADDR_LIST="NO",
        EPICS_CAS_BEACON_PORT=str(repeater_port),
        # for the self-check, and for links between records that go by Channel Access
        EPICS_CA_SERVER_PORT=str(port),
        EPICS_CA_ADDR_LIST=f"{LOOPBACK}:{port}",
        EPICS_CA_AUTO_ADDR_LIST="NO",
        EPICS_CA_REPEATER_PORT=str(repeater_port),
    )


def say(topic: str, content: str = "") -> None:
    """Tell the parent process."""
    line = f"\n{MARK}{json.dumps([topic, content])}\n"
    with contextlib.suppress(OSError):
        os.write(1, line.encode())  # whole, whatever else writes


def watch_stdin() -> None:
    """End when the parent process closes our stdin, or ends."""
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(EXIT_TIMEOUT)
    os._exit(1)  # the main thread is stuck


def leave_later() -> None:
    """Make sure that the process ends."""
    timer = threading.Timer(EXIT_TIMEOUT, os._exit, (0,))
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    main()
