"""Document consumers that do right by pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import matplotlib as mpl
import numpy as np
import pytest
from bluesky import RunEngine
from bluesky.callbacks import LiveTable
from event_model import EventPage, unpack_event_page

from busy_callback_flyer.callbacks import PagePlot, PointTimes

mpl.use("Agg")
import matplotlib.pyplot as plt

Documents = list[tuple[str, dict[str, Any]]]
POINTS = 40
LAYOUTS: list[dict[str, Any]] = [
    {"layout": "rows", "page_size": 15},
    {"layout": "array"},
    {"layout": "array", "array_length": 100},
]
Fly = Callable[..., Documents]


class Drawings(PagePlot):
    """Counts its drawings."""

    drawn = 0

    def update_plot(self) -> None:
        self.drawn += 1
        super().update_plot()


def plotted(documents: Documents, x: str | None, **options: Any) -> tuple[Drawings, np.ndarray]:
    figure, axes = plt.subplots()
    plot = Drawings("ifly_yArr", x, ax=axes, **options)
    for name, doc in documents:
        plot(name, doc)
    points = np.array(plot.current_line.get_data())
    plt.close(figure)
    return plot, points


@pytest.mark.parametrize("options", LAYOUTS, ids=str)
def test_each_point_is_plotted_and_each_page_drawn_once(fly: Fly, options: dict[str, Any]) -> None:
    documents = fly(points=POINTS, **options)
    pages = [doc for name, doc in documents if name == "event_page"]
    plot, points = plotted(documents, "ifly_xArr")
    assert plot.drawn == len(pages) == (3 if options["layout"] == "rows" else 1)
    np.testing.assert_array_equal(points[0], np.linspace(-5.0, 5.0, POINTS))
    assert points.shape == (2, POINTS)
    _, numbered = plotted(documents, None)
    np.testing.assert_array_equal(numbered, [np.arange(1, POINTS + 1), points[1]])


def test_events_one_by_one(fly: Fly) -> None:
    documents = fly(points=POINTS)
    _, points = plotted(documents, "ifly_xArr")
    events: Documents = []
    for name, doc in documents:
        if name == "event_page":
            events += [("event", dict(event)) for event in unpack_event_page(cast(EventPage, doc))]
        else:
            events.append((name, doc))
    plot, of_events = plotted(events, "ifly_xArr")
    assert plot.drawn == POINTS
    np.testing.assert_array_equal(of_events, points)


def test_another_stream_is_not_drawn(fly: Fly) -> None:
    plot, points = plotted(fly(points=POINTS), "of_somebody_else")
    assert plot.drawn == 0
    assert points.size == 0


def test_points_of_an_event_have_no_time_to_be_plotted_against(fly: Fly, caplog: pytest.LogCaptureFixture) -> None:
    """LivePlot raises nothing into a run, but it says so."""
    plot, _ = plotted(fly(points=POINTS, layout="array"), "time")
    assert plot.drawn == 0
    assert "plot it against a column" in caplog.text


@pytest.mark.parametrize("epoch", ["run", "unix"])
def test_against_the_points_own_times(fly: Fly, epoch: str) -> None:
    documents = fly(points=POINTS)
    told: Documents = []
    relay = PointTimes(lambda name, doc: told.append((name, doc)), "ifly_xArr")
    for name, doc in documents:
        relay(name, doc)
    (start,) = (doc for name, doc in documents if name == "start")
    (page,) = (doc for name, doc in documents if name == "event_page")
    _, points = plotted(told, "time", epoch=epoch)
    times = np.array(page["timestamps"]["ifly_xArr"])
    assert len({*page["time"]}) == 1, "the RunEngine's own"
    np.testing.assert_allclose(points[0] + (start["time"] if epoch == "run" else 0), times)
    assert np.ptp(times) == pytest.approx(0.1)


def test_only_pages_with_the_key_are_changed_and_no_page_itself(fly: Fly) -> None:
    (page,) = (doc for name, doc in fly(points=POINTS) if name == "event_page")
    before = list(page["time"])
    told: Documents = []
    for key in ("ifly_tArr", "det"):
        PointTimes(lambda name, doc: told.append((name, doc)), key)("event_page", page)
    (_, changed), (_, same) = told
    assert changed["time"] == page["timestamps"]["ifly_tArr"]
    assert page["time"] == before
    assert same is page


def test_a_table_shows_the_points_own_times(fly: Fly, run_engine: RunEngine) -> None:
    lines: list[str] = []
    run_engine.subscribe(PointTimes(LiveTable(["ifly_xArr"], stream_name="ifly", out=lines.append), "ifly_xArr"))
    fly(points=POINTS)
    times = {line.split("|")[2].strip() for line in lines if line.startswith("|") and ":" in line}
    assert len(times) > 1
