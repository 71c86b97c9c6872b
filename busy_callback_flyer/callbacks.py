"""Document consumers that do right by event pages: a plot that draws once a page, and the points' own times.

The RunEngine writes the moment of collecting into ``time``, one for all points of a page. A point's own time is
in ``timestamps``, and in the data of the time column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from bluesky.callbacks.mpl_plotting import LivePlot
from event_model import Event, EventPage, pack_event_page

__all__ = ["PagePlot", "PointTimes"]

Consumer = Callable[[str, dict[str, Any]], Any]


class PagePlot(LivePlot):
    """A `bluesky.callbacks.mpl_plotting.LivePlot` that draws once a page, and not once a point.

    It takes pages of both layouts: of cells that are arrays it draws as many elements as the key
    with ``_nord`` counts. Events that come one by one are drawn one by one.

    Parameters
    ----------
    y : str
        Data key of the signal.
    x : str, optional
        Data key of the position; "time", which is each point's own behind `PointTimes`; or "seq_num", by
        default.
    **kwargs
        Of `LivePlot`.

    Examples
    --------
    >>> RE.subscribe(PagePlot("ifly_yArr", "ifly_xArr"))
    """

    x: str  # LivePlot's own, from its start on
    y: str
    x_data: list[float]
    y_data: list[float]
    _epoch: str
    _epoch_offset: float

    def event_page(self, doc: EventPage) -> EventPage:
        """Draw its points, if it has the keys."""
        y, x = _points(doc, self.y), _points(doc, self.x)
        if y is None or x is None:
            return doc  # of another stream
        if len(x) != len(y):  # an event of many points
            if self.x != "seq_num":
                raise ValueError(f"{len(y)} points of {self.y} have {len(x)} of {self.x}: plot it against a column")
            x = np.arange(1, len(y) + 1)
        if self.x == "time" and self._epoch == "run":
            x = x - self._epoch_offset
        self.x_data.extend(x.tolist())
        self.y_data.extend(y.tolist())
        self.update_plot()
        return doc

    def event(self, doc: Event) -> Event:
        """Draw its point, or points."""
        self.event_page(pack_event_page(doc))
        return doc


class PointTimes:
    """Hands documents on to a consumer, pages with each point's own time in ``time``.

    That is what tables, plots against "time", CSV files, Tiled and others show.

    Parameters
    ----------
    consumer : callable
        Called with the name and the document, as the RunEngine's subscribers are.
    key : str
        Data key of one of the flyer's columns; pages without it are handed on as they are.

    Examples
    --------
    >>> RE.subscribe(PointTimes(LiveTable(["ifly_xArr", "ifly_yArr"]), "ifly_xArr"))
    """

    def __init__(self, consumer: Consumer, key: str) -> None:
        self._consumer = consumer
        self._key = key

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Take a document; it is not changed."""
        if name == "event_page" and self._key in doc["timestamps"]:
            doc = doc | {"time": list(doc["timestamps"][self._key])}
        self._consumer(name, doc)


def _points(page: EventPage, key: str) -> np.ndarray | None:
    """Values of a key, point by point; None where there are none."""
    data: Mapping[str, Any] = page["data"]
    if key not in data:
        return np.asarray(page["time"] if key == "time" else page["seq_num"]) if key in ("time", "seq_num") else None
    counts = data.get(f"{key}_nord")
    if counts is None:
        return np.asarray(data[key])
    return np.concatenate([np.asarray(cell)[:count] for cell, count in zip(data[key], counts, strict=True)])
