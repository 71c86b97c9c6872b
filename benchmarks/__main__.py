"""`python -m benchmarks`: what subscribing gains over polling, measured on this machine.

Without a scenario all of the report's are run, each in a process of its own and with an IOC of
its own on loopback, and a folder gets results.json, report.html and pictures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from . import report, results

SCENARIOS = {
    "path": "from Done to the finished status by direct, beside the floor of Python, in pairs",
    "latency": "from Done to the client, by every way of waiting, quiet and under load",
    "scale": "what 1 to 1,000 flyers in flight cost, and how they finish together",
    "turnaround": "zero-length flights per second through a RunEngine",
    "collect": "what collect costs, and how that grows with the number of points",
    "kickoff": "what kickoff() costs beside a bare put, also with a frozen IOC",
}
"""Those of the report, each with `measure(quick)` and `show(results)`."""

BESIDE = {
    "imports": "what importing the package costs beside importing bluesky and ophyd",
    "consumers": "from Done to the finished status while the RunEngine waits for a frozen Tiled server",
}
"""Of the same kind, on request."""


def main() -> int:
    """Run what was asked for; 1 where a limit is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under 3 minutes: few samples, fewer ways")
    parser.add_argument(
        "--out", type=Path, default=Path("benchmark-results"), metavar="FOLDER", help="of the report (%(default)s)"
    )
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="print ratios to these results")
    parser.add_argument("--from", type=Path, dest="made", metavar="NEW.json", help="measure nothing, take these")
    scenarios = parser.add_subparsers(dest="scenario", metavar="SCENARIO")
    for name, what in (SCENARIOS | BESIDE).items():
        scenario = scenarios.add_parser(name, help=what)
        scenario.add_argument("--quick", action="store_true", help="fewer samples", default=argparse.SUPPRESS)
        scenario.add_argument("--json", type=Path, metavar="FILE", help="save what was measured")
        if name == "path":
            scenario.add_argument("--pv", help="of another busy record; it is flown")
            scenario.add_argument("--length-pv", metavar="PV", help="takes a flight's seconds; without, we write Done")
    soak = scenarios.add_parser("soak", help="very many flights: none hangs, none ends early or twice, nothing grows")
    soak.add_argument("--flights", type=int, default=100_000, help="of zero length (%(default)s)")
    soak.add_argument("--random", type=int, default=1_000, help="of random length up to 50 ms (%(default)s)")
    soak.add_argument("--events", choices=["direct", "ophyd"], nargs="+", default=["direct", "ophyd"])
    restarts = scenarios.add_parser("restarts", help="threads and memory of a client whose IOC is restarted")
    restarts.add_argument("--n", type=int, default=100, help="restarts (%(default)s)")
    arguments = parser.parse_args()
    if arguments.scenario == "restarts":
        from . import restarts as restarting

        return restarting.run(arguments.n)
    if arguments.scenario == "soak":
        from .stage import start_ioc

        start_ioc()  # before ophyd is imported, which starts Channel Access
        from . import soak as soaking

        return soaking.run(arguments.flights, arguments.random, arguments.events)
    if arguments.scenario is not None:
        options = {"pv": arguments.pv, "length_pv": arguments.length_pv} if arguments.scenario == "path" else {}
        return _one(arguments.scenario, arguments.quick, arguments.json, **options)
    found = results.load(arguments.made) if arguments.made is not None else _all(arguments.quick)
    return _report(found, arguments.out, arguments.compare)


def _one(name: str, quick: bool, file: Path | None, **options: Any) -> int:
    scenario = import_module(f".{name}", __package__)
    found = scenario.measure(quick, **options)
    if file is not None:
        file.write_text(json.dumps(found))
    return int(not scenario.show(found))


def _all(quick: bool) -> dict[str, Any]:
    """Each in a process of its own, as Channel Access is started once in a process."""
    began = time.monotonic()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in SCENARIOS:
            print(f"\n{name}: {SCENARIOS[name]}", flush=True)
            file = Path(folder, name)
            command = [sys.executable, "-m", "benchmarks", name, "--json", str(file), *["--quick"] * quick]
            if subprocess.run(command).returncode not in (0, 1) or not file.exists():
                raise SystemExit(f"{name} has failed: the others' results are lost")
            found[name] = json.loads(file.read_text())
    command_line = " ".join(["python -m benchmarks", *sys.argv[1:]])
    return {"made": results.made(command_line, quick, time.monotonic() - began), **found}


def _report(found: dict[str, Any], folder: Path, old: Path | None) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    results.save(folder / "results.json", found)
    page = report.render(found, folder)
    report.pictures(found, folder)
    if old is not None:
        print()
        print(results.compare(results.load(old), found))
    print("\ntargets")
    kept = results.print_targets(found)
    print(f"\nThe report is {page}.")
    return int(not kept)


if __name__ == "__main__":
    sys.exit(main())
