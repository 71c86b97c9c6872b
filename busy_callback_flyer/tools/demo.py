"""`busy-flyer demo`: the gain, seen in the first minute."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import statistics
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from ..engine.timeline import STEPS
from ..ioc import EmbeddedIOC
from .tiled_server import TiledServer

if TYPE_CHECKING:
    from bluesky import RunEngine

    from ..callbacks import Consumer
    from ..devices.flyer import BusyFlyer
    from ..devices.status import FlightStatus
    from ..engine.timeline import Timeline

PREFIX = "prj:"
MOST_ROWS = 24
"""Of a table that are shown; of a longer one the first and the last."""


def run(*, points: int, duration: float, flights: int, plot: Path, live: bool = False, tiled: bool = False) -> None:
    """Fly by callback and by polling, side by side; print tables, save a plot.

    Parameters
    ----------
    points : int
        Of a flight.
    duration : float
        Seconds of a flight.
    flights : int
        Of each kind.
    plot : Path
        Where the picture goes.
    live : bool
        Show the picture in a window as the flights come in.
    tiled : bool
        Write the flights into a Tiled server, on loopback and with a key, and read the first back.

    Raises
    ------
    RuntimeError
        There is no display to be live on.
    """
    console = Console(highlight=False)
    picture = _Picture(live)
    ioc = EmbeddedIOC(PREFIX, nelm=max(points, 256))
    ioc.start()
    # Registered before Channel Access comes up, so that it goes down after it: a client
    # whose server goes first complains.
    atexit.register(ioc.stop)
    os.environ.update(ioc.client_environment)
    console.print(f"An EPICS IOC runs on 127.0.0.1:{ioc.port}: {PREFIX}mybusy, its arrays, its controller.")

    from ..devices.flyer import BusyFlyer
    from ..devices.polling import PollingFlyer

    flyers: list[BusyFlyer] = []
    for kind in (BusyFlyer, PollingFlyer):
        flyer = kind(PREFIX, name="ifly", expected_points=points)
        flyer.wait_for_connection(timeout=10)  # before the next: pyepics can miss to tell two users of one PV
        flyers.append(flyer)
    session = _Session(console, points, duration, flights, picture)
    with _Catalog(console) if tiled else nullcontext() as catalog:
        session.fly(flyers, [catalog.writer] if catalog else [])
        session.show()
        picture.compare(session.delays())
        picture.save(plot)
        console.print(f"\nThe plot is in {plot}.")
        if catalog:
            catalog.read_back(session.uids[0], session.pages[0])
        picture.stay(console)
        if catalog:
            catalog.stay()


class _Session:
    """The demo's flights, and what came of them."""

    def __init__(self, console: Console, points: int, duration: float, flights: int, picture: _Picture) -> None:
        self.console = console
        self.picture = picture
        self.points = points
        # Polls alias with a fixed length of flight, so it varies: the same lengths for both.
        self.durations = [duration + 0.05 * number / flights for number in range(flights)]
        self.pages: list[dict[str, Any]] = []
        self.uids: list[str] = []
        self.timelines: dict[str, list[Timeline]] = {}
        self._interrupted = False

    def fly(self, flyers: list[BusyFlyer], consumers: list[Consumer]) -> None:
        """Every flyer in turn, flight by flight."""
        from bluesky import RunEngine

        # Ctrl-C ends the demo: no plan is to be resumed, as the RunEngine's own handler would have it.
        run_engine = RunEngine({}, context_managers=[])
        run_engine.subscribe(lambda name, page: self.pages.append(page), "event_page")
        run_engine.subscribe(lambda name, start: self.uids.append(start["uid"]), "start")
        for consumer in consumers:
            run_engine.subscribe(consumer)
        handler = signal.signal(signal.SIGINT, lambda *_: self._land(flyers))
        try:
            self._fly(run_engine, flyers)
        finally:
            signal.signal(signal.SIGINT, handler)
        self.console.print()

    def _fly(self, run_engine: RunEngine, flyers: list[BusyFlyer]) -> None:
        import epics

        flights = len(self.durations)
        self.console.print(f"Flying {flights} times by each flyer, {self.durations[0]:g} s a flight or a little more.")
        for record, value in {"npts": self.points, "fill": 1}.items():
            epics.caput(f"{PREFIX}{record}", value, wait=True)
        for number, duration in enumerate(self.durations, start=1):
            epics.caput(f"{PREFIX}duration", duration, wait=True)
            epics.caput(f"{PREFIX}seed", number, wait=True)
            for flyer in flyers:
                self._fly_once(run_engine, flyer, f"{number}/{flights}")

    def _fly_once(self, run_engine: RunEngine, flyer: BusyFlyer, number: str) -> None:
        import bluesky.plans as bp
        from bluesky.utils import FailedStatus

        kind = type(flyer).__name__
        documents: list[tuple[str, dict[str, Any]]] = []
        progress = _Progress(flyer, self.points, f"{kind:12} {number}")

        def waiting(statuses: set[FlightStatus] | None) -> None:
            progress(statuses)
            if self._interrupted:  # it was on its way when Ctrl-C came
                flyer.stop()

        run_engine.waiting_hook = waiting  # type: ignore[assignment]
        try:
            run_engine(bp.fly([flyer]), lambda name, doc: documents.append((name, doc)))
        except FailedStatus as failure:
            raise KeyboardInterrupt if self._interrupted else failure.__cause__ or failure from None
        self.timelines.setdefault(kind, []).append(flyer.timeline)
        self.picture.draw(documents)

    def _land(self, flyers: list[BusyFlyer]) -> None:
        self._interrupted = True
        logging.getLogger("bluesky").setLevel(logging.CRITICAL)  # that its plan fails is what we want
        for flyer in flyers:
            flyer.stop()

    def show(self) -> None:
        """Print what a first flight brought, and how both compare."""
        self.console.print(_rows(self.pages[0]))
        (_, callback), *_ = self.timelines.items()
        self.console.print(_steps(callback[0]))
        self.console.print(self._comparison())

    def delays(self) -> dict[str, list[float]]:
        """Milliseconds from the IOC's Done to the finished status, flight by flight."""
        return {kind: [_delay(timeline) for timeline in timelines] for kind, timelines in self.timelines.items()}

    def _comparison(self) -> Table:
        table = Table(title="From the IOC's Done to the finished status", title_justify="left")
        for heading in ("flyer", "flights", "median", "longest"):
            table.add_column(heading, justify="left" if heading == "flyer" else "right")
        medians = []
        for kind, delays in self.delays().items():
            medians.append(statistics.median(delays))
            table.add_row(kind, str(len(delays)), f"{medians[-1]:.2f} ms", f"{max(delays):.2f} ms")
        table.caption = f"By callback, the median is {medians[1] / medians[0]:.0f} times shorter."
        table.caption_justify = "left"
        return table


