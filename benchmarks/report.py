"""The results as a page that needs nothing else, and as pictures."""

from __future__ import annotations

import base64
import io
import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from .results import (
    ARRAYS,
    DIRECT,
    FASTEST_POLLING,
    FLOOR,
    GIL,
    OPHYD,
    POLLING,
    PYTHON_FLOOR,
    QUIET,
    SLEEPS,
    SLOW_SUBSCRIBER,
    STORM,
    WITHOUT_EPICS,
    Results,
    delays_us,
    digits,
    flights_a_second,
    is_peer,
    percentiles,
    ratio_with_interval,
    targets,
    turnarounds,
)

TEMPLATE = "report.html.j2"
PAGE = "report.html"

DPI = 150
SLIDE = (9.6, 5.4)
"""Inches of the pictures that stand alone."""


class Style(NamedTuple):
    """How a way is drawn, and what it is."""

    colour: str
    what: str
    width: float = 1.4
    dash: str = "-"


WAYS = {
    DIRECT: Style("#0b57d0", "this package: libca's own event finishes the flight, in libca's thread", 3.6),
    OPHYD: Style("#5e9bff", "this package by ophyd's signals, for control layers other than pyepics", 2.6),
    "ophyd SubscriptionStatus": Style("#188038", "ophyd's subscription to the record, by the event of Done alone"),
    "ophyd put_complete": Style("#7b2cbf", "ophyd's put of Busy, which the IOC answers when all is over"),
    "pyepics callback": Style("#00a39a", "a callback of pyepics, the library below ophyd, by the event of Done alone"),
    FASTEST_POLLING: Style("#7f2704", "a thread that reads the record every millisecond", 1.8),
    "polling 5 ms": Style("#b63c02", "the same, every 5 ms", 1.8),
    "polling 10 ms": Style("#e05206", "the same, every 10 ms", 1.8),
    POLLING: Style("#f58025", "the same, every 50 ms: bluesky's tutorial, and so most beamlines", 2.6),
    "polling 100 ms": Style("#fdb06b", "the same, every 100 ms", 1.8),
    "polling a cache, 10 ms": Style(
        "#d9a300", "every 10 ms a look at the value that the client was last sent, without asking", 1.8, ":"
    ),
    "ophyd-async": Style("#c2185b", "the asyncio successor of ophyd"),
    "aioca": Style("#ff6fae", "an asyncio client on the same libca"),
    "caproto": Style("#795548", "a client that is Python throughout"),
    "ophyd on the Rust client": Style("#5f7a00", "ophyd's subscription, on a client written in Rust"),
    FLOOR: Style("#707070", "the floor: a program in C on the same libca that does nothing else", 2.2, "--"),
    PYTHON_FLOOR: Style(
        "#9c27b0", "the floor of Python: nothing but put-callback, Busy and Done, and nothing judged", 1.8, "--"
    ),
    WITHOUT_EPICS: Style(
        "#707070", "a flyer that is done at once and has its data in memory: the RunEngine's own time"
    ),
}

CONDITIONS = {
    QUIET: "nothing else goes on in the waiting program",
    GIL: "another thread computes in Python all the time; Python runs one thread at a time, and changes every 5 ms",
    "the same, switch interval 0.5 ms": "Python is asked to change threads ten times as often",
    SLOW_SUBSCRIBER: "somebody's callback for another value takes 50 ms, ten times a second",
    SLEEPS: "the same in pyepics' own thread, below ophyd",
    STORM: "1,000 other values arrive by pyepics, ten times a second each",
    ARRAYS: "an array of 8 MB arrives by pyepics ten times a second",
}

AHEAD_NOT = 1.0
"""Ratio to ours at which another way is not behind."""


@dataclass
class Picture:
    """One figure, twice: for wide and for narrow pages."""

    wide: str
    narrow: str
    alt: str


@dataclass
class Row:
    """Of a table: what it is about, its colour in the pictures, and the figures."""

    name: str
    cells: list[str]
    colour: str = ""
    kept: bool | None = None


@dataclass
class Table:
    """Figures in columns; the first heads the names."""

    heads: list[str]
    rows: list[Row]
    note: str = ""


@dataclass
class Section:
    """What was measured, what came of it in words, and the figures."""

    name: str
    title: str
    what: str
    says: list[str]
    picture: Picture | None = None
    tables: list[Table] = field(default_factory=list)


