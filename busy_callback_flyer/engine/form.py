"""The form of a flight's events: what a run's descriptor fixes for all flights of that run."""

from __future__ import annotations

import asyncio
from typing import NamedTuple


class Form(NamedTuple):
    """What has to stay the same from one flight of a run to the next."""

    stream_name: str | None
    """None: whoever declares the stream names it."""
    layout: str
    array_length: int | None
    """Of layout "array" only."""
    time_array: str | None
    data_keys: tuple[str, ...]


class Described:
    """What was described last.

    The RunEngine asks for a description once a run, and files all flights of the run by it. It tells nobody when a run
    begins. So a flight can be held against its description where that comes before the kickoff (a declared stream);
    elsewhere the description may be that of an earlier run until the flight is collected. Where no event loop runs, it
    is no RunEngine that asks, and nobody goes by a description.
    """

    def __init__(self) -> None:
        self.form: Form | None = None

    def refuse_other(self, form: Form, error: type[Exception], advice: str) -> None:
        """Refuse a flight of another form, if there was a description."""
        if self.form is None or not _in_an_event_loop():
            return
        differing = [
            name
            for name, described, now in zip(form._fields, self.form, form, strict=True)
            if described != now and not (name == "stream_name" and None in (described, now))
        ]
        if differing:
            was, now = (", ".join(f"{name}={getattr(one, name)!r}" for name in differing) for one in (self.form, form))
            raise error(f"events with {now} cannot stand in a stream that was described with {was}. {advice}")


def _in_an_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
