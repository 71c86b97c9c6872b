"""Plans that land a flight on every way out.

The RunEngine never stops a flyer: a plan that is given up in flight leaves its record Busy, unless somebody ends the
flight. `fly` stages its flyers, or the devices that they are components of, and so the RunEngine itself unstages them
even where a plan may not clean up (halt).
"""

# Annotations are no texts here: the queue server reads them, and makes devices of names by them.

import logging
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky.protocols import Flyable, Stoppable
from bluesky.utils import FailedStatus, Msg, MsgGenerator, RunEngineControlException, short_uid
from ophyd import Device

from .channels.choice import name_of
from .devices.flyer import BusyFlyer

__all__ = ["fly", "recover"]

logger = logging.getLogger(__name__)


def fly(flyers: Flyable | Sequence[Flyable], *, md: Mapping[str, Any] | None = None) -> MsgGenerator[str]:
    """Fly one flyer or several at once, in one run, and land them whatever happens.

    Every flyer is staged, kicked off with the others, awaited and collected. Of one that is a component of
    another device the root is staged, once, as bluesky's own decorators do. Where the plan
    is given up in flight (abort, stop, halt, an exception in a plan around it, the failure of
    another device), Done is written to the records of those that still fly; those whose
    flight was over are collected.

    (bluesky before 1.14.5 notices the failure of one device when all the others are done.)

    There is a checkpoint once all is collected, where Ctrl-C (once) pauses. A pause repeats no
    flight, wherever it comes.

    Parameters
    ----------
    flyers : flyer or sequence of flyers
        `BusyFlyer`, or anything else that bluesky can fly.
    md : mapping, optional
        Metadata of the run, added to the first flyer's `plot_md`.

    Returns
    -------
    str
        Uid of the run.

    Raises
    ------
    ValueError
        No flyer, or two with one busy record, one name or one stream, or one that describes itself flat.
    RuntimeError
        One of them is flying already, or another flyer of the same root; it is left alone.
    """
    flyers = list(flyers) if isinstance(flyers, Sequence) and not isinstance(flyers, str) else [flyers]
    _refuse(flyers)
    roots = list(dict.fromkeys(map(_root, flyers)))
    md = _metadata(flyers, md)

    def flown() -> MsgGenerator[str]:
        yield from bps.stage_all(*roots)
        run: str = yield from bps.open_run(md)

        def give_up(error: Exception) -> Any:
            return bpp.rewindable_wrapper(_clean_up(flyers, run, error), False)  # a pause must not replay a kickoff

        yield from bpp.contingency_wrapper(_flights(flyers, run), except_plan=give_up, else_plan=bps.close_run)
        return run

    uid: str = yield from bpp.finalize_wrapper(flown(), lambda: _unstage(roots))
    return uid


def recover(flyer: BusyFlyer, *, run: str | None = None, md: Mapping[str, Any] | None = None) -> MsgGenerator[str]:
    """Collect the latest flight again, in a run of its own that names the one it was flown in.

    For a run that failed after the flight: the arrays of the latest flight, whatever became of
    them, stay with the flyer until its next kickoff.

    Parameters
    ----------
    flyer : BusyFlyer
    run : str, optional
        Uid of the run that failed. Needed where the flight was not flown by `fly`.
    md : mapping, optional
        Metadata of the new run. Its ``recovers`` is the uid of the old one, its ``flown_at`` the
        start of the flight, in seconds of the POSIX epoch.

    Returns
    -------
    str
        Uid of the new run.

    Raises
    ------
    ValueError
        The old run is not known.
    RuntimeError
        The latest flight is not over, or it failed, or there is none.
    CollectError
        Its arrays could not be had, or are not to be trusted.
    """
    if not isinstance(flyer, BusyFlyer):
        raise TypeError(f"{flyer!r} is no BusyFlyer: one flight is recovered at a time")
    flyer.offer_again()
    flown_in = run or flyer.flown_in
    if flown_in is None:
        raise ValueError(f"which run was {flyer.name} flown in? Give run=, the uid of its start document")
    logger.info("%s: the flight of run %s is collected again", flyer.name, flown_in)
    md = {"recovers": flown_in, "flown_at": flyer.timeline.t0, **_metadata([flyer], md)}
    uid: str = yield from bpp.run_wrapper(bps.collect(flyer, return_payload=False), md=md)
    return uid


def _flights(flyers: Sequence[Flyable], run: str) -> MsgGenerator[None]:
    taking_off, landing = short_uid("kickoff"), short_uid("complete")
    for flyer in flyers:
        yield from _kickoff(flyer, taking_off, run)
    yield from bps.wait(taking_off)
    for flyer in flyers:
        yield from bps.complete(flyer, group=landing)
    yield from bps.wait(landing)
    yield from bpp.rewindable_wrapper(_collects(flyers), False)  # a pause must not replay what was collected
    yield from bps.checkpoint()


def _kickoff(flyer: Flyable, group: str, run: str) -> MsgGenerator[None]:
    earlier = getattr(flyer, "timeline", None)
    try:
        yield from bps.kickoff(flyer, group=group)
    finally:  # whatever was thrown in: a flight that was begun is this run's
        if isinstance(flyer, BusyFlyer) and flyer.timeline is not earlier:
            flyer.flown_in = run


