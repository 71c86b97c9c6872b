"""What the community's consumers take, by layout: the cells of the README's table. Others: test_tiled, test_buses."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import msgpack
import msgpack_numpy
import numpy as np
import pytest
from bluesky.callbacks.best_effort import BestEffortCallback
from event_model import NumpyEncoder

from busy_callback_flyer.callbacks import PointTimes

POINTS = 20
LAYOUTS = ["rows", "array"]
PRIMARY: dict[str, Any] = {"points": POINTS, "stream_name": "primary"}
"""What BestEffortCallback has a table of."""

Documents = list[tuple[str, dict[str, Any]]]
Fly = Callable[..., Documents]


def plain(documents: Any) -> Any:
    return json.loads(json.dumps(documents, cls=NumpyEncoder))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_suitcase_jsonl(layout: str, fly: Fly, tmp_path: Path) -> None:
    suitcase = pytest.importorskip("suitcase.jsonl")
    documents = fly(layout=layout, **PRIMARY)
    (file,) = suitcase.export(documents, tmp_path)["all"]
    assert [json.loads(line) for line in Path(file).read_text().splitlines()] == plain(documents)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_suitcase_msgpack(layout: str, fly: Fly, tmp_path: Path) -> None:
    suitcase = pytest.importorskip("suitcase.msgpack")
    documents = fly(layout=layout, **PRIMARY)
    (file,) = suitcase.export(documents, tmp_path)["all"]
    with Path(file).open("rb") as packed:
        assert plain(list(msgpack.Unpacker(packed, object_hook=msgpack_numpy.decode))) == plain(documents)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_suitcase_csv(layout: str, fly: Fly, tmp_path: Path) -> None:
    """It leaves out what is an array. At the points' own times, which by itself it does not show."""
    suitcase = pytest.importorskip("suitcase.csv")
    documents = fly(layout=layout, **PRIMARY)
    deliver(documents, PointTimes(suitcase.Serializer(tmp_path), "ifly_xArr"))
    (file,) = tmp_path.glob("*.csv")
    with file.open() as opened:
        rows = list(csv.DictReader(opened))
    (page,) = (doc for name, doc in documents if name == "event_page")
    plain_keys = ("ifly_tArr", "ifly_xArr", "ifly_yArr")
    keys = plain_keys if layout == "rows" else [f"{key}_nord" for key in plain_keys]
    assert set(rows[0]) == {"time", *keys, "seq_num"}
    for key in keys:
        assert [float(row[key]) for row in rows] == list(page["data"][key])
    if layout == "rows":
        assert [float(row["time"]) for row in rows] == page["timestamps"]["ifly_xArr"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_databroker(layout: str, fly: Fly) -> None:
    databroker = pytest.importorskip("databroker")
    broker = databroker.temp()
    documents = fly(broker.insert, layout=layout, **PRIMARY)
    table = broker[documents[0][1]["uid"]].table("primary")
    (page,) = (doc for name, doc in documents if name == "event_page")
    assert set(table) == {"time", *page["data"]}
    for key, column in page["data"].items():
        np.testing.assert_array_equal(np.stack(table[key]), np.asarray(column), key)


@pytest.mark.parametrize("writer", ["JSONWriter", "JSONLinesWriter"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_json_writers(layout: str, writer: str, fly: Fly, tmp_path: Path) -> None:
    """They know no arrays."""
    writers = pytest.importorskip("bluesky.callbacks.json_writer")
    write = getattr(writers, writer)(str(tmp_path), "run.json")
    documents = fly(layout=layout, **PRIMARY)
    if layout == "array":
        with pytest.raises(TypeError, match="ndarray is not JSON serializable"):
            deliver(documents, write)
        return
    deliver(documents, write)
    text = tmp_path.joinpath("run.json").read_text()
    written = json.loads(text) if writer == "JSONWriter" else [json.loads(line) for line in text.splitlines()]
    assert [entry["doc"]["data"] for entry in written if entry["name"] == "event_page"] == [
        page["data"] for name, page in plain(documents) if name == "event_page"
    ]


def deliver(documents: Documents, consumer: Callable[[str, dict[str, Any]], object]) -> None:
    for name, doc in documents:
        consumer(name, doc)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_best_effort_callback(layout: str, fly: Fly, capsys: pytest.CaptureFixture[str]) -> None:
    """It plots points, and has a row of its table for each; of arrays it plots none."""
    mpl.use("Agg")
    before = set(plt.get_fignums())
    fly(BestEffortCallback(), layout=layout, **PRIMARY)
    figures = [plt.figure(number) for number in set(plt.get_fignums()) - before]
    points = [
        len(np.ravel(line.get_xdata())) for figure in figures for axes in figure.axes for line in axes.get_lines()
    ]
    for figure in figures:
        plt.close(figure)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|") and ":" in line]
    assert (POINTS in points) == (layout == "rows")
    assert len(rows) == (POINTS if layout == "rows" else 1)
