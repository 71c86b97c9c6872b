"""The shapes in which flyers are in use: each flies, with its own data keys."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import pytest
from bluesky import RunEngine
from ophyd import Component, Device, EpicsSignal, EpicsSignalRO

import busy_callback_flyer.tutorial
from busy_callback_flyer import BusyFlyer, BusyRecord, Waveform

from ..conftest import PREFIX

Documents = list[tuple[str, dict[str, Any]]]


class AbsoluteNames(BusyFlyer):
    """As the tutorial has it: the PVs' whole names, and a constructor that takes and gives no prefix."""

    busy = Component(BusyRecord, f"{PREFIX}mybusy")
    tArr = Component(Waveform, f"{PREFIX}t_array")  # noqa: N815
    xArr = Component(Waveform, f"{PREFIX}x_array")  # noqa: N815
    yArr = Component(Waveform, f"{PREFIX}y_array")  # noqa: N815

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("", parent=None, **kwargs)
        self.t0 = 0


class SignalAsBusy(BusyFlyer):
    """Its busy is a signal, without a device around it."""

    busy = Component(EpicsSignal, "mybusy", string=True, kind="config")


class TheirBusyRecord(Device):
    """A BusyRecord of one's own, as libraries have it."""

    state = Component(EpicsSignal, "", string=True)
    output_link = Component(EpicsSignal, ".OUT", kind="config")
    forward_link = Component(EpicsSignal, ".FLNK", kind="config")


class OwnBusyRecord(BusyFlyer):
    busy = Component(TheirBusyRecord, "mybusy", kind="config")


class MoreComponents(BusyFlyer):
    """With more, and with less, than the tutorial's."""

    yArr = None  # noqa: N815
    asked_for = Component(EpicsSignalRO, "npts", kind="omitted")


KEYS = {
    AbsoluteNames: {"ifly_tArr", "ifly_xArr", "ifly_yArr"},
    SignalAsBusy: {"ifly_tArr", "ifly_xArr", "ifly_yArr"},
    OwnBusyRecord: {"ifly_tArr", "ifly_xArr", "ifly_yArr"},
    MoreComponents: {"ifly_tArr", "ifly_xArr"},
}


def fly(kind: type[BusyFlyer], run_engine: RunEngine) -> BusyFlyer:
    flyer = kind(PREFIX, name="ifly", flight_timeout=20)
    flyer.wait_for_connection(timeout=10)
    run_engine(bp.fly([flyer]))
    return flyer


@pytest.mark.parametrize("kind", KEYS)
def test_shapes_in_use_fly(
    kind: type[BusyFlyer], controller: Callable[..., None], run_engine: RunEngine, documents: Documents
) -> None:
    fly(kind, run_engine)
    (page,) = (document for name, document in documents if name == "event_page")
    assert page["data"].keys() == KEYS[kind]
    assert {len(values) for values in page["data"].values()} == {11}


def test_the_busy_record_of_apstools_serves(
    controller: Callable[..., None], run_engine: RunEngine, documents: Documents
) -> None:
    synapps = pytest.importorskip("apstools.synApps", reason="apstools brings many packages: it is tested where it is")

    class Flyer(BusyFlyer):
        busy = Component(synapps.BusyRecord, "mybusy", kind="config")

    fly(Flyer, run_engine)
    (page,) = (document for name, document in documents if name == "event_page")
    assert page["data"].keys() == {"ifly_tArr", "ifly_xArr", "ifly_yArr"}


def test_a_tutorials_flyer_with_another_base_is_told_what_to_delete() -> None:
    with pytest.raises(TypeError, match=r"MyFlyer\.collect would never be called: delete it, and describe_collect"):

        class MyFlyer(BusyFlyer):
            def kickoff(self) -> Any: ...

            def describe_collect(self) -> Any: ...

            def collect(self) -> Any: ...


# A profile

