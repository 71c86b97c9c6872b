"""The engine flies without any control system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import busy_callback_flyer

ENGINE = Path(busy_callback_flyer.__file__).parent / "engine"
MODULES = sorted(file.stem for file in ENGINE.glob("*.py") if file.stem != "__init__")

BARRED = """
import sys
from importlib import import_module


class Barred:
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("ophyd", "epics", "epicscorelibs", "bluesky", "aioca", "p4p", "caproto"):
            raise ImportError(f"{name} is barred")


sys.meta_path.insert(0, Barred())
import_module(f"busy_callback_flyer.engine.{sys.argv[1]}")
"""


@pytest.mark.parametrize("module", MODULES)
def test_imports_no_control_system(module: str) -> None:
    done = subprocess.run([sys.executable, "-c", BARRED, module], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_it_is_barred_indeed() -> None:
    code = BARRED.replace("busy_callback_flyer.engine.", "busy_callback_flyer.")
    done = subprocess.run([sys.executable, "-c", code, "devices.flyer"], capture_output=True, text=True, timeout=60)
    assert "is barred" in done.stderr
