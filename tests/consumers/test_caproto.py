"""caproto, as ophyd's control layer and as a server."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

from busy_callback_flyer.ioc import EmbeddedIOC

from .conftest import free_ports

CAPROTO = """
import sys
from busy_callback_flyer import BusyFlyer
import ophyd
assert ophyd.get_cl().name == "caproto"
flyer = BusyFlyer("cl:", name="ifly", flight_timeout=20)
flyer.wait_for_connection(timeout=20)
flyer.when_busy = "fail"
for _ in range(3):
    flyer.kickoff().wait(20)
    flyer.complete().wait(20)
    (page,) = flyer.collect_pages()
    print(len(page["time"]))
"""


def test_another_control_layer() -> None:
    """The default falls back to ophyd's events; the same flights, the same arrays."""
    with EmbeddedIOC("cl:") as ioc:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("EPICS_")}
        environment |= ioc.client_environment | {"OPHYD_CONTROL_LAYER": "caproto"}
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(CAPROTO)],
            capture_output=True,
            text=True,
            timeout=90,
            env=environment,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["51"] * 3


READ_ONLY = """
from caproto import ChannelType
from caproto.server import PVGroup, pvproperty, run


class ReadOnly(PVGroup):
    mybusy = pvproperty(value=0, dtype=ChannelType.ENUM, enum_strings=["Done", "Busy"], read_only=True)
    x_array = pvproperty(value=[0.0] * 5, max_length=5, read_only=True)


run(ReadOnly(prefix="ro:").pvdb, interfaces=["127.0.0.1"], startup_hook=None)
"""


def test_a_read_only_busy_on_a_server_that_is_no_ioc() -> None:
    (port,) = map(str, free_ports(1))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EPICS_")}
    server = {
        **environment,
        "EPICS_CA_SERVER_PORT": port,
        "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "no",
        "EPICS_CAS_BEACON_ADDR_LIST": "",
    }
    client = {**environment, "EPICS_CA_ADDR_LIST": f"127.0.0.1:{port}", "EPICS_CA_AUTO_ADDR_LIST": "NO"}
    options = ["--arrays", "x_array", "--timeout", "20"]
    command = [sys.executable, "-m", "busy_callback_flyer.tools.cli", "check", "ro:", *options]
    with subprocess.Popen([sys.executable, "-c", READ_ONLY], env=server) as serving:
        try:
            done = subprocess.run(command, env=client, capture_output=True, text=True, timeout=100)
        finally:
            serving.kill()
    assert done.returncode == 1
    assert "FAIL  ro:mybusy: it is read-only for this user and host" in done.stdout
    assert "ok    ro:x_array: an array of up to 5 doubles" in done.stdout
    assert "not connected" not in done.stdout, "OUT and FLNK are not needed"
