"""ophyd on the Rust client: the same subscription as ophyd's own, by another control layer."""

from __future__ import annotations

import os
from importlib.metadata import version

os.environ["OPHYD_CONTROL_LAYER"] = "dummy"  # until it is replaced, so that libca is not started

from ophyd_epicsrs import use_epicsrs

from busy_callback_flyer.tools.ways import BySubscription

use_epicsrs()


class Peer(BySubscription):
    """By a SubscriptionStatus."""

    @staticmethod
    def control_layer() -> str:
        return f"ophyd-epicsrs {version('ophyd-epicsrs')}, without libca"
