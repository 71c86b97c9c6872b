"""The C client, built from the headers and libraries that epicscorelibs brings."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import epicscorelibs.path


def compiler() -> str | None:
    """A C compiler, if there is one."""
    return shutil.which("cc") or shutil.which("gcc")


def build(folder: Path) -> Path:
    """Build it in this folder; returns the program.

    Raises
    ------
    subprocess.CalledProcessError
        The compiler did not like it.
    """
    program = folder / "c_client"
    include, libraries = Path(epicscorelibs.path.include_path), epicscorelibs.path.lib_path
    headers = [include, include / "os" / "Linux", include / "compiler" / "gcc"]
    subprocess.run(
        [
            str(compiler()),
            "-O2",
            *(f"-I{folder}" for folder in headers),
            *("-o", str(program), str(Path(__file__).with_suffix(".c"))),
            *(f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-lca", "-lCom"),
        ],
        check=True,
    )
    return program
