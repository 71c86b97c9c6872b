"""ophyd's other control layer."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from busy_callback_flyer.ioc import EmbeddedIOC

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
    pytest.importorskip("caproto", reason="ophyd's other control layer is not installed")
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
