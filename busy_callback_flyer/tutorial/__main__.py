"""`python -m busy_callback_flyer.tutorial`: step by step, the code and what it prints."""

from __future__ import annotations

import atexit
import inspect
import os
import sys
from importlib import import_module

from rich.console import Console
from rich.markdown import Markdown
from rich.syntax import Syntax

from ..ioc import EmbeddedIOC
from . import STEPS

PREFIX = "prj:"


def main() -> None:
    """Walk through; at a terminal, Enter goes on."""
    console = Console(highlight=False)
    ioc = EmbeddedIOC(PREFIX)
    ioc.start()
    atexit.register(ioc.stop)  # before Channel Access comes up: it has to go down first
    os.environ.update(ioc.client_environment)
    # Importing a step imports ophyd, which brings up Channel Access.
    from bluesky import RunEngine

    run_engine = RunEngine({})
    for number, name in enumerate(STEPS):
        if number and sys.stdin.isatty():
            console.input("\n[dim]Enter goes on, Ctrl-C ends.[/dim] ")
        step = import_module(f".{name}", __package__)
        console.print()
        console.rule(f"{name}.py")
        console.print(Markdown(inspect.getdoc(step) or ""))
        console.print()
        console.print(Syntax(_code(inspect.getsource(step)), "python", background_color="default", word_wrap=True))
        console.print()
        console.rule("It prints", align="left")
        step.demonstrate(run_engine)


def _code(source: str) -> str:
    """Without what was shown already, the docstring, and what every module begins with."""
    return source.split("from __future__ import annotations\n", 1)[1].strip()


if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, EOFError):
        print()