class _Catalog:
    """A Tiled server of the demo's own, for as long as it runs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        console.print("A Tiled server starts.")
        self._server = TiledServer()
        try:
            from bluesky_tiled_plugins import TiledWriter
            from tiled.client import from_uri

            from ..callbacks import PointTimes

            self._client = from_uri(self._server.uri)
            self.writer = PointTimes(TiledWriter(self._client), "ifly_xArr")
        except BaseException:
            self._server.stop()
            raise

    def __enter__(self) -> _Catalog:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def read_back(self, uid: str, page: dict[str, Any]) -> None:
        """Ask the server for a run, and hold it against its page."""
        table = self._client[uid]["ifly"].read()
        same = all(list(table[key].values) == list(column) for key, column in page["data"].items())
        if not same or list(table["time"].values) != page["timestamps"]["ifly_xArr"]:
            raise RuntimeError(f"run {uid} came back from Tiled with other values than were collected")
        self._console.print(
            f"\nTiled has {len(self._client)} runs. The first, read back, has its {table.sizes['time']} points, "
            f"at their own times:\n\n    {self._server.page(uid)}",
            soft_wrap=True,
        )

    def stay(self) -> None:
        """Serve until somebody at the terminal ends it."""
        if sys.stdin.isatty():
            self._console.input("\nEnter ends it. ")


class _Picture:
    """The flights' scans, as a live plot draws them from the documents, and the delays beside them."""

    def __init__(self, live: bool) -> None:
        if not live:
            mpl.use("Agg")
        import matplotlib.pyplot as plt

        from ..callbacks import PagePlot

        self._live = live
        self._pyplot = plt
        self._figure, (self._scan, self._delay) = plt.subplots(
            1, 2, figsize=(10, 4), width_ratios=(3, 2), layout="constrained"
        )
        if live and not getattr(self._figure.canvas, "required_interactive_framework", None):
            raise RuntimeError(f"there is no display to be live on (matplotlib's backend is {mpl.get_backend()})")
        # Drawn from the main thread, between flights: not every window takes more.
        self._plot = PagePlot(
            "ifly_yArr", "ifly_xArr", ax=self._scan, marker="o", markersize=4, alpha=0.7, use_teleporter=False
        )
        self._delay.set_visible(False)

    def draw(self, documents: list[tuple[str, dict[str, Any]]]) -> None:
        """Draw what a run brought."""
        for name, document in documents:
            self._plot(name, document)
        self._scan.get_legend().remove()  # LivePlot's: a line a run
        self._scan.set(
            xlabel="ifly_xArr (mm)", ylabel="ifly_yArr (counts)", title="Each flight, as its event page came"
        )
        self._show()

    def compare(self, delays: dict[str, list[float]]) -> None:
        """Draw the delays, in milliseconds."""
        self._delay.set_visible(True)
        for row, (kind, samples) in enumerate(delays.items()):
            self._delay.plot(samples, [row] * len(samples), "o", alpha=0.6, label=kind)
            self._delay.plot(statistics.median(samples), row, "|", markersize=30, color="black")
        self._delay.set(xscale="log", xlabel="ms", ylim=(-0.6, 1.6), title="Busy→Done to finished status")
        self._delay.set_yticks(range(len(delays)), list(delays))
        self._delay.xaxis.set_major_formatter("{x:g}")
        self._delay.grid(axis="x", which="both", alpha=0.3)
        self._show()

    def save(self, path: Path) -> None:
        """Save it."""
        self._figure.savefig(path, dpi=120)

    def stay(self, console: Console) -> None:
        """Leave the window to whoever looks at it."""
        if self._live:
            console.print("Close its window to end.")
            self._pyplot.show()
        self._pyplot.close(self._figure)

    def _show(self) -> None:
        if self._live:
            self._pyplot.pause(0.01)