STARTUP = Path(busy_callback_flyer.tutorial.__file__).parent / "startup"


def ipython(profile: Path, code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "IPYTHONDIR": str(profile.parent), "MPLBACKEND": "Agg"}
    return subprocess.run(
        [sys.executable, "-m", "IPython", f"--profile-dir={profile}", "--colors=NoColor", "-c", code],
        capture_output=True,
        text=True,
        timeout=100,
        env=environment,
    )


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """As a beamline copies it."""
    folder = tmp_path / "profile_beamline"
    shutil.copytree(STARTUP, folder / "startup")
    return folder


def test_the_profile_starts_and_flies(profile: Path, controller: Callable[..., None]) -> None:
    said = ipython(profile, "ifly.wait_for_connection(timeout=20)\n%wa flyers\nRE(fly(ifly))\nprint(ifly.timeline)")
    assert (said.returncode, said.stderr) == (0, "")
    assert "ifly" in said.stdout
    assert "finished" in said.stdout


def test_the_profile_starts_without_its_ioc(profile: Path) -> None:
    flyers = profile / "startup" / "10-flyers.py"
    flyers.write_text(flyers.read_text().replace('"prj:"', '"nowhere:"'))
    said = ipython(profile, "ifly.start_timeout = 0.5\nprint(ifly.kickoff().exception(timeout=20))")
    assert said.returncode == 0
    assert "nowhere:mybusy: not connected within start_timeout=0.5 s" in said.stdout


def test_the_profile_is_the_package_s_own() -> None:
    """A wheel has it."""
    assert sorted(file.name for file in STARTUP.glob("*.py")) == ["00-bluesky.py", "10-flyers.py"]


# From configuration files

HAPPI = {
    "ifly": {
        "_id": "ifly",
        "name": "ifly",
        "active": True,
        "type": "OphydItem",
        "prefix": PREFIX,
        "device_class": "busy_callback_flyer.BusyFlyer",
        "args": ["{{prefix}}"],
        "kwargs": {"name": "{{name}}", "flight_timeout": 20.0},
    }
}

GUARNERI = f"""
[["busy_callback_flyer.BusyFlyer"]]
prefix = "{PREFIX}"
name = "ifly"
flight_timeout = 20.0

[["busy_callback_flyer.make_flyer"]]
name = "jfly"
busy = "{PREFIX}mybusy"
arrays = {{x = "{PREFIX}x_array", y = {{pv = "{PREFIX}y_array", units = "counts"}}}}
"""


def test_a_happi_entry(
    tmp_path: Path, controller: Callable[..., None], run_engine: RunEngine, documents: Documents
) -> None:
    happi = pytest.importorskip("happi")
    database = tmp_path / "happi.json"
    database.write_text(json.dumps(HAPPI))
    flyer = happi.Client(path=str(database)).search(name="ifly")[0].get()
    assert isinstance(flyer, BusyFlyer)
    assert flyer.flight_timeout == 20.0
    flyer.wait_for_connection(timeout=10)
    run_engine(bp.fly([flyer]))
    assert documents[-1][1]["exit_status"] == "success"


def test_a_guarneri_file(
    tmp_path: Path, controller: Callable[..., None], run_engine: RunEngine, documents: Documents
) -> None:
    guarneri = pytest.importorskip("guarneri", reason="guarneri brings ophyd-async: it is tested where it is")
    file = tmp_path / "iconfig.toml"
    file.write_text(GUARNERI)
    instrument = guarneri.Instrument({})
    instrument.load(file)
    flyers = [instrument.devices[name] for name in ("ifly", "jfly")]
    for flyer in flyers:
        flyer.wait_for_connection(timeout=10)
        run_engine(bp.fly([flyer]))
    pages = [document["data"].keys() for name, document in documents if name == "event_page"]
    assert pages == [{"ifly_tArr", "ifly_xArr", "ifly_yArr"}, {"jfly_x", "jfly_y"}]