def render(results: Results, folder: Path | str) -> Path:
    """Write the page into this folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    flown = _all_ways(delays_us(results))
    page = environment.get_template(TEMPLATE).render(
        made=results["made"],
        when=results["made"]["when"].replace("T", " ").replace("+00:00", " UTC"),
        minutes=digits(results["made"]["seconds"] / 60),
        clock=[digits(bound) for bound in results.get("latency", {}).get("clock_us", [])],
        cards=list(_cards(results)),
        targets=targets(results),
        digits=digits,
        sections=list(_sections(results)),
        ways=[(way, style) for way, style in WAYS.items() if way in flown],
        conditions=[(name, CONDITIONS.get(name, "")) for name in _conditions(results)],
    )
    path = folder / PAGE
    path.write_text(page)
    return path


def pictures(results: Results, folder: Path | str) -> list[Path]:
    """Write those that stand alone: latency.png and collect.png, of what there is."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    made: list[tuple[str, Callable[[], Figure]]] = []
    if quiet := delays_us(results).get(QUIET):
        made.append(("latency.png", lambda: _draw_quiet(quiet, False, title=True)))
    if growth := results.get("collect", {}).get("growth"):
        made.append(("collect.png", lambda: _draw_collect(growth, False, title=True)))
    paths = []
    for name, draw in made:
        with mpl.rc_context(_rc(False)):
            figure = draw()
            figure.savefig(folder / name, dpi=DPI)
        paths.append(folder / name)
    return paths


def _cards(results: Results) -> Iterator[tuple[str, str]]:
    """The figures that stand first."""
    quiet = delays_us(results).get(QUIET, {})
    if DIRECT not in quiet:
        return
    ours = _p50(quiet[DIRECT])
    yield _ms(ours), "until BusyFlyer knows of Done (median)"
    if POLLING in quiet:
        yield _ms(_p50(quiet[POLLING])), "until polling every 50 ms does"
        yield f"{digits(_p50(quiet[POLLING]) / ours)} times", "as long by polling as by BusyFlyer"
    if FLOOR in quiet:
        yield f"{digits(ours / _p50(quiet[FLOOR]))} times", "the delay of a program in C on the same library"


def _sections(results: Results) -> Iterator[Section]:
    delays = delays_us(results)
    if QUIET in delays:
        yield _quiet_section(results, delays[QUIET])
    if len(delays) > 1:
        yield _conditions_section(delays)
    if points := [point for point in results.get("scale", {}).get("points", []) if point["flyers"]]:
        yield _cost_section(results["scale"], points)
        yield _together_section(points)
    if turned := turnarounds(results):
        yield _turnaround_section(turned)
    if growth := results.get("collect", {}).get("growth"):
        yield _collect_section(growth)
    if kickoff := results.get("kickoff"):
        yield _kickoff_section(kickoff)


# The delay in the quiet


def _quiet_section(results: Results, delays: dict[str, list[float]]) -> Section:
    told = _conditions(results)[QUIET]
    rows = []
    for way in _by_median(delays):
        delay = delays[way]
        p50, p90, p99, most = percentiles(delay, 50, 90, 99, 100)
        following = told[way].get("next_us")
        cells = [f"{len(delay)}", *(digits(value / 1000) for value in (p50, p90, p99, most))]
        cells.append(_interval(delay, delays[FLOOR]) if FLOOR in delays and way != FLOOR else "")
        cells.append(_interval(delays[POLLING], delay) if POLLING in delays and way != POLLING else "")
        cells.append(digits(_p50(following) / 1000) if following else "")
        cells += [str(told[way].get("early", "")), told[way].get("client", "")]
        rows.append(Row(way, cells, _style(way).colour))
    heads = ["way of waiting", "flights", "p50, ms", "p90, ms", "p99, ms", "max, ms"]
    heads += [f"p50 / {FLOOR}", f"p50 of {POLLING} / this", "next message, p50, ms", "early", "runs on"]
    note = (
        "In brackets: 95 % bootstrap intervals, which take flights as independent of each other. "
        "“Next message”: until the plan's next step runs, behind the waiting. "
        "“Early”: flights that were called over before they were."
    )
    note += "".join(f" {failure}" for failure in _failures(results))
    return Section(
        "quiet",
        "How long until Done is known",
        "Each flight has a length of its own, so that no polling falls into step with it. Half of the flights took no "
        "longer than p50, 99 in 100 no longer than p99.",
        list(_quiet_says(delays)),
        _picture(
            lambda narrow: _draw_quiet(delays, narrow),
            "Share of flights of which Done is known, against the delay on a logarithmic axis, a curve for each way. "
            "Medians: " + ", ".join(f"{way} {_ms(_p50(delays[way]))}" for way in _by_median(delays)) + ".",
        ),
        [Table(heads, rows, note)],
    )


