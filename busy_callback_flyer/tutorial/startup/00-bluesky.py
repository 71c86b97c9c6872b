"""The RunEngine, what it shows of a run, and the magics. A beamline adds where its data go."""

import logging

import bluesky.plan_stubs as bps  # noqa: F401 - for the prompt
import bluesky.plans as bp  # noqa: F401
from bluesky import RunEngine
from bluesky.callbacks.best_effort import BestEffortCallback
from bluesky.magics import BlueskyMagics

logging.basicConfig(level=logging.WARNING)  # flyers print nothing, they log

RE = RunEngine()
RE.subscribe(BestEffortCallback())
get_ipython().register_magics(BlueskyMagics)  # type: ignore[name-defined]  # noqa: F821
