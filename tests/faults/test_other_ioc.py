"""An array on another IOC than the busy record: its stamps are another clock's."""

from __future__ import annotations

import json
import os
import subprocess
import sys

PROGRAM = """
import json, os
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
    for fresh in (None, True, False):
        flyer = make_flyer(
            "ifly",
            busy="one:mybusy",
            arrays={"x": "one:x_array", "y": {"pv": "two:y_array", "fresh": fresh}},
            fresh_timeout=0,
            on_ragged="truncate",
            events=events,
        )
        flyer.wait_for_connection(timeout=20)
        epics.caput("two:y_array", [1.0, 2.0, 3.0], wait=True)  # before the flight
        epics.caput("one:npts", 3, wait=True)
        epics.caput("one:duration", 0.01, wait=True)
        flyer.kickoff().wait(20)
        try:
            flyer.complete().wait(20)
            (page,) = flyer.collect_pages()
            said.append([events, fresh, page["data"]["ifly_y"]])
        except StaleArrayError as error:
            said.append([events, fresh, str(error)])
print(json.dumps(said))
"""


def test_stamps_of_another_ioc_are_judged_on_request() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EPICS_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert [(events, fresh) for events, fresh, _ in said] == [
        (events, fresh) for events in ("direct", "ophyd") for fresh in (None, True, False)
    ]
    for _, fresh, outcome in said:
        if fresh:
            assert "two:y_array" in outcome
            assert "one:x_array" not in outcome
        else:
            assert outcome == [1.0, 2.0, 3.0]