def _quiet_says(delays: dict[str, list[float]]) -> Iterator[str]:
    if DIRECT not in delays:
        return
    ours = delays[DIRECT]
    p50, p99 = percentiles(ours, 50, 99)
    yield f"BusyFlyer (direct) knew of Done after {_ms(p50)} at the median, {_ms(p99)} at p99, of {len(ours)} flights."
    if POLLING in delays:
        slow50, slow99 = percentiles(delays[POLLING], 50, 99)
        yield (
            f"Polling every 50 ms took {_ms(slow50)} and {_ms(slow99)}: {_times(slow50 / p50)} at the median, "
            f"{_times(slow99 / p99)} at p99."
        )
    if FLOOR in delays:
        floor = _p50(delays[FLOOR])
        yield f"The C program, the floor, took {_ms(floor)} at the median; BusyFlyer {digits(p50 / floor)} times that."
    yield from _rivals(delays)


def _rivals(delays: dict[str, list[float]]) -> Iterator[str]:
    """Which of the other Python ways are not behind ours."""
    others = [way for way in _by_median(delays) if is_peer(way)]
    ratios = {way: ratio_with_interval(delays[way], delays[DIRECT], 50) for way in others}
    ahead = [way for way, (_, _, high) in ratios.items() if high < AHEAD_NOT]
    level = [way for way, (_, low, high) in ratios.items() if not (low > AHEAD_NOT or high < AHEAD_NOT)]
    if ahead:
        yield f"Faster than BusyFlyer at the median: {_list(f'{way} ({_ms(_p50(delays[way]))})' for way in ahead)}."
    if level:
        yield f"Not to be told from it at the median: {_list(f'{way} ({_ms(_p50(delays[way]))})' for way in level)}."
    if others and not ahead and not level:
        best = others[0]
        yield f"Of the other Python ways, {best} came next, with {_ms(_p50(delays[best]))}; none was as fast."
    p99 = percentiles(delays[DIRECT], 99)[0]
    sooner = [way for way in others if way not in ahead and percentiles(delays[way], 99)[0] <= p99]
    if sooner:
        yield f"At p99, BusyFlyer is not ahead of {_list(sooner)}."


def _draw_quiet(delays: dict[str, list[float]], narrow: bool, title: bool = False) -> Figure:
    figure = _figure(narrow, 5.4, 4.6 + 0.2 * len(delays))
    axes = figure.subplots()
    order = _by_median(delays)
    shares = np.concatenate([np.linspace(0, 0.99, 300), np.linspace(0.99, 1, 60)[1:]])
    for way in order:
        style = _style(way)
        values = np.maximum(np.quantile(delays[way], shares, method="inverted_cdf"), 1) / 1000
        front = 3 if way == DIRECT else 2.5 if way in (POLLING, FLOOR) else 2
        label = f"{way}  {_ms(_p50(delays[way]))}"
        axes.plot(values, 100 * shares, style.dash, color=style.colour, lw=style.width, zorder=front, label=label)
    axes.set_xscale("log")
    low = min(percentiles(delay, 0.1)[0] for delay in delays.values())
    high = max(percentiles(delay, 99.9)[0] for delay in delays.values())
    axes.set(xlim=(max(low, 10) * 0.8 / 1000, high * 1.25 / 1000), ylim=(0, 101))
    axes.set(xlabel="delay after Done, ms", ylabel="flights whose Done is known by then")
    _log_ticks(axes.xaxis)
    axes.yaxis.set_major_formatter(PercentFormatter())
    axes.axhline(50, color="#999999", lw=0.8, zorder=1)
    _legend(figure, narrow, "way of waiting, median delay", 1)
    if title:
        figure.suptitle("How soon is it known that the scan is over?", x=0.01, ha="left", weight="bold")
    return figure


# The delay under conditions


