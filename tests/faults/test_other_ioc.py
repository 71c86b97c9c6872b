"""An array on another IOC than the busy record: another circuit and clock. Its stamp has to differ, no more."""

from __future__ import annotations

import json
import os
import subprocess
import sys

PROGRAM = """
import json, os, time
from busy_callback_flyer.ioc import EmbeddedIOC

one, two = EmbeddedIOC("one:"), EmbeddedIOC("two:")
one.start()
two.start()
environment = one.client_environment
environment["EPICS_CA_ADDR_LIST"] += " " + two.client_environment["EPICS_CA_ADDR_LIST"]
os.environ.update(environment)

import epics
from busy_callback_flyer import StaleArrayError, make_flyer

said = []
for events in ("direct", "ophyd"):
    for fresh, written in ((True, False), (True, True), (False, False)):
        flyer = make_flyer(
            "ifly",
            busy="one:mybusy",
            arrays={"x": "one:x_array", "y": {"pv": "two:y_array", "fresh": fresh}},
            fresh_timeout=0,
            on_stale="error",
            on_ragged="truncate",
            events=events,
        )
        flyer.wait_for_connection(timeout=20)
        epics.caput("two:y_array", [1.0, 2.0, 3.0], wait=True)  # before the flight
        epics.caput("one:npts", 3, wait=True)
        epics.caput("one:duration", 60 if written else 0.01, wait=True)
        status = flyer.kickoff()
        if written:
            while "busy" not in flyer.timeline:
                time.sleep(0.001)
            epics.caput("one:x_array", [4.0, 5.0, 6.0], wait=True)
            epics.caput("two:y_array", [4.0, 5.0, 6.0], wait=True)
            epics.caput("one:mybusy", 0)
        status.wait(20)
        try:
            flyer.complete().wait(20)
            (page,) = flyer.collect_pages()
            said.append([events, fresh, written, page["data"]["ifly_y"]])
        except StaleArrayError as error:
            said.append([events, fresh, written, str(error)])
print(json.dumps(said))
"""


def test_arrays_of_another_ioc_are_judged() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EPICS_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    for events, three in (("direct", said[:3]), ("ophyd", said[3:])):
        assert [(way, fresh, written) for way, fresh, written, _ in three] == [
            (events, True, False),
            (events, True, True),
            (events, False, False),
        ]
        stale, ours, as_it_is = (outcome for *_, outcome in three)
        assert "not written since the put of Busy: two:y_array" in stale
        assert "one:x_array" not in stale
        assert ours == [4.0, 5.0, 6.0]
        assert as_it_is == [1.0, 2.0, 3.0]
