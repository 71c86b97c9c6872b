"""What users import, and what importing must not do."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import busy_callback_flyer

ROOT = Path(busy_callback_flyer.__file__).parent


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", busy_callback_flyer.__all__)
def test_names_are_there(name: str) -> None:
    assert getattr(busy_callback_flyer, name).__name__ == name
    assert name in dir(busy_callback_flyer)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="BusierFlyer"):
        busy_callback_flyer.BusierFlyer  # noqa: B018


def test_what_hinders_an_import_is_told() -> None:
    """Such as an ophyd and a control layer that do not go together."""
    code = """
import sys

class Broken:
    def find_spec(self, name, path, target=None):
        if name == "ophyd":
            object().missing

sys.meta_path.insert(0, Broken())
try:
    from busy_callback_flyer import BusyFlyer
except ImportError as error:
    print(error)
"""
    assert run(code) == (
        "BusyFlyer cannot be imported from busy_callback_flyer: 'object' object has no attribute 'missing'"
    )


def test_version() -> None:
    assert busy_callback_flyer.__version__ == metadata.version("busy_callback_flyer")


@pytest.mark.parametrize(
    "module", ["busy_callback_flyer", "busy_callback_flyer.tools.cli", "busy_callback_flyer.engine.flight"]
)
def test_import_loads_no_channel_access(module: str) -> None:
    """So that the environment can be set first."""
    assert (
        run(
            f"import sys, {module}\n"
            "print([name for name in ('ophyd', 'epics', 'bluesky', 'epicscorelibs') if name in sys.modules],"
            " 'libca' in open('/proc/self/maps').read())"
        )
        == "[] False"
    )


def test_core_needs_no_extra() -> None:
    assert (
        run(
            "import sys\n"
            "from busy_callback_flyer import *\n"
            "print([name for name in ('matplotlib', 'rich') if name in sys.modules])"
        )
        == "[]"
    )


def test_flyers_and_ioc_import_nothing_of_each_other() -> None:
    for file in ROOT.rglob("*.py"):
        text = file.read_text()
        if file.parent.name == "ioc":
            for package in ("engine", "channels", "devices", "plans", "tools"):
                assert f"from ..{package}" not in text
                assert f"busy_callback_flyer.{package}" not in text
        elif file.parent.name != "tools" and file.name != "__main__.py":  # commands
            assert ".ioc" not in text, file


def test_typed_and_its_databases_are_packaged() -> None:
    assert (ROOT / "py.typed").exists()
    assert {file.name for file in (ROOT / "ioc").glob("*.db")} >= {"flyscan.db", "controller.db"}