def _collects(flyers: Sequence[Flyable]) -> MsgGenerator[None]:
    for flyer in flyers:
        yield from bps.collect(flyer, return_payload=False)


def _clean_up(flyers: Sequence[Flyable], run: str, error: Exception) -> Any:
    def close() -> Any:
        # The RunEngine's own exceptions know how their run exits, and their reason is not theirs to tell.
        return bps.close_run(exit_status=getattr(error, "exit_status", "fail"), reason=str(error) or None)

    return bpp.finalize_wrapper(_land_and_collect(flyers, run), close)


def _land_and_collect(flyers: Sequence[Flyable], run: str) -> MsgGenerator[None]:
    """End the flights in progress, and file those that were over; what goes wrong with one is not the others' fault."""
    for flyer in flyers:
        if isinstance(flyer, Stoppable):
            try:
                yield Msg("stop", flyer)
            except RunEngineControlException:
                raise
            except FailedStatus:  # of the flight that was just ended, as the RunEngine reports it
                logger.info("%s was stopped", flyer.name, exc_info=True)
            except Exception:
                logger.exception("%s could not be stopped", flyer.name)
    for flyer in flyers:
        if isinstance(flyer, BusyFlyer) and flyer.kept and flyer.flown_in == run:
            try:
                yield from bps.collect(flyer, return_payload=False)
            except RunEngineControlException:
                raise
            except Exception:
                logger.exception(
                    "%s could not be collected: busy_callback_flyer.plans.recover(%s) tries again",
                    flyer.name,
                    flyer.name,
                )


def _root(device: Any) -> Any:
    while (parent := getattr(device, "parent", None)) is not None:
        device = parent
    return device


def _unstage(devices: Sequence[Any]) -> MsgGenerator[None]:
    """In reverse order, and the next one even if one fails."""
    if devices:
        *others, device = devices
        yield from bpp.finalize_wrapper(bps.unstage(device, wait=True), lambda: _unstage(others))


def _metadata(flyers: Sequence[Flyable], md: Mapping[str, Any] | None) -> dict[str, Any]:
    given = dict(md or {})
    plot_md = flyers[0].plot_md if isinstance(flyers[0], BusyFlyer) else {}
    hints = {**plot_md.get("hints", {}), **given.pop("hints", {})}
    return {"flyers": [flyer.name for flyer in flyers], "hints": hints, **given}


def _refuse(flyers: Sequence[Flyable]) -> None:
    if not flyers:
        raise ValueError("no flyer to fly")
    flown: dict[str, str] = {}
    for number, flyer in enumerate(flyers):
        if not isinstance(flyer, Flyable):
            raise TypeError(f"{flyer!r} is no flyer")
        if any(flyer is other for other in flyers[:number]):
            raise ValueError(f"{flyer.name} is given twice")
        if isinstance(flyer, BusyFlyer):
            if flyer.flying:
                raise RuntimeError(f"{flyer.name} is flying already: wait for that flight, or stop() it")
            for pv in map(name_of, flyer.busy_states):
                if pv in flown:
                    raise ValueError(f"{flown[pv]} and {flyer.name} cannot fly at once: both have the busy record {pv}")
                flown[pv] = flyer.name
            if flyer.describe_as == "flat":
                raise ValueError(
                    f"{flyer.name} describes itself flat, for plans that declare its stream, and this one does not: "
                    "set its describe_as to 'nested'"
                )
            _refuse_to_land(flyer, flyers)
    _refuse_one_name_twice(flyers)


def _refuse_one_name_twice(flyers: Sequence[Flyable]) -> None:
    """One run cannot tell their data apart; it would say so only when they have flown."""
    for first, second in combinations(flyers, 2):
        if first.name == second.name:
            raise ValueError(
                f"{_told_apart(first)} and {_told_apart(second)} cannot be flown in one run: give one of them another "
                "name, as their data keys begin with it"
            )
        stream = _stream(first)
        if stream is not None and stream == _stream(second):
            raise ValueError(
                f"{first.name} and {second.name} cannot be flown in one run: both have the stream {stream!r}. Give one "
                "of them another stream_name"
            )


def _refuse_to_land(flyer: BusyFlyer, flyers: Sequence[Flyable]) -> None:
    """Unstaging a root ends the flights of all its flyers."""
    root = _root(flyer)
    devices = [root, *(device for _, device in root.walk_subdevices())] if isinstance(root, Device) else []
    for other in devices:
        if isinstance(other, BusyFlyer) and other.flying and all(other is not one for one in flyers):
            raise RuntimeError(
                f"{other.name} is flying, and would be ended by {root.name}, which is staged and unstaged for "
                f"{flyer.name}: wait for that flight, or fly both at once"
            )


def _told_apart(flyer: Flyable) -> str:
    what = name_of(flyer.busy_states[0]) if isinstance(flyer, BusyFlyer) else type(flyer).__name__
    return f"{flyer.name} ({what})"


def _stream(flyer: Flyable) -> str | None:
    return flyer.stream_name or flyer.name if isinstance(flyer, BusyFlyer) else None