def _conditions_section(delays: dict[str, dict[str, list[float]]]) -> Section:
    ways = _all_ways(delays)
    rows = []
    for way in ways:
        cells = [
            " / ".join(digits(value / 1000) for value in percentiles(of_ways[way], 50, 99)) if way in of_ways else ""
            for of_ways in delays.values()
        ]
        rows.append(Row(way, cells, _style(way).colour))
    return Section(
        "conditions",
        "The same while the waiting program is busy",
        "A program that waits does other things, too. So the same was measured while each of these went on.",
        list(_conditions_says(delays)),
        _picture(
            lambda narrow: _draw_conditions(delays, narrow),
            "Median and 99th percentile of the delay of each way, by condition; the figures are in the table below.",
        ),
        [Table(["p50 / p99, ms", *delays], rows)],
    )


def _conditions_says(delays: dict[str, dict[str, list[float]]]) -> Iterator[str]:
    with_ours = {name: ways for name, ways in delays.items() if DIRECT in ways}
    if QUIET in with_ours and len(with_ours) > 1:
        worst = max(with_ours, key=lambda name: _p50(with_ours[name][DIRECT]))
        p50, p99 = percentiles(with_ours[worst][DIRECT], 50, 99)
        quiet = _ms(_p50(with_ours[QUIET][DIRECT]))
        if worst != QUIET:
            yield (
                f"BusyFlyer is slowest under “{worst}”: {_ms(p50)} at the median and {_ms(p99)} at p99, where "
                f"the quiet median is {quiet}."
            )
    ahead, behind = [], []
    for name, ways in with_ours.items():
        others = [way for way in _by_median(ways) if is_peer(way)]
        if not others:
            continue
        best, ours = _p50(ways[others[0]]), _p50(ways[DIRECT])
        if ours < best:
            ahead.append(name)
        else:
            behind.append(f"under “{name}” ({others[0]} {_ms(best)}, BusyFlyer {_ms(ours)})")
    if ahead:
        where = "under every condition" if not behind else f"under {_list(f'“{name}”' for name in ahead)}"
        yield f"Its median is ahead of every other Python way's {where}."
    if behind:
        yield f"Another is ahead of it {_list(behind)}."
    for name, ways in with_ours.items():
        if POLLING in ways and _p50(ways[POLLING]) <= _p50(ways[DIRECT]):
            yield f"Under “{name}”, even polling every 50 ms has no longer a median: {_ms(_p50(ways[POLLING]))}."


def _draw_conditions(delays: dict[str, dict[str, list[float]]], narrow: bool) -> Figure:
    # With the quiet alone, a way says nothing about conditions.
    ways = [way for way in _all_ways(delays) if sum(way in of_ways for of_ways in delays.values()) > 1]
    figure = _figure(narrow, 5.8, 1.4 + 1.3 * len(delays) + 0.1 * len(ways))
    axes = figure.subplots()
    first, last = (-0.22, 0.44) if narrow else (-0.38, 0.38)  # narrow ones have the condition's name above
    for shift, way in zip(np.linspace(first, last, len(ways)), ways, strict=True):
        places = [place for place, of_ways in enumerate(delays.values()) if way in of_ways]
        ends = np.array([percentiles(of_ways[way], 50, 99) for of_ways in delays.values() if way in of_ways]) / 1000
        medians, whiskers = ends[:, 0], [np.zeros(len(ends)), ends[:, 1] - ends[:, 0]]
        ours = way == DIRECT
        kind: dict[str, Any] = {"fmt": "o", "color": _style(way).colour, "label": way, "capsize": 2.5}
        kind |= {"ms": 7, "elinewidth": 2.6} if ours else {"ms": 5, "elinewidth": 1.4}
        if narrow:
            axes.errorbar(medians, np.add(places, shift), xerr=whiskers, **kind)
        else:
            axes.errorbar(np.add(places, shift), medians, yerr=whiskers, **kind)
    along, across = (axes.yaxis, axes.xaxis) if narrow else (axes.xaxis, axes.yaxis)
    for edge in np.arange(0.5, len(delays) - 1):
        (axes.axhline if narrow else axes.axvline)(edge, color="#bbbbbb", lw=0.8)
    along.set_ticks(range(len(delays)), [textwrap.fill(name, 16) for name in delays])
    along.set_tick_params(length=0)
    along.grid(False)
    (axes.set_xscale if narrow else axes.set_yscale)("log", nonpositive="mask")
    _log_ticks(across)
    if narrow:
        axes.set(ylim=(len(delays) - 0.5, -0.5), xlabel="delay after Done, ms\ndot: p50, whisker: up to p99", yticks=[])
        for place, name in enumerate(delays):
            axes.text(0.01, place - 0.47, name, transform=axes.get_yaxis_transform(), va="top", weight="bold")
    else:
        axes.set(xlim=(-0.5, len(delays) - 0.5), ylabel="delay after Done, ms\ndot: p50, whisker: up to p99")
    _legend(figure, True, "", 2 if narrow else 4)
    return figure


