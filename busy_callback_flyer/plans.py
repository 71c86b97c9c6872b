"""Plans that land a flight on every way out.

The RunEngine never stops a flyer: a plan that is given up in flight leaves its record Busy, unless somebody ends the
flight. `fly` stages its flyers, and so the RunEngine itself unstages them even where a plan may not clean up (halt).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.preprocessors as bpp
from bluesky.protocols import Flyable, Stoppable
from bluesky.utils import FailedStatus, Msg, MsgGenerator, short_uid

from .channel import name_of
from .flyer import BusyFlyer, state_of

__all__ = ["fly", "recover"]

logger = logging.getLogger(__name__)


def fly(flyers: Flyable | Sequence[Flyable], *, md: Mapping[str, Any] | None = None) -> MsgGenerator[str]:
    """Fly one flyer or several at once, in one run, and land them whatever happens.

    Every flyer is staged, kicked off with the others, awaited and collected. Where the plan
    is given up in flight (abort, stop, halt, an exception in a plan around it, the failure of
    another device), Done is written to the records of those that still fly; those whose
    flight was over are collected.

    There is a checkpoint as soon as all flights are over, and after each collect: a
    RunEngine that pauses there repeats no flight when it resumes.

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
        No flyer, or two with one busy record.
    """
    flyers = [flyers] if isinstance(flyers, Flyable) else list(flyers)
    _refuse_records(flyers)
    md = _metadata(flyers, md)

    def flown() -> MsgGenerator[str]:
        for flyer in flyers:
            yield from bps.stage(flyer)
        run: str = yield from bps.open_run(md)
        yield from bpp.contingency_wrapper(_flights(flyers, run), except_plan=give_up, else_plan=bps.close_run)
        return run

    def give_up(error: Exception) -> MsgGenerator[None]:
        yield from _land(flyers)
        yield from _collect_what_is_kept(flyers)
        # The RunEngine's own exceptions know how their run exits, and their reason is not theirs to tell.
        yield from bps.close_run(exit_status=getattr(error, "exit_status", "fail"), reason=str(error) or None)

    def unstage() -> MsgGenerator[None]:
        for flyer in reversed(flyers):
            yield from bps.unstage(flyer)

    uid: str = yield from bpp.finalize_wrapper(flown(), unstage)
    return uid


def recover(flyer: BusyFlyer, *, run: str | None = None, md: Mapping[str, Any] | None = None) -> MsgGenerator[str]:
    """Collect the latest flight again, in a run of its own that names the one it was flown in.

    For a run that failed after the flight: the arrays stay with the flyer until its next kickoff.

    Parameters
    ----------
    flyer : BusyFlyer
    run : str, optional
        Uid of the run that failed. Needed where the flight was not flown by `fly`.
    md : mapping, optional
        Metadata of the new run. Its ``recovers`` is the uid of the old one.

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
    flown_in = run or flyer.flown_in
    if flown_in is None:
        raise ValueError(f"which run was {flyer.name} flown in? Give run=, the uid of its start document")
    flyer.offer_again()
    md = {"recovers": flown_in, **_metadata([flyer], md)}
    uid: str = yield from bpp.run_wrapper(bps.collect(flyer, return_payload=False), md=md)
    return uid


def _flights(flyers: Sequence[Flyable], run: str) -> MsgGenerator[None]:
    taking_off, landing = short_uid("kickoff"), short_uid("complete")
    for flyer in flyers:
        yield from bps.kickoff(flyer, group=taking_off)
        if isinstance(flyer, BusyFlyer):
            flyer.flown_in = run
    yield from bps.wait(taking_off)
    for flyer in flyers:
        yield from bps.complete(flyer, group=landing)
    yield from bps.wait(landing)
    for flyer in flyers:
        yield from bps.checkpoint()
        yield from bps.collect(flyer, return_payload=False)
    yield from bps.checkpoint()


def _land(flyers: Sequence[Flyable]) -> MsgGenerator[None]:
    """End the flights in progress, with nothing said of it but by their statuses: why it is done is known."""
    for flyer in flyers:
        if isinstance(flyer, Stoppable):
            try:
                yield Msg("stop", flyer)
            except FailedStatus:  # of the flight that was just ended, as the RunEngine reports it
                logger.info("%s was stopped", flyer.name, exc_info=True)


def _collect_what_is_kept(flyers: Sequence[Flyable]) -> MsgGenerator[None]:
    """Of flights that were over in time. The RunEngine would do so, if the run were left to it."""
    for flyer in flyers:
        if isinstance(flyer, BusyFlyer) and flyer.kept:
            try:
                yield from bps.collect(flyer, return_payload=False)
            except Exception:  # why the plan is given up matters more
                logger.exception(
                    "%s could not be collected: busy_callback_flyer.plans.recover(%s) tries again",
                    flyer.name,
                    flyer.name,
                )


def _metadata(flyers: Sequence[Flyable], md: Mapping[str, Any] | None) -> dict[str, Any]:
    given = dict(md or {})
    plot_md = flyers[0].plot_md if isinstance(flyers[0], BusyFlyer) else {}
    hints = {**plot_md.get("hints", {}), **given.pop("hints", {})}
    return {"flyers": [flyer.name for flyer in flyers], "hints": hints, **given}


def _refuse_records(flyers: Sequence[Flyable]) -> None:
    if not flyers:
        raise ValueError("no flyer to fly")
    flown: dict[str, str] = {}
    for flyer in flyers:
        if isinstance(flyer, BusyFlyer):
            pv = name_of(state_of(flyer.busy))
            if pv in flown:
                raise ValueError(f"{flown[pv]} and {flyer.name} cannot fly at once: both have the busy record {pv}")
            flown[pv] = flyer.name
