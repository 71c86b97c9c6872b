"""What a notebook shows."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

KERNEL_TIMEOUT = 60

NOTEBOOK = """
import bluesky.plans as bp
from bluesky import RunEngine
from bluesky.utils import ProgressBarManager
from busy_callback_flyer import BusyFlyer

RE = RunEngine()
RE.waiting_hook = ProgressBarManager()
ifly = BusyFlyer("prj:", name="ifly", expected_points=200)
RE(bp.fly([ifly]))
"""


def test_a_bar_in_a_notebook(controller: Callable[..., None]) -> None:
    """A real kernel, which sends what it draws to whoever shows the notebook."""
    pytest.importorskip("ipykernel")
    kernels = pytest.importorskip("jupyter_client.manager")
    controller(npts=200, duration=2, fill=1)
    shown: list[str] = []

    def show(message: dict[str, Any]) -> None:
        if message["msg_type"] in ("stream", "error"):
            shown.append(message["content"].get("text") or "\n".join(message["content"]["traceback"]))

    manager, client = kernels.start_new_kernel(kernel_name="python3", startup_timeout=KERNEL_TIMEOUT)
    try:
        assert client.ip == "127.0.0.1"
        reply = client.execute_interactive(NOTEBOOK, output_hook=show, timeout=KERNEL_TIMEOUT)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    text = "".join(shown)
    assert reply["content"]["status"] == "ok", text
    assert re.search(r"ifly: +\d+%\|.*points/s", text), text