# What many flyers cost


def _cost_section(scale: dict[str, Any], points: list[dict[str, Any]]) -> Section:
    seconds = scale["waiting_s"]
    idle = next((point for point in scale["points"] if not point["flyers"]), None)
    rows = []
    for point in scale["points"]:
        each = point["flyers"]
        a_minute = 60 / seconds / max(each, 1)
        cells = [f"{each}", f"{point['threads'] - point['threads_before']}", digits(_share(point, seconds))]
        cells += [digits(point[what] * a_minute) for what in ("packets", "bytes")]
        cells += [digits(point["memory_bytes"] / each / 1000) if each else ""]
        cells += [digits(value / 1000) for value in percentiles(point["finish_us"], 50, 100)] if each else ["", ""]
        rows.append(Row(point["way"] if each else "no flyer", cells, _style(point["way"]).colour if each else ""))
    heads = ["way of waiting", "flyers", "threads added", "CPU, % of a core", "packets / min", "bytes / min"]
    heads += ["kB each", "finish p50, ms", "the last, ms"]
    note = (
        "CPU is that of the whole program, which takes some without any flyer. Packets and bytes are a flyer's part "
        "of all that the machine's loopback saw. The last two columns belong to the next figure."
    )
    return Section(
        "scale",
        "What many flyers cost while they wait",
        f"So many flyers in one program wait for {seconds:g} s, and nothing happens.",
        list(_cost_says(points, seconds)),
        _picture(
            lambda narrow: _draw_cost(points, seconds, idle, narrow),
            "CPU and memory against the number of flyers in flight, both axes logarithmic; the table has the figures.",
        ),
        [Table(heads, rows, note)],
    )


def _share(point: dict[str, Any], seconds: float) -> float:
    """Percent of a core."""
    return 100.0 * float(point["cpu_s"]) / seconds


def _cost_says(points: list[dict[str, Any]], seconds: float) -> Iterator[str]:
    def cost(point: dict[str, Any]) -> str:
        threads = point["threads"] - point["threads_before"]
        added = f"{threads} {'thread' if threads == 1 else 'threads'}"
        return f"{digits(_share(point, seconds))} % of a core and {added} together, {_kb(point)} of memory each"

    most = _most(points, DIRECT)
    if most is not None:
        yield f"{_flyers(most)} took {cost(most)}."
    for way in (POLLING, FASTEST_POLLING):
        ours, theirs = _at_common(points, DIRECT, way)
        if ours and theirs:
            yield f"{_flyers(theirs)} took {cost(theirs)}; as many of BusyFlyer's took {cost(ours)}."


def _draw_cost(points: list[dict[str, Any]], seconds: float, idle: dict[str, Any] | None, narrow: bool) -> Figure:
    figure = _figure(narrow, 4.8, 8.2)
    cpu, memory = figure.subplots(2, 1) if narrow else figure.subplots(1, 2)
    for way in _ways_of(points):
        style = _style(way)
        of_way = [point for point in points if point["way"] == way]
        counts = [point["flyers"] for point in of_way]
        kind: dict[str, Any] = {"color": style.colour, "lw": style.width, "marker": "o", "ms": 7}
        cpu.plot(counts, [_share(point, seconds) for point in of_way], label=way, **kind)
        memory.plot(counts, [point["memory_bytes"] / point["flyers"] / 1000 for point in of_way], **kind)
    if idle is not None:
        cpu.axhline(_share(idle, seconds), color="#707070", ls="--", lw=1.2, label="no flyer at all")
    for axes, label in ((cpu, "CPU, % of a core"), (memory, "memory, kB a flyer")):
        axes.set(xscale="log", xlabel="flyers in flight", ylabel=label)
        axes.set_yscale("log", nonpositive="mask")
        _plain_counts(axes, points)
        _log_ticks(axes.yaxis)
    _legend(figure, True, "", 1 if narrow else 5)
    return figure