class _Progress:
    """The RunEngine's waiting hook: a bar that counts the points which the controller has taken."""

    def __init__(self, flyer: BusyFlyer, points: int, label: str) -> None:
        self._flyer = flyer
        self._points = points
        self._label = label
        self._bar: tqdm[Any] | None = None

    def __call__(self, statuses: set[FlightStatus] | None) -> None:
        if statuses is not None and "finished" not in self._flyer.timeline:
            self._bar = tqdm(
                total=self._points, desc=self._label, unit=" points", file=sys.stdout, disable=None, leave=True
            )
            for status in statuses:
                status.watch(self._count)
        elif statuses is None and self._bar is not None:
            if "finished" in self._flyer.timeline:
                self._bar.n = self._points  # the last counts may still be under way
            self._bar.close()
            self._bar = None

    def _count(self, *, current: float = 0, **_: Any) -> None:
        bar = self._bar
        if bar is not None:
            bar.n = int(current)
            bar.refresh()


def _delay(timeline: Timeline) -> float:
    assert timeline.latency is not None
    return 1e3 * timeline.latency


def _rows(page: dict[str, Any]) -> Table:
    table = Table(title="What the RunEngine collected", title_justify="left")
    keys = sorted(page["data"])
    for heading in ("point", *keys):
        table.add_column(heading, justify="right")
    rows = list(enumerate(zip(*(page["data"][key] for key in keys), strict=True), start=1))
    shown = rows if len(rows) <= MOST_ROWS else rows[: MOST_ROWS // 2]
    for number, values in shown:
        table.add_row(str(number), *(f"{value:.4f}" for value in values))
    if shown is not rows:
        table.add_row("…", *("…" for _ in keys))
        for number, values in rows[-MOST_ROWS // 2 :]:
            table.add_row(str(number), *(f"{value:.4f}" for value in values))
    return table


def _steps(timeline: Timeline) -> Table:
    table = Table(title="Its timeline, in ms since the put", title_justify="left")
    for heading in ("step", "IOC stamp", "client knew", "later by"):
        table.add_column(heading, justify="left" if heading == "step" else "right")
    start = timeline["put"].client
    for mark in timeline:
        knew = 1e3 * (mark.client - start)
        if mark.stamp is None:
            table.add_row(STEPS[mark.step], "", f"{knew:.2f}", "")
        else:
            stamp = 1e3 * (mark.stamp - start)
            table.add_row(STEPS[mark.step], f"{stamp:.2f}", f"{knew:.2f}", f"{knew - stamp:.2f}")
    return table
