"""Processes of ours import what we would, from where we would, but nothing where the user works."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import busy_callback_flyer
from busy_callback_flyer import launch

REACHED = """
import copy, sys
import beside, busy_callback_flyer
print(busy_callback_flyer.__file__, copy.__file__, beside.__name__, __name__, sys.argv[1:], sep="\\n")
"""


def test_a_module_runs_with_all_in_reach_and_our_own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reached.py").write_text(REACHED)
    (tmp_path / "beside.py").touch()
    for hides in ("busy_callback_flyer", "copy", "json"):
        (tmp_path / f"{hides}.py").write_text("raise SystemExit('hidden')")
    import copy

    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    said = subprocess.run(
        [*launch.command("reached"), "--an", "option"], capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()
    assert said == [busy_callback_flyer.__file__, copy.__file__, "beside", "__main__", "['--an', 'option']"]


def test_where_the_working_directory_is_gone_there_is_a_path_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(sys, "path", ["", "lib", str(tmp_path)])
    assert launch.module_path() == [str(tmp_path)]