def _together_section(points: list[dict[str, Any]]) -> Section:
    says = []
    most = _most(points, DIRECT)
    if most is not None:
        p50, last = percentiles(most["finish_us"], 50, 100)
        says.append(f"{_flyers(most)}: half knew within {_ms(p50)}, the last after {_ms(last)}.")
    for way in (POLLING, FASTEST_POLLING):
        ours, theirs = _at_common(points, DIRECT, way)
        if ours and theirs:
            last, other = (percentiles(point["finish_us"], 100)[0] for point in (ours, theirs))
            word = "sooner than" if last < other else "no sooner than"
            says.append(
                f"With {ours['flyers']:,} of either, the last of BusyFlyer's knew {word} the last by {way}: "
                f"{_ms(last)} and {_ms(other)}."
            )
    return Section(
        "together",
        "All finish at the same moment",
        "Then Done is written to all of them in one go; each one's delay counts from its own Done.",
        says,
        _picture(
            lambda narrow: _draw_together(points, narrow),
            "Delay of the median and of the last flyer, against the number of flyers that finish together.",
        ),
    )


def _draw_together(points: list[dict[str, Any]], narrow: bool) -> Figure:
    figure = _figure(narrow, 4.6, 5.6)
    axes = figure.subplots()
    for way in _ways_of(points):
        style = _style(way)
        of_way = [point for point in points if point["way"] == way]
        counts = [point["flyers"] for point in of_way]
        median, last = zip(*(percentiles(point["finish_us"], 50, 100) for point in of_way), strict=True)
        kind: dict[str, Any] = {"color": style.colour, "lw": style.width, "ms": 7}
        axes.plot(counts, np.divide(median, 1000), "o-", label=way, **kind)
        axes.plot(counts, np.divide(last, 1000), "v:", **kind | {"lw": 1.4})
    axes.plot([], [], "o-", color="#707070", label="median")
    axes.plot([], [], "v:", color="#707070", label="the last")
    axes.set(xscale="log", yscale="log", xlabel="flyers that finish together", ylabel="delay after Done, ms")
    _plain_counts(axes, points)
    _log_ticks(axes.yaxis)
    _legend(figure, True, "", 2 if narrow else 3)
    return figure


# Flights a second


def _turnaround_section(turned: dict[str, dict[str, dict[str, list[float]]]]) -> Section:
    says, rows = [], []
    rates = {points: flights_a_second(ways) for points, ways in turned.items()}
    for points, rate in rates.items():
        says.append(f"With {points} points {_list(f'{way} makes {digits(value)}' for way, value in rate.items())}.")
        if DIRECT in rate and WITHOUT_EPICS in rate:
            percent = 100 * rate[DIRECT] / rate[WITHOUT_EPICS]
            says.append(f"BusyFlyer reaches {digits(percent)} % of what bluesky alone would make without EPICS.")
        for way, told in turned[points].items():
            figures = [digits(value / 1000) for value in percentiles(told["flight_us"], 50, 90, 99, 100)]
            cells = [points, str(len(told["flight_us"])), digits(rate[way]), *figures]
            rows.append(Row(way, cells, _style(way).colour))
    return Section(
        "turnaround",
        "Runs a second, when the scan takes no time",
        "Whole bluesky runs of one flight of zero length, from the start document to the stop document. So this is "
        "the overhead alone; runs a second are by the median.",
        says,
        _picture(
            lambda narrow: _draw_turnaround(rates, narrow),
            "Runs a second, by the points of a flight; the table has the figures.",
        ),
        [Table(["flyer", "points", "flights", "runs a second", "p50, ms", "p90, ms", "p99, ms", "max, ms"], rows)],
    )


def _draw_turnaround(rates: dict[str, dict[str, float]], narrow: bool) -> Figure:
    bars = [(f"{way}, {points} points", way, value) for points, rate in rates.items() for way, value in rate.items()]
    figure = _figure(narrow, 1.3 + 0.5 * len(bars), 1.5 + 0.6 * len(bars))
    axes = figure.subplots()
    names, ways, values = zip(*bars, strict=True)
    drawn = axes.barh(names, values, color=[_style(way).colour for way in ways], height=0.62)
    axes.bar_label(drawn, [digits(value) for value in values], padding=4)
    axes.invert_yaxis()
    axes.margins(x=0.16)
    axes.set_xlabel("runs a second")
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    return figure


