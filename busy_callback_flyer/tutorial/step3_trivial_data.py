"""Step 3: the first data, a single number.

Two methods have to agree. `describe_collect` says what will come: for each stream its keys, and for each key where
it comes from, its type and shape. `collect_pages` brings it: an *event page* is a table, with a list of values for
each key in ``data``, and when each of them was measured in ``timestamps``. A key in one of them that is not in the
other ends the run. This page has one row.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import bluesky.plans as bp
from bluesky import RunEngine
from event_model import PartialEventPage

from .documents import print_document
from .step2_template import TemplateFlyer


class TrivialDataFlyer(TemplateFlyer):
    """Brings one number from each flight."""

    def describe_collect(self) -> dict[str, dict[str, Any]]:
        """One stream, of one key."""
        return {self.name: {f"{self.name}_x": {"source": "fictional", "dtype": "number", "shape": []}}}

    def collect_pages(self) -> Iterator[PartialEventPage]:
        """One page, of one row."""
        key, now = f"{self.name}_x", time.time()
        yield {"data": {key: [1.2345]}, "timestamps": {key: [now]}, "time": [now]}


def demonstrate(run_engine: RunEngine) -> None:
    """Look at both methods' answers, then at what becomes of them in a run."""
    flyer = TrivialDataFlyer(name="ifly")
    print(flyer.describe_collect())
    print(list(flyer.collect_pages()))
    run_engine(bp.fly([flyer]), print_document)
