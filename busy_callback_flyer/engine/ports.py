"""What the engine asks of the world: the protocols that channels satisfy, and what they bring.

A channel reaches one PV in one way. It never blocks its caller: what it asks is sent, and the answer comes by a
callback. Answers and news may come in any thread, also in the caller's own before the call returns. What a channel can
tell and what it cannot is a property of the protocol, so nobody has to ask for its class.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np

DONE, BUSY = 0, 1
"""The busy record's values. A site can rename its strings, so decisions are taken by these."""

NEVER = EPICS_EPOCH = 631152000.0
"""What EPICS counts from (1990-01-01): the stamp of what was never processed or written, also after a restart."""


class Put(enum.Enum):
    """What became of a put."""

    SERVED = "its callback came back: it was served"
    REFUSED = "the record did not take it"
    LOST = "its connection went before it was served"
    UNTOLD = "its callback came back, and nobody tells whether it was served"
    SENT = "it was sent without callback, ahead of any later read"


class Reading(NamedTuple):
    """What the busy record was seen to say."""

    value: int
    """0 (Done) or 1 (Busy); anything else is neither."""
    stamp: float
    """The server's time stamp, seconds of the POSIX epoch."""
    severity: int = 0
    """Alarm severity, 0 (none) to 3 (invalid)."""
    alarm: str = ""
    """What the alarm is, in words; empty without an alarm."""


class ArrayReading(NamedTuple):
    """An array as one answer brought it."""

    values: np.ndarray
    """One-dimensional; as long as the array was when it was read."""
    stamp: float
    """The server's time stamp, seconds of the POSIX epoch."""


class ValueReading(NamedTuple):
    """A value as one answer brought it."""

    value: Any
    stamp: float
    """The server's time stamp, seconds of the POSIX epoch."""


PutAnswer = Callable[[Put, str], None]
"""Takes what became of a put, and a sentence about it that may be empty."""

Confirmed = Callable[[str | None], None]
"""Takes None where a value was written, else a sentence why it was not, or may not have been."""


class BusyListener(Protocol):
    """Who hears from a channel to a busy record."""

    def connected(self, reading: Reading) -> None:
        """The record is connected and of the right kind; this is what it says."""

    def connection_lost(self) -> None:
        """The record is no longer connected."""

    def record_says(self, reading: Reading) -> None:
        """A monitor event came, other than the first of a subscription."""

    def record_read(self, reading: Reading) -> None:
        """The channel read the record by itself, after the latest put. Only polling channels do."""

    def unusable(self, problem: str) -> None:
        """The PV that connected cannot be a busy record."""


class Channel(Protocol):
    """One PV, reached in one way."""

    @property
    def pv(self) -> str:
        """Name of the PV, for messages."""

    @property
    def problem(self) -> str | None:
        """Why the PV that connected is of no use; None where it is of use."""

    @property
    def ready(self) -> bool:
        """Whether it is connected and was looked at."""

    @property
    def host(self) -> str | None:
        """Address of the server; None where it is not connected or nobody tells."""

    def wait_ready(self, timeout: float | None) -> bool:
        """Wait until it is ready, at most `timeout` seconds; whether it is."""

    def close(self) -> None:
        """Release it. There is no news afterwards; who waits for an answer hears that it will not come."""


class BusyChannel(Channel, Protocol):
    """A channel to a busy record. It tells a `BusyListener` the news."""

    needs_fence: bool
    """Whether puts that this process made elsewhere could be served after ours: `fence` comes first."""
    needs_ground_read: bool
    """Whether a read has to be sent ahead of the put, because its traces are all that tells what became of it."""

    keeps_order: bool
    """Whether puts and reads are served behind what the array channels of the same server were asked before."""

    @property
    def reading(self) -> Reading | None:
        """The latest news; None while the record is not connected."""

    @property
    def may_wait(self) -> bool:
        """Whether the calling thread may wait for something that this channel does in another thread."""

    def begin(self, flying: Callable[[], bool]) -> None:
        """A flight begins. A channel without monitor reads again and again as long as `flying` says so."""

    def fence(self, passed: Callable[[], None]) -> None:
        """Call `passed` when everything was served that this process put before."""

    def put(self, value: int, confirmed: Confirmed) -> None:
        """Put without callback, and look behind it whether the record took it; `confirmed` is called once."""

    def put_callback(self, value: int, answer: PutAnswer) -> None:
        """Put with callback; `answer` is called once. At most one may be pending."""

    def take_back(self, then: Callable[[], None]) -> None:
        """Take back a put-callback that is pending; then call `then`, at once or in another thread."""

    def read(self, answer: Callable[[Reading | None], None]) -> None:
        """Ask the record itself, behind what was asked before; `answer` gets None where it cannot be had."""

    def wait_sent(self, timeout: float) -> None:
        """Wait until what was asked before is sent, where the calling thread may; seconds, at most."""

    def lend(self, call: Callable[[], None]) -> None:
        """Run code of the user at once, in the thread that brought the news."""


class ArrayChannel(Channel, Protocol):
    """A channel to an array. It is asked, not monitored."""

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """Type of the elements; None while it is not known."""

    @property
    def size(self) -> int:
        """Most elements that the array can have."""

    @property
    def description(self) -> dict[str, Any]:
        """``source``, and what is known of ``units``, ``precision``, ``lower_ctrl_limit`` and ``upper_ctrl_limit``."""

    connections: int
    """How often the connection was lost: another number tells of a loss in between."""

    @property
    def patience(self) -> float:
        """Seconds that its answer may need on a slow network; those of all channels are added."""

    @property
    def why_silent(self) -> str:
        """What can keep an answer away and what to do about it, for messages."""

    def fetch_stamp(self, answer: Callable[[float | str], None]) -> None:
        """Ask for the stamp alone; `answer` gets it (POSIX epoch), or a sentence why it could not be had."""

    def fetch(self, answer: Callable[[ArrayReading | str], None]) -> None:
        """Ask for the array; `answer` gets it, or a sentence why it could not be had."""


class ValueChannel(Protocol):
    """A channel to a value that is read once a flight."""

    @property
    def pv(self) -> str:
        """Name of the PV, for messages."""

    @property
    def ready(self) -> bool:
        """Whether it is connected."""

    connections: int
    """How often the connection was lost: another number tells of a loss in between."""

    @property
    def patience(self) -> float:
        """Seconds that its answer may need; those of all channels are added."""

    @property
    def why_silent(self) -> str:
        """What can keep an answer away and what to do about it, for messages."""

    @property
    def description(self) -> dict[str, Any]:
        """Its data key's description, as ophyd and event-model have it."""

    def fetch(self, answer: Callable[[ValueReading | str], None]) -> None:
        """Ask for the value; `answer` gets it, or a sentence why it could not be had."""


class CountChannel(Protocol):
    """A channel to a number that is watched while it counts."""

    first: ValueReading | None
    """What it said when it was first listened to. Only this one's stamp is of the value: a record posts NORD before
    it has its new stamp."""
    latest: ValueReading | None
    """What it said last."""

    @property
    def host(self) -> str | None:
        """Address of the server; None where it is not connected or nobody tells."""

    def close(self) -> None:
        """Listen no more."""
