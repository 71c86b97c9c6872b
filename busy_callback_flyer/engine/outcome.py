"""What became of one flight: its data, or why there are none."""

from __future__ import annotations

import threading
from collections.abc import Callable

from .collector import FlightData
from .errors import CollectError


class Outcome:
    """Tells those who wait when the outcome of a flight is known, and hands its data out once.

    Parameters
    ----------
    pv : str
        Of the busy record, for messages.

    Attributes
    ----------
    taken : bool
        Whether the data were handed out.
    """

    def __init__(self, pv: str) -> None:
        self.taken = False
        self._pv = pv
        self._lock = threading.Lock()
        self._known = threading.Event()
        self._what: FlightData | Exception | None = None
        self._waiting: list[Callable[[Exception | None], None]] = []

    @property
    def awaited(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiting)

    @property
    def nothing(self) -> bool:
        """Whether it is known, and there is nothing to collect of a flight that went well."""
        return self._what == FlightData([], [])

    @property
    def kept(self) -> bool:
        """Whether there are data that nobody has taken, or they may still come."""
        if self.taken or isinstance(self._what, Exception):
            return False
        return self._what is None or self._what.points > 0

    def notify(self, tell: Callable[[Exception | None], None]) -> None:
        """Call `tell` when it is known, with the error if there is one; at once, if it is known."""
        with self._lock:
            if not self._known.is_set():
                self._waiting.append(tell)
                return
        self._tell(tell)

    def land(self, what: FlightData | Exception) -> None:
        """It is known; what comes later counts no more."""
        with self._lock:
            if self._known.is_set():
                return
            self._what = what
            self._known.set()
            waiting, self._waiting = self._waiting, []
        for tell in waiting:
            self._tell(tell)

    def give_up_waiting(self, error: Exception) -> None:
        """Tell those who wait that they wait no longer. What is under way may still come, and be collected."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for tell in waiting:
            tell(error)

    def take(self, timeout: float) -> FlightData | None:
        """The data, to whom asks first; None to others. Waits for those under way, `timeout` seconds at most.

        Raises
        ------
        CollectError
            They did not come in time, or are not to be trusted.
        FlightError
            The flight failed.
        """
        data = self._data(timeout)
        with self._lock:
            if self.taken:
                return None
            self.taken = True
        return data

    def offer_again(self, timeout: float) -> None:
        """Let the data be taken once more; raises as `take` does where there are none."""
        self._data(timeout)
        self.taken = False

    def _data(self, timeout: float) -> FlightData:
        if not self._known.wait(timeout):
            raise CollectError(
                f"{self._pv}: the flight is done, but its arrays are not here yet: wait for complete() before collect"
            )
        if isinstance(self._what, Exception):
            raise self._what
        assert self._what is not None
        return self._what

    def _tell(self, tell: Callable[[Exception | None], None]) -> None:
        tell(self._what if isinstance(self._what, Exception) else None)