# Collect

COLLECTS = {
    "BusyFlyer": ("BusyFlyer", "-", "o"),
    "floor": ("floor", "--", "x"),
    "tutorial": ("tutorial's flyer", "", "*"),
}
LAYOUTS = {"rows": "#0b57d0", "array": "#e05206", "": "#188038"}


def _collect_section(growth: dict[str, dict[str, list[float]]]) -> Section:
    says = []
    for layout, unit in (("rows", "an event a point"), ("array", "whole arrays in one event")):
        ours, floor = growth.get(f"BusyFlyer, {layout}"), growth.get(f"floor, {layout}")
        if ours and floor:
            points = max(ours, key=int)
            took, least = _p50(ours[points]), _p50(floor[points])
            says.append(
                f"As {layout} ({unit}), {int(points):,} points took {_ms(took * 1e6)}: "
                f"{digits(took / least)} times the floor, {_ms(least * 1e6)}."
            )
    tutorial, rows = growth.get("tutorial", {}), growth.get("BusyFlyer, rows", {})
    for points in tutorial.keys() & rows.keys():
        slow, fast = _p50(tutorial[points]), _p50(rows[points])
        says.append(
            f"The tutorial's own flyer reads every point anew: {points} points took {_ms(slow * 1e6)}, where BusyFlyer "
            f"took {_ms(fast * 1e6)}."
        )
    table = [
        Row(what, [points, str(len(seconds)), digits(_p50(seconds) * 1000), digits(max(seconds) * 1000)])
        for what, by_points in growth.items()
        for points, seconds in by_points.items()
    ]
    return Section(
        "collect",
        "Collecting what the scan brought",
        "After the flight, bluesky collects the data of all points. The floor is a flyer that has them in memory: what "
        "is left is bluesky's own, which checks each document.",
        says,
        _picture(
            lambda narrow: _draw_collect(growth, narrow),
            "Seconds of collect against the number of points, both axes logarithmic; the table has the figures.",
        ),
        [Table(["flyer, layout", "points", "collects", "p50, ms", "max, ms"], table)],
    )


def _draw_collect(growth: dict[str, dict[str, list[float]]], narrow: bool, title: bool = False) -> Figure:
    figure = _figure(narrow, 5.4, 6.2)
    axes = figure.subplots()
    for what, by_points in growth.items():
        way, _, layout = what.partition(", ")
        name, line, marker = COLLECTS[way]
        medians = [_p50(seconds) for seconds in by_points.values()]
        axes.loglog(
            [int(points) for points in by_points],
            medians,
            linestyle=line or "none",
            marker=marker,
            color=LAYOUTS[layout],
            ms=12 if marker == "*" else 7,
            lw=2.4 if line == "-" else 1.6,
            label=f"{name}, {layout}" if layout else name,
        )
    axes.set(xlabel="points of a flight, in each of 3 arrays", ylabel="collect, ms (median)")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda points, _: f"{points:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{1000 * seconds:g}"))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    _legend(figure, True, "", 2 if narrow else 5)
    if title:
        figure.suptitle("What collect takes in the RunEngine", x=0.01, ha="left", weight="bold")
    return figure


# Kickoff


def _kickoff_section(kickoff: dict[str, dict[str, dict[str, list[float]]]]) -> Section:
    rows, says = [], []
    for ioc_is, ways in kickoff.items():
        for way, told in ways.items():
            figures = [digits(value / 1000) for value in percentiles(told["taken_us"], 50, 90, 99, 100)]
            rows.append(Row(f"{way}, IOC {ioc_is}", [str(len(told["taken_us"])), *figures]))
        ours, put = (_p50(told["taken_us"]) for told in ways.values())
        says.append(f"With the IOC {ioc_is}: {_ms(ours)} at the median, and a bare put {_ms(put)}.")
    return Section(
        "kickoff",
        "What the start costs",
        "How long the call that starts a flight keeps its caller, beside a bare write of one value that waits for "
        "nothing; also when the server is frozen, and answers nobody.",
        says,
        tables=[Table(["call", "calls", "p50, ms", "p90, ms", "p99, ms", "max, ms"], rows)],
    )


