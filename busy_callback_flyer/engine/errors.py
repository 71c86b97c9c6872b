"""What can go wrong with a flight, and with what it brought."""

from __future__ import annotations


class FlightError(RuntimeError):
    """A flight that did not finish."""


class FlightTimeout(FlightError, TimeoutError):
    """No sign of life after the put, or not Done in time."""


class FlightAborted(FlightError):
    """Somebody asked for the end of the flight before it was over."""


class FlightLost(FlightError):
    """The connection to the busy record was lost in flight, and the flight with it."""


class FlightRefused(FlightError):
    """The busy record, or its state at kickoff, does not permit a flight."""


class CollectError(RuntimeError):
    """The arrays of a finished flight could not be had, or are not to be trusted."""


class StaleArrayError(CollectError):
    """An array is not the flight's: the controller has not written it, or another flight has."""


class RaggedArrayError(CollectError):
    """The arrays of one flight differ in length, or there are fewer points than were counted."""
