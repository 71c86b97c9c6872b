"""The command `busy-flyer`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
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
        extra = "tiled" if "tiled" in str(missing.name) else "demo"
        return _complain(f"{missing.name} is not installed: pip install 'busy_callback_flyer[{extra}]'")
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
    _add_plot(demo, "busy-flyer-demo.png")
    demo.add_argument("--live", action="store_true", help="show it in a window as the flights come in")
    demo.add_argument("--tiled", action="store_true", help="write the flights into a Tiled server, and read them back")
    demo.set_defaults(command=_demo)

    ioc = commands.add_parser("ioc", help="run the embedded IOC until Ctrl-C")
    ioc.add_argument("--prefix", default="prj:", help="of its PVs (%(default)s)")
    ioc.add_argument("--nelm", type=_number(int, 1), default=256, help="elements of an array (%(default)s)")
    ioc.add_argument("--no-controller", action="store_true", help="without the pseudo-controller")
    ioc.set_defaults(command=_ioc)

    check = commands.add_parser(
        "check",
        help="whether your PVs fly, and if not, what to do",
        description="Looks at your PVs and says of each what it is, whether it is in the way of a flight, and what to "
        "do. Without --fly nothing is written. The exit status is 0 where they fly.",
    )
    check.add_argument("prefix", metavar="PREFIX", help="what the PVs' names begin with")
    check.add_argument("--busy", default="mybusy", metavar="NAME", help="the busy record, behind PREFIX (%(default)s)")
    check.add_argument(
        "--arrays",
        nargs="*",
        default=["t_array", "x_array", "y_array"],
        metavar="NAME",
        help="the arrays, behind PREFIX (t_array x_array y_array)",
    )
    check.add_argument("--fly", action="store_true", help="fly once, each verb in turn: your controller will scan")
    check.add_argument(
        "--flight-timeout", type=_number(float, 0), default=60.0, help="seconds that it may take (%(default)s)"
    )
    check.add_argument(
        "--timeout", type=_number(float, 0), default=5.0, help="seconds that a PV may need to connect (%(default)s)"
    )
    check.add_argument("--json", action="store_true", help="print JSON instead of lines")
    check.set_defaults(command=_check)

    latency = commands.add_parser(
        "latency",
        help="how long after Done a client knows, at your own busy PV: by polling, by callback",
        description="Flies at a busy PV by several ways of waiting in turn, and compares how long after the IOC's Done "
        "each of them knew. It says what it will write, and asks first.",
    )
    latency.add_argument("pv", metavar="PV", help="of the busy record, such as prj:mybusy")
    latency.add_argument("--yes", action="store_true", help="do not ask")
    latency.add_argument("--flights", type=_number(int, 1), default=20, help="by each way (%(default)s)")
    latency.add_argument(
        "--ways",
        nargs="+",
        default=["direct", "ophyd", "subscribe", "put-callback", "poll-10", "poll-50"],
        metavar="WAY",
        help="direct, ophyd (BusyFlyer, by both kinds of its events), subscribe, put-callback (ophyd's own), poll-N, "
        "cache-N (every N milliseconds, by reads or of a monitored value); %(default)s",
    )
    latency.add_argument(
        "--self-clear",
        action="store_true",
        help="write Done ourselves, 5 to 105 ms after Busy: for a record on which nobody acts",
    )
    latency.add_argument(
        "--length-pv", metavar="PV", help="of the length of a flight in seconds, which is then varied from 5 to 105 ms"
    )
    latency.add_argument(
        "--timeout", type=_number(float, 1), default=60.0, help="seconds that a flight may take (%(default)s)"
    )
    _add_plot(latency, "busy-flyer-latency.png")
    latency.add_argument("--json", type=Path, metavar="FILE", help="where the raw samples go")
    latency.set_defaults(command=_latency)

    controller = commands.add_parser(
        "controller", help="run the pseudo-controller as a CA client, beside an IOC that has its records"
    )
    controller.add_argument("prefix", metavar="PREFIX", help="of the IOC's PVs, such as prj:")
    controller.set_defaults(command=_controller)
    return parser


def _add_plot(command: argparse.ArgumentParser, default: str) -> None:
    command.add_argument(
        "--plot", type=Path, default=Path(default), metavar="PNG", help="where the picture goes (%(default)s)"
    )


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

    run(
        points=arguments.points,
        duration=arguments.duration,
        flights=arguments.flights,
        plot=arguments.plot,
        live=arguments.live,
        tiled=arguments.tiled,
    )
    return 0


def _ioc(arguments: argparse.Namespace) -> int:
    from ..ioc import EmbeddedIOC

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


def _check(arguments: argparse.Namespace) -> int:
    from ..devices.make import make_flyer
    from .check import check

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # lands, as by Ctrl-C
    flyer = make_flyer(
        "flyer",
        busy=arguments.prefix + arguments.busy,
        arrays={f"column_{number}": arguments.prefix + name for number, name in enumerate(arguments.arrays, start=1)},
        flight_timeout=arguments.flight_timeout,
        when_busy="fail",  # another's flight is not ended by a check
    )
    report = check(
        flyer,
        fly=arguments.fly,
        timeout=arguments.timeout,
        named=False,
        found=(lambda finding: None) if arguments.json else partial(print, flush=True),
    )
    if arguments.json:
        print(json.dumps(report.to_dict(), indent=1))
    else:
        print(f"\n{report.summary}")
    return 0 if report.ok else 1


def _latency(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from tqdm import tqdm

    from . import latency

    programs = latency.programs(arguments.ways, arguments.pv, arguments.timeout)
    if arguments.self_clear and arguments.length_pv:
        return _complain("--self-clear and --length-pv exclude each other: who is to end the flights?")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # lands, as by Ctrl-C
    record = latency.BusyPV(arguments.pv)
    blocks = min(arguments.flights, 4)
    flights = (arguments.flights + latency.WARM_UP * blocks) * len(programs)
    print(f"{arguments.pv} is served by {record.host}. It is Done.\n\nThis will write to it:")
    print(f"    Busy, {flights} times: {arguments.flights} flights by each way, and some before them to warm up")
    if arguments.self_clear:
        print("    Done, 5 to 105 ms after each: nobody else should act on it (--self-clear)")
    else:
        print("    Done is for your controller to write: it will scan as often. If nobody does, add --self-clear")
    if arguments.length_pv:
        print(f"    and to {arguments.length_pv}: 0.005 to 0.105, before each; at the end what is there now")
    print("    Done, where this is given up in a flight")
    if not arguments.yes and not _agreed():
        return _complain("nothing was written")
    controller: latency.Controller = latency.Site()
    if arguments.self_clear:
        controller = latency.SelfClear(arguments.pv)
    elif arguments.length_pv:
        controller = latency.LengthPV(arguments.length_pv)
    with tqdm(total=flights, desc="flights", disable=None, leave=False) as bar:
        measurement = latency.measure(
            record,
            programs,
            flights=arguments.flights,
            blocks=blocks,
            controller=controller,
            timeout=arguments.timeout,
            flew=bar.update,
        )
    print()
    Console(highlight=False).print(latency.table(measurement))
    print("\n".join(latency.remarks(measurement)))
    latency.draw(measurement, arguments.plot)
    print(f"\nThe picture is in {arguments.plot}.")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(measurement.to_dict()))
        print(f"The raw samples are in {arguments.json}.")
    return int(bool(measurement.doubt) or any(delays.failure for delays in measurement.ways.values()))


def _agreed() -> bool:
    try:
        return input("\nFly? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


def _controller(arguments: argparse.Namespace) -> int:
    from ..ioc.ca_controller import run

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
