"""The command `busy-flyer`."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.command(arguments)
    except KeyboardInterrupt:
        print("\nStopped.")
        return 130
    except ModuleNotFoundError as missing:
        return _complain(f"{missing.name} is not installed: pip install 'busy_callback_flyer[demo]'")
    except (RuntimeError, ValueError, TimeoutError, OSError) as error:
        return _complain(str(error))
    return status


def _complain(sentence: str) -> int:
    print(f"busy-flyer: {sentence}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="busy-flyer", description="Fly scans behind a synApps busy record.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="fly against an embedded IOC, by callback and by polling")
    demo.add_argument("--points", type=_number(int, 1), default=21, help="points of a flight (%(default)s)")
    demo.add_argument("--duration", type=_number(float, 0), default=1.0, help="seconds of a flight (%(default)s)")
    demo.add_argument("--flights", type=_number(int, 1), default=5, help="flights of each kind (%(default)s)")
    demo.add_argument(
        "--plot",
        type=Path,
        default=Path("busy-flyer-demo.png"),
        metavar="PNG",
        help="where the plot goes (%(default)s)",
    )
    demo.set_defaults(command=_demo)

    ioc = commands.add_parser("ioc", help="run the embedded IOC until Ctrl-C")
    ioc.add_argument("--prefix", default="prj:", help="of its PVs (%(default)s)")
    ioc.add_argument("--nelm", type=_number(int, 1), default=256, help="elements of an array (%(default)s)")
    ioc.add_argument("--no-controller", action="store_true", help="without the pseudo-controller")
    ioc.set_defaults(command=_ioc)

    controller = commands.add_parser(
        "controller", help="run the pseudo-controller as a CA client, beside an IOC that has its records"
    )
    controller.add_argument("prefix", metavar="PREFIX", help="of the IOC's PVs, such as prj:")
    controller.set_defaults(command=_controller)
    return parser


def _number(kind: type[int] | type[float], least: int) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = -1
        if not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"must be a number, {least} or more, not {text!r}")
        return value

    return parse


def _demo(arguments: argparse.Namespace) -> int:
    from .demo import run

    run(points=arguments.points, duration=arguments.duration, flights=arguments.flights, plot=arguments.plot)
    return 0


def _ioc(arguments: argparse.Namespace) -> int:
    from .ioc import EmbeddedIOC

    with EmbeddedIOC(arguments.prefix, nelm=arguments.nelm, controller=not arguments.no_controller) as ioc:
        print(f"IOC on 127.0.0.1:{ioc.port}, process {ioc.pid}. Its PVs:\n")
        print("\n".join(f"    {pv}" for pv in ioc.pvs))
        print("\nA client needs this environment:\n")
        print("\n".join(f"    export {name}={value!r}" for name, value in ioc.client_environment.items()))
        print("\nCtrl-C stops it.", flush=True)
        stop = _stop_requested()
        while not stop.wait(0.5):
            if not ioc.alive:
                return _complain("the IOC's process has ended")
    print("\nStopped.")
    return 0


def _controller(arguments: argparse.Namespace) -> int:
    from .ioc.ca_controller import run

    def connected() -> None:
        print(f"Flies whenever {arguments.prefix}mybusy goes Busy. Ctrl-C stops it.", flush=True)

    run(arguments.prefix, stop=_stop_requested(), connected=connected)
    print("\nStopped.")
    return 0


def _stop_requested() -> threading.Event:
    """Set by Ctrl-C and by SIGTERM."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


if __name__ == "__main__":
    sys.exit(main())
