"""Runs one of our modules in a process of its own, which imports what we would, but nothing where its user works.

Python looks for modules in the working directory, or beside the user's script, before it looks into its own library:
a ``copy.py`` there keeps a process from starting. So ours are started isolated, by this file as a script, and told
where to look.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import runpy
import site
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def command(module: str) -> list[str]:
    """What runs the module; its arguments go behind."""
    return [sys.executable, "-I", "-S", __file__, json.dumps(module_path()), module]


def module_path() -> list[str]:
    """Where we look for modules, but not where our user works: the working directory, and the script's."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    works = {os.path.dirname(os.path.realpath(script))} if script else set()
    with contextlib.suppress(FileNotFoundError):  # it was removed
        works.add(os.getcwd())
    return [entry for entry in sys.path if os.path.isabs(entry) and os.path.realpath(entry) not in works]


def run(path: list[str], module: str) -> None:
    """Run it as the main module, with what is behind it on the command line.

    Until now `sys.path` is the standard library's, which stays first. The package is the one that this file is of,
    whatever others there are. Where it was found may be where its user works: that is asked last.
    """
    sys.path += [entry for entry in path if entry not in sys.path]
    site.main()
    spec = importlib.util.spec_from_file_location(PACKAGE.name, PACKAGE / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules[PACKAGE.name] = package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    sys.path.append(str(PACKAGE.parent))
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _, path_, module_ = sys.argv[:3]
    del sys.argv[1:3]
    run(json.loads(path_), module_)