# Figures in words


def _p50(samples: Sequence[float]) -> float:
    return percentiles(samples, 50)[0]


def _ms(microseconds: float) -> str:
    ms = microseconds / 1000
    return f"{digits(ms / 1000)} s" if ms >= 1000 else f"{digits(ms)} ms"


def _kb(point: dict[str, Any]) -> str:
    return f"{digits(point['memory_bytes'] / point['flyers'] / 1000)} kB"


def _times(ratio: float) -> str:
    if ratio >= 1:
        return f"{digits(ratio)} times as long"
    return f"not as long, {digits(ratio)} times"


def _interval(above: Sequence[float], below: Sequence[float]) -> str:
    value, low, high = ratio_with_interval(above, below, 50)
    return digits(value) if math.isnan(low) else f"{digits(value)} ({digits(low)} to {digits(high)})"


def _list(words: Any) -> str:
    *most, last = list(words)
    return f"{', '.join(most)} and {last}" if most else last


def _flyers(point: dict[str, Any]) -> str:
    count = point["flyers"]
    return f"{count:,} {'flyer' if count == 1 else 'flyers'} ({point['way']})"


# What the results hold


def _conditions(results: Results) -> dict[str, dict[str, dict[str, Any]]]:
    conditions: dict[str, dict[str, dict[str, Any]]] = results.get("latency", {}).get("conditions", {})
    return conditions


def _failures(results: Results) -> Iterator[str]:
    for condition, ways in _conditions(results).items():
        for way, told in ways.items():
            if "failure" in told:
                yield f"Under “{condition}”, {way} was given up: {told['failure']}."


def _by_median(delays: dict[str, list[float]]) -> list[str]:
    return sorted(delays, key=lambda way: _p50(delays[way]))


def _all_ways(delays: dict[str, dict[str, list[float]]]) -> list[str]:
    return list(dict.fromkeys(way for ways in delays.values() for way in ways))


def _ways_of(points: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(point["way"] for point in points))


def _most(points: list[dict[str, Any]], way: str) -> dict[str, Any] | None:
    """That of the most flyers of this way."""
    return max((point for point in points if point["way"] == way), key=lambda point: point["flyers"], default=None)


def _at_common(
    points: list[dict[str, Any]], way: str, other: str
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Both at the greatest number of flyers that both have."""
    ours, theirs = ({point["flyers"]: point for point in points if point["way"] == name} for name in (way, other))
    common = max(ours.keys() & theirs.keys(), default=None)
    return (None, None) if common is None else (ours[common], theirs[common])


# Drawing


def _style(way: str) -> Style:
    return WAYS.get(way, Style("#444444", "", 1.2, "-."))


def _rc(narrow: bool) -> Any:
    return {
        "font.size": 12 if narrow else 12.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#dddddd",
        "axes.axisbelow": True,
        "legend.frameon": False,
        "legend.fontsize": 10 if narrow else 11,
        "svg.hashsalt": "report",
    }


def _figure(narrow: bool, height: float, narrow_height: float) -> Figure:
    return Figure(figsize=(4.6, narrow_height) if narrow else (SLIDE[0], height), layout="constrained")


def _legend(figure: Figure, below: bool, title: str, columns: int) -> None:
    figure.legend(
        loc="outside lower center" if below else "outside right center",
        ncols=columns,
        title=title or None,
        alignment="left",
        columnspacing=1.2,
        handlelength=1.6,
    )


def _log_ticks(axis: Axis) -> None:
    """In plain numbers, two a decade."""
    axis.set_major_locator(LogLocator(subs=(1.0, 3.0), numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _plain_counts(axes: Axes, points: list[dict[str, Any]]) -> None:
    counts = sorted({point["flyers"] for point in points})
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.xaxis.set_minor_formatter(NullFormatter())


def _picture(draw: Callable[[bool], Figure], alt: str) -> Picture:
    return Picture(_embedded(draw, False), _embedded(draw, True), alt)


def _embedded(draw: Callable[[bool], Figure], narrow: bool) -> str:
    """As the address of a picture that holds it."""
    picture = io.BytesIO()
    with mpl.rc_context(_rc(narrow)):
        draw(narrow).savefig(picture, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(picture.getvalue()).decode()}"
