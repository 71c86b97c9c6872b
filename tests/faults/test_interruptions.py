"""Every way into and out of a plan, in flight: what README.md says of it is what happens.

`interruptions.py` has the plans and the ways to interrupt them; Ctrl-C is a real signal. Before and after each,
another flight is flown, and brings its own rows: those of one are in no other run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import epics
import pytest

from busy_callback_flyer import PollingFlyer

from ..conftest import INTERRUPTED, PREFIX, look
from .interruptions import PLANS, HandFlyer, Scene, documented, flies_well, interrupt, notices_failures_at_once, until

DOCUMENTED = documented()
Record = Callable[[str, object], None]


IN_PROCESS = [
    pytest.param(
        *cell,
        id=" - ".join(cell),
        marks=notices_failures_at_once if cell[0] == "failure of another device" else (),
    )
    for cell in DOCUMENTED
    if cell[0] != "IOC lost"
]


class PollingHandFlyer(HandFlyer, PollingFlyer):
    """Its controller is the test, too."""


@pytest.fixture(params=["direct", *(pytest.param(way, marks=pytest.mark.slow) for way in ("ophyd", "polling"))])
def scene(request: pytest.FixtureRequest, make_flyer: Callable[..., HandFlyer]) -> Iterator[Scene]:
    polls = request.param == "polling"
    yield Scene(make_flyer(PollingHandFlyer) if polls else make_flyer(HandFlyer, events=request.param))
    epics.caput(f"{PREFIX}own", 0)


@pytest.mark.parametrize(("interruption", "kind"), IN_PROCESS)
def test_interrupted(scene: Scene, interruption: str, kind: str, record_property: Record) -> None:
    flies_well(scene, kind)
    outcome = interrupt(scene, kind, interruption)
    record_property(INTERRUPTED, (interruption, kind, str(outcome)))
    assert str(outcome) == DOCUMENTED[interruption, kind]
    if outcome.record == "Busy":
        assert look(f"{PREFIX}own")[0] == 1
        scene.flyer.stop()  # as the warning says
    until(lambda: look(f"{PREFIX}own")[0] == 0)
    flies_well(scene, kind)


PROGRAM = """
import json, os, sys, threading
from pathlib import Path
from busy_callback_flyer.ioc import EmbeddedIOC

ioc = EmbeddedIOC("prj:", databases=[Path(sys.argv[1])])
ioc.start()
os.environ.update(ioc.client_environment)

import epics
from tests.faults.interruptions import HandFlyer, Scene, flies_well, interrupt

kind = sys.argv[2]
flyer = HandFlyer("prj:", name="ifly", reconnect_timeout=0.2)
flyer.wait_for_connection(timeout=20)
scene = Scene(flyer)
flies_well(scene, kind)
outcome = interrupt(scene, kind, "IOC lost", ioc.kill)
ioc.restart()
flyer.wait_for_connection(timeout=60)
assert epics.get_pv("prj:own", connect=True, timeout=20).get(use_monitor=False, timeout=20) == 0
flies_well(scene, kind)
print(json.dumps(str(outcome)))
"""


SLOW_PLANS = [pytest.param(kind, marks=pytest.mark.slow) for kind in PLANS if kind != "plans.fly"]


@pytest.mark.parametrize("kind", ["plans.fly", *SLOW_PLANS])
def test_lost_ioc(kind: str, record_property: Record) -> None:
    """In a process with an IOC to lose."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(root / "tests/strange.db"), kind],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=root,
        env={name: value for name, value in os.environ.items() if not name.startswith("EPICS_")},
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout.splitlines()[-1])
    record_property(INTERRUPTED, ("IOC lost", kind, outcome))
    assert outcome == DOCUMENTED["IOC lost", kind]
