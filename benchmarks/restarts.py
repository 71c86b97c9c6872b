"""What a restart of the IOC leaves behind in a client: threads and memory, with a flyer and with pyepics' PVs alone.

`python -m benchmarks restarts`. Each client is a process, `python -m benchmarks.restarts flyer` or
`... pyepics PV ...`, of as many PVs; both see the same restarts.
"""

from __future__ import annotations

import contextlib
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import psutil
from tqdm import tqdm

from .stage import PREFIX, hold, start_ioc

MOST_KB = 10.0
"""That a restart may cost with a flyer more than with pyepics alone."""

TIMEOUT = 60.0
"""Seconds that a client may need to find the IOC again."""

SETTLE = 0.2
"""Seconds for the threads of the lost circuit to end."""


def run(restarts: int) -> int:
    """Restart so often; print what grew. 1 where a limit is missed."""
    ioc = start_ioc()
    with _client("flyer") as flyer:
        pvs = flyer()["pvs"]
        with _client("pyepics", *pvs) as pyepics:
            clients = {"flyer": flyer, f"pyepics, {len(pvs)} PVs": pyepics}
            told = {name: [client()] for name, client in clients.items()}
            for _ in tqdm(range(restarts), desc="restarts", disable=None, leave=False):
                ioc.restart()
                for name, client in clients.items():
                    told[name].append(client())
    growth, threads = {}, {}
    for name, samples in told.items():
        growth[name] = _kb_a_restart([sample["rss"] for sample in samples])
        first, last = samples[0], samples[-1]
        threads[name] = last["threads"] - first["threads"]
        print(
            f"     {name}: {first['threads']} threads before, {last['threads']} after {restarts} restarts; "
            f"{first['rss'] / 1e6:.2f}, {last['rss'] / 1e6:.2f} MB; {growth[name]:.2f} kB a restart"
        )
    kept = [
        hold(f"{what}, flyer less pyepics", with_flyer - alone, limit)
        for what, (with_flyer, alone), limit in (
            ("kB a restart", growth.values(), MOST_KB),
            ("threads gained", threads.values(), 0),
        )
    ]
    return int(not all(kept))


def _kb_a_restart(rss: list[int]) -> float:
    """The slope, without the first tenth, in which pools are filled."""
    settled = rss[max(1, len(rss) // 10) :]
    return float(np.polyfit(range(len(settled)), settled, 1)[0]) / 1000 if len(settled) > 1 else 0.0


@contextlib.contextmanager
def _client(*arguments: str) -> Iterator[Callable[[], dict[str, Any]]]:
    """Its program; what is yielded asks it."""
    program = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.restarts", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # libca tells of each loss
        text=True,
    )
    assert program.stdin is not None
    assert program.stdout is not None
    stdin, stdout = program.stdin, program.stdout

    def ask() -> dict[str, Any]:
        stdin.write("\n")
        stdin.flush()
        answer: dict[str, Any] = json.loads(stdout.readline())
        return answer

    try:
        yield ask
    finally:
        stdin.close()
        try:
            program.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            program.kill()


# The clients


def _flyer() -> tuple[Callable[[], Any], list[str]]:
    from busy_callback_flyer import BusyFlyer

    flyer = BusyFlyer(PREFIX, name="ifly")
    pvs = {pv for walked in flyer.walk_signals() for pv in (walked.item.pvname, _setpoint(walked.item)) if pv}

    def fly() -> None:
        flyer.wait_for_connection(timeout=TIMEOUT)
        flyer.kickoff().wait(TIMEOUT)
        flyer.complete().wait(TIMEOUT)

    return fly, sorted(pvs)


def _setpoint(signal: Any) -> str:
    return str(getattr(signal, "setpoint_pvname", ""))


def _pyepics(pvs: list[str]) -> tuple[Callable[[], Any], list[str]]:
    import ophyd  # noqa: F401 - before epics: it chooses the libca that pyepics loads

    # isort: split
    import epics

    channels = [epics.PV(pv) for pv in pvs]

    def read() -> None:
        for channel in channels:
            if not channel.wait_for_connection(timeout=TIMEOUT):
                raise TimeoutError(f"{channel.pvname} did not come back within {TIMEOUT:g} s")
            channel.get(timeout=TIMEOUT)

    return read, pvs


def main(way: str, *names: str) -> None:
    """At each line of the input: use the IOC, then tell what we take."""
    use, pvs = _flyer() if way == "flyer" else _pyepics(list(names))
    process = psutil.Process()
    for _ in iter(partial(sys.stdin.readline), ""):
        use()
        time.sleep(SETTLE)
        gc.collect()
        told = {"pvs": pvs, "threads": process.num_threads(), "rss": process.memory_info().rss}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
