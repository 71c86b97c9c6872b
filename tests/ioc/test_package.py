"""The package busy_callback_flyer.ioc as files: what importing it loads, what its databases hold."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import busy_callback_flyer.ioc

from .client import run_python

PACKAGE = Path(busy_callback_flyer.ioc.__file__).parent
DATABASES = sorted(PACKAGE.glob("*.db"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_import_loads_no_epics() -> None:
    code = """
import sys
import busy_callback_flyer.ioc
for module in ("epics", "ophyd", "bluesky", "numpy", "epicscorelibs"):
    assert module not in sys.modules, module
with open("/proc/self/maps") as maps:
    loaded = maps.read()
for library in ("libca", "libCom", "libdbCore"):
    assert library not in loaded, library
"""
    ran = run_python(code)
    assert ran.returncode == 0, ran.stderr


def test_there_are_databases() -> None:
    assert {file.name for file in DATABASES} >= {"flyscan.db", "self_check.db"}


@pytest.mark.parametrize("file", DATABASES, ids=lambda file: file.name)
def test_databases_have_standard_records_and_busy_only(file: Path) -> None:
    """So they load unchanged where record type busy comes from synApps."""
    from epicscorelibs.path import base_path

    definitions = Path(base_path) / "dbd"
    types = set(re.findall(r"^\s*record\s*\(\s*(\w+)", file.read_text(), re.MULTILINE))
    assert types
    assert [name for name in types - {"busy"} if not (definitions / f"{name}Record.dbd").exists()] == []


@pytest.mark.parametrize("file", DATABASES, ids=lambda file: file.name)
def test_busy_records_use_only_fields_that_synapps_has(file: Path) -> None:
    text = re.sub(r"#.*", "", file.read_text())
    for body in re.findall(r"record\s*\(\s*busy\s*,[^)]*\)\s*\)?\s*\{(.*?)\}", text, re.DOTALL):
        assert set(re.findall(r"field\s*\(\s*(\w+)", body)) <= {"DESC", "OUT", "FLNK", "ZNAM", "ONAM", "HIGH", "VAL"}


def test_tutorial_records_are_there() -> None:
    text = (PACKAGE / "flyscan.db").read_text()
    records = {name: kind for kind, name in re.findall(r'record\((\w+), "\$\(P\)(\w+)"\)', text)}
    assert records == {
        "mybusy": "busy",
        "mytaxi": "busy",
        "str_wave": "waveform",
        "t_array": "waveform",
        "x_array": "waveform",
        "y_array": "waveform",
    }
