"""`python -m benchmarks`: measure on this machine, against an IOC of our own."""

from __future__ import annotations

import argparse
import sys

from .stage import start_ioc


def main() -> int:
    """Run the scenario that was asked for; 1 where it misses its limits."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    scenarios = parser.add_subparsers(dest="scenario", required=True)
    soak = scenarios.add_parser("soak", help="very many flights: none hangs, none ends early or twice, nothing grows")
    soak.add_argument("--flights", type=int, default=100_000, help="of zero length (%(default)s)")
    soak.add_argument("--random", type=int, default=1_000, help="of random length up to 50 ms (%(default)s)")
    soak.add_argument("--events", choices=["direct", "ophyd"], nargs="+", default=["direct", "ophyd"])
    smoke = scenarios.add_parser("smoke", help="IOC stamp of Done to the finished status: BusyFlyer, ophyd, a C client")
    smoke.add_argument("--flights", type=int, default=500, help="of each way (%(default)s)")
    kickoff = scenarios.add_parser("kickoff", help="what kickoff() costs beside a bare put, also with a frozen IOC")
    kickoff.add_argument("--kickoffs", type=int, default=500, help="of each kind (%(default)s)")
    collect = scenarios.add_parser("collect", help="what collect costs, and how that grows with the number of points")
    collect.add_argument("--quick", action="store_true", help="fewer points and repeats")
    collect.add_argument("--plot", metavar="FILE.png", help="save time against points")
    arguments = parser.parse_args()

    # Each is imported after its IOC runs: importing ophyd starts Channel Access.
    if arguments.scenario == "soak":
        start_ioc()
        from . import soak as scenario

        return scenario.run(arguments.flights, arguments.random, arguments.events)
    if arguments.scenario == "smoke":
        start_ioc()
        from . import smoke as compare

        return compare.run(arguments.flights)
    if arguments.scenario == "collect":
        start_ioc(nelm=1_000_000, prefix="prj:")  # the tutorial's flyer has that built in
        from . import collect as collecting

        return collecting.run(quick=arguments.quick, plot=arguments.plot)
    ioc = start_ioc()
    from . import kickoff as cost

    return cost.run(ioc, arguments.kickoffs)


if __name__ == "__main__":
    sys.exit(main())
