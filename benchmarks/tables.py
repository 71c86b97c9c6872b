"""The tables in the READMEs, made from the results: ``python -m benchmarks.tables RESULTS.json README.md ...``.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``, and what is there is replaced.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from .results import (
    DIRECT,
    FASTEST_POLLING,
    FLOOR,
    POLLING,
    PYTHON_FLOOR,
    QUIET,
    WITHOUT_EPICS,
    Results,
    delays_us,
    digits,
    flights_a_second,
    load,
    paired_ratio,
    percentiles,
    starts_us,
    targets,
    turnarounds,
)

BRIEF = (DIRECT, "ophyd SubscriptionStatus", FASTEST_POLLING, "polling 10 ms", POLLING, FLOOR)
"""Ways of the main README's table."""

_PLACE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(text: str, results: Results) -> str:
    """The text with its tables as the results have them."""
    return _PLACE.sub(lambda found: f"{found[1]}{TABLES[found[2]](results)}\n{found[3]}", text)


def _table(heads: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _ms(microseconds: float) -> str:
    return digits(microseconds / 1000)


def brief(results: Results) -> str:
    """From Done to the client, the ways that a reader has to choose from."""
    quiet = delays_us(results)[QUIET]

    def rows() -> Iterator[Sequence[str]]:
        for way in (way for way in BRIEF if way in quiet):
            p50, p99 = percentiles(quiet[way], 50, 99)
            yield way, _ms(p50), _ms(p99), digits(p50 / percentiles(quiet[DIRECT], 50)[0])

    return _table(["from the IOC's Done until it is known", "median, ms", "99 %, ms", "median / direct"], rows())


def quiet(results: Results) -> str:
    """From Done to the client, every way."""
    found = results["latency"]["conditions"][QUIET]
    delays = delays_us(results)[QUIET]

    def rows() -> Iterator[Sequence[str]]:
        for way in sorted(delays, key=lambda way: percentiles(delays[way], 50)):
            figures = percentiles(delays[way], 50, 90, 99, 100)
            after = found[way].get("next_us")
            yield (
                way,
                str(len(delays[way])),
                *map(_ms, figures),
                _ms(percentiles(after, 50)[0]) if after else "",
                digits(figures[0] / percentiles(delays[FLOOR], 50)[0]),
            )

    heads = ["way of waiting", "flights", "p50, ms", "p90", "p99", "max", "next message, p50", "p50 / C client"]
    return _table(heads, rows())


def hops(results: Results) -> str:
    """Where the time goes, by the medians of what each flight tells."""
    found = results["latency"]["conditions"][QUIET]
    direct = {what: np.array(found[DIRECT][f"{what}_us"]) for what in ("event", "finished", "delay", "next")}
    in_c = float(np.median(found[FLOOR]["event_us"]))
    steps = [
        ("the IOC posts, kernel and network carry, libca takes it up (its handler, in C)", in_c),
        ("into Python: ctypes, the GIL, the handler of the event", float(np.median(direct["event"])) - in_c),
        (
            "the flight is judged, by that event and the put-callback",
            float(np.median(direct["finished"] - direct["event"])),
        ),
        ("the status calls back", float(np.median(direct["delay"] - direct["finished"]))),
        (
            "the RunEngine's loop wakes, the plan's next message runs",
            float(np.median(direct["next"] - direct["delay"])),
        ),
    ]
    total = sum(step for _, step in steps)
    return _table(
        ["hop", "µs", "share"], ((what, f"{step:.0f}", f"{100 * step / total:.0f} %") for what, step in steps)
    )


def conditions(results: Results) -> str:
    """p50 and p99 of each way under each condition."""
    found = results["latency"]["conditions"]
    delays = delays_us(results)
    loaded = [name for name in found if name != QUIET]
    ways = list(dict.fromkeys(way for name in loaded for way in found[name]))

    def cell(condition: str, way: str) -> str:
        if way not in found[condition]:
            return ""
        gave_up = "gave up" if "failure" in found[condition][way] else ""
        if way not in delays[condition]:
            return gave_up
        p50, p99 = percentiles(delays[condition][way], 50, 99)
        return f"{_ms(p50)} · {_ms(p99)}" + (f", {gave_up}" if gave_up else "")

    def rows() -> Iterator[Sequence[str]]:
        for way in ways:
            yield way, *(cell(condition, way) for condition in [QUIET, *loaded])

    return _table(["p50 · p99, ms", QUIET, *loaded], rows())


def start(results: Results) -> str:
    """From kickoff to the IOC's stamp of Busy, p50 and p90 under each condition."""
    found = starts_us(results)
    ways = list(dict.fromkeys(way for starts in found.values() for way in starts))

    def cell(starts: dict[str, list[float]], way: str) -> str:
        return " · ".join(map(_ms, percentiles(starts[way], 50, 90))) if way in starts else ""

    return _table(["p50 · p90, ms", *found], ((way, *(cell(found[name], way) for name in found)) for way in ways))


def path(results: Results) -> str:
    """Direct beside the floor of Python, flown in pairs."""
    told = results.get("path", {}).get("ways", {})

    def rows() -> Iterator[Sequence[str]]:
        for way, samples in told.items():
            delays = [delay for block in samples["blocks_us"] for delay in block]
            yield way, f"{len(delays):,}", *map(_ms, percentiles(delays, 50, 90))
        if {DIRECT, PYTHON_FLOOR} <= told.keys():
            ratios = [paired_ratio(told[DIRECT]["blocks_us"], told[PYTHON_FLOOR]["blocks_us"], p) for p in (50, 90)]
            yield "ratio (95 %)", "", *("{} ({} to {})".format(*map(digits, ratio)) for ratio in ratios)

    return _table([results.get("path", {}).get("ioc", "not measured"), "flights", "p50, ms", "p90, ms"], rows())


def scale(results: Results) -> str:
    """What flyers in flight cost."""
    seconds = results["scale"]["waiting_s"]

    def rows() -> Iterator[Sequence[str]]:
        for point in results["scale"]["points"]:
            flyers = point["flyers"]
            per_minute = max(flyers, 1) * seconds / 60
            known = percentiles(point["finish_us"], 50, 100) if flyers else []
            yield (
                point["way"],
                f"{flyers:,}",
                str(point["threads"] - point["threads_before"]),
                digits(100 * point["cpu_s"] / seconds),
                digits(1000 * point["cpu_s"] / per_minute),
                digits(point["packets"] / per_minute),
                digits(point["bytes"] / per_minute),
                digits(point["memory_bytes"] / flyers / 1000) if flyers else "",
                " · ".join(map(_ms, known)),
            )

    heads = ["way of waiting", "flyers", "threads added", "CPU, % of a core", "CPU, ms a flyer-minute"]
    heads += ["packets a flyer-minute", "bytes", "memory, kB a flyer", "all finish: p50 · last, ms"]
    return _table(heads, rows())


def turnaround(results: Results) -> str:
    """Flights a second."""

    def rows() -> Iterator[Sequence[str]]:
        for points, ways in turnarounds(results).items():
            rates = flights_a_second(ways)
            for way, told in ways.items():
                part = rates[way] / rates[WITHOUT_EPICS]
                yield way, points, str(len(told["flight_us"])), digits(rates[way]), digits(part)

    return _table(["flyer", "points", "flights", "runs a second", "of the ceiling"], rows())


def kept(results: Results) -> str:
    """The targets, and whether they are kept."""

    def rows() -> Iterator[Sequence[str]]:
        for target in targets(results):
            limit = f"{target.bound} {target.limit:g}{target.unit}"
            yield target.name, target.figure, limit, "kept" if target.kept else "**missed**"

    return _table(["target", "measured", "limit", ""], rows())


def made(results: Results) -> str:
    """By what, where and when."""
    told = results["made"]
    machine = told["machine"]
    stolen = results["latency"]["stolen_percent"]["quiet"]
    versions = ", ".join(f"{package} {version}" for package, version in told["versions"].items())
    return (
        f"`{told['command']}`, {told['when'][:10]}, {told['seconds'] / 60:.0f} minutes, on {machine['cores']} cores "
        f"({machine['processor']}, {machine['system']}) of a virtual machine, whose host took {stolen:g} % of its CPU "
        f"for others in the quiet part; {versions}."
    )


TABLES: dict[str, Callable[[Results], str]] = {
    table.__name__: table for table in (brief, path, quiet, hops, conditions, start, scale, turnaround, kept, made)
}


def main(results: str, *readmes: str) -> None:
    """Write them."""
    for readme in map(Path, readmes):
        readme.write_text(fill(readme.read_text(), load(results)))


if __name__ == "__main__":
    main(*sys.argv[1:])
