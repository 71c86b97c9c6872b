"""Every option once: its name, type, default, check and meaning.

Signatures, docstrings, `configure`, configuration documents and the table in the docs are made from this table.
"""

from __future__ import annotations

import inspect
import math
import numbers
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from typing_extensions import Unpack

Check = Callable[[object], str | None]
"""Takes a value; returns what it must be, where it is not."""


def _seconds(value: object) -> str | None:
    return None if _number(value) and 0 <= float(value) < math.inf else "a number of seconds, 0 or more"  # type: ignore[arg-type]


def _optional_seconds(value: object) -> str | None:
    must_be = None if value is None else _seconds(value)
    return must_be and f"{must_be} or None"


def _points(value: object) -> str | None:
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= 1
    return None if whole else "a whole number of points, 1 or more"


def _optional_points(value: object) -> str | None:
    return None if value is None else _points(value)


def _optional_name(value: object) -> str | None:
    return None if value is None or isinstance(value, str) else "None or a name"


def _expected(kind: type) -> Check:
    def check(value: object) -> str | None:
        usable = value is None or isinstance(value, str)
        usable = usable or (isinstance(value, kind) and _number(value) and 0 < float(value) < math.inf)  # type: ignore[arg-type]
        return None if usable else "None, a number above 0, or the name of a signal"

    return check


def _number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def plain(value: object) -> object:
    """Numbers and texts as Python's own: every document writer takes those, and few take numpy's."""
    if isinstance(value, str):
        return str.__str__(value)
    if not _number(value):
        return value
    return int(value) if isinstance(value, numbers.Integral) else float(value)  # type: ignore[arg-type]


class _Means:
    """What an option is, beside its type."""

    def __init__(self, default: object, meaning: str, check: Check | None = None) -> None:
        self.default = default
        self.meaning = textwrap.dedent(meaning).strip()
        self.check = check


class FlyerOptions(TypedDict, total=False):
    """Options of `BusyFlyer`, as keyword arguments."""

    kickoff_finishes_on: Annotated[
        Literal["done", "busy"],
        _Means(
            "done",
            """
            When the status of `kickoff` finishes: on Busy→Done, so that what follows it in a plan
            comes after the flight; or as soon as the record is Busy. The latter is bluesky's own
            convention. It is needed to fly several at once by `bp.fly`, and for `fly_during_wrapper`.""",
        ),
    ]
    when_busy: Annotated[
        Literal["reset", "wait", "fail"],
        _Means(
            "reset",
            """
            What to do where the record is not Done at kickoff: write Done and wait for it, then
            `reset_settle` more; wait for that flight to end; or refuse.""",
        ),
    ]
    reset_settle: Annotated[
        float,
        _Means(
            0.1,
            """
            Seconds from a Done of ours (a reset, or one that ended a flight before its time) to the
            next put of Busy: the controller may still write.""",
            _seconds,
        ),
    ]
    start_timeout: Annotated[
        float,
        _Means(
            5.0,
            """
            Seconds from the put of Busy to a sign of life. Each wait ahead of the put is as long at most:
            for the first connection to the record, for Done after a reset, for earlier puts of this
            process to be served and for the arrays to connect and tell their stamps. Where they are
            asked right ahead of the put, they have as long after it.""",
            _seconds,
        ),
    ]
    flight_timeout: Annotated[
        float | None,
        _Means(
            None,
            """
            Seconds from `kickoff` to Done. It bounds all that lies between: waiting for another's
            flight, settling, a taxi. Set it: without it a flight whose controller died has no end
            as long as its IOC lives.""",
            _optional_seconds,
        ),
    ]
    on_timeout: Annotated[
        Literal["reset", "leave"], _Means("reset", "Whether to write Done after a timeout, where Busy was put.")
    ]
    reconnect_timeout: Annotated[
        float,
        _Means(
            15.0,
            """
            Seconds that a lost connection to the record may last, in flight; and before it, in place
            of `start_timeout`, where the record was connected before.""",
            _seconds,
        ),
    ]
    on_pause: Annotated[
        Literal["continue", "abort"],
        _Means(
            "continue",
            """
            Where the RunEngine pauses in flight (Ctrl-C twice, a suspender): let it fly, and
            rejoin it on resume; or end it, and the plan sees `FlightAborted`. The flight's
            deadlines do not pause.""",
        ),
    ]
    time_array: Annotated[str | None, _Means("tArr", "The column that holds the points' times.", _optional_name)]
    time_origin: Annotated[
        Literal["absolute", "relative", "epics"],
        _Means(
            "absolute",
            """
            Whether those are seconds of the POSIX epoch, since the flight's start, or of the EPICS epoch (since
            1990, as areaDetector's epicsTS). A warning is logged where they lie far outside the flight: by
            more than 5 minutes, or where they are relative, by more than 10 s and the flight's length.""",
        ),
    ]
    points: Annotated[
        str | None,
        _Means(
            None,
            """
            Name of a component, a signal whose value after the flight is the number of points, where
            NORD does not tell: the arrays' first points are the flight's. Other values that are read
            once a flight are taken as they are, whenever they were written.""",
            _optional_name,
        ),
    ]
    fresh_timeout: Annotated[
        float,
        _Means(
            1.0,
            """
            Seconds after Done that the controller may need to write the arrays: those that bear the
            stamp of before the flight are asked for again until then.""",
            _seconds,
        ),
    ]
    on_stale: Annotated[
        Literal["error", "warn"],
        _Means(
            "error",
            """
            Where an array was not written since the put of Busy, another flight may have written it, or
            its connection was lost: fail, or log a warning and pass it on.""",
        ),
    ]
    on_ragged: Annotated[
        Literal["error", "warn", "truncate"],
        _Means(
            "error",
            """
            Where the arrays differ in length: fail, or keep as many points as all have, with or
            without a logged warning.""",
        ),
    ]
    layout: Annotated[
        Literal["rows", "array"],
        _Means("rows", "An event a point, or one event whose cells are the arrays, as numpy arrays."),
    ]
    array_length: Annotated[
        int | None,
        _Means(
            None,
            """
            Elements of each cell of layout "array": shorter arrays are padded, by NaN or by 0 for
            integers, and the key ``{name}_{attribute}_nord`` says how many count. None: each
            record's NELM.""",
            _optional_points,
        ),
    ]
    page_size: Annotated[int, _Means(2000, 'Most points in one event page of layout "rows".', _points)]
    describe: Annotated[
        Literal["nested", "flat"],
        _Means(
            "nested",
            """
            Form of `describe_collect`: ``{stream: {key: ...}}``, which `bp.fly` needs, or
            ``{key: ...}``, which ``declare_stream(flyer, name=..., collect=True)`` needs.""",
        ),
    ]
    stream_name: Annotated[
        str | None,
        _Means(
            None,
            """Name of the data stream; None: the flyer's. BestEffortCallback's table wants "primary".""",
            _optional_name,
        ),
    ]
    progress: Annotated[
        str | None,
        _Means(
            None,
            """
            Name of a component that counts points in flight, a signal or a column (its NORD), for whoever
            watches a status, as progress bars do; None: the time column, where `expected_points` is given. It
            is listened to only while somebody watches (by ophyd's events, from then on).""",
            _optional_name,
        ),
    ]
    expected_points: Annotated[
        int | str | None,
        _Means(
            None,
            "How many there will be, or the name of a component, a signal that says so.",
            _expected(numbers.Integral),
        ),
    ]
    expected_time: Annotated[
        float | str | None,
        _Means(
            None,
            """
            Seconds that a flight takes, or the name of a signal that says so: where no points are expected, the
            progress is that of time.""",
            _expected(numbers.Real),
        ),
    ]
    events: Annotated[
        Literal["direct", "ophyd"],
        _Means(
            "direct",
            """
            Where the news comes from: straight from libca, or from the components' own signals,
            of whatever control layer (or a fake device), in a worker thread of the flyer. Where
            the first cannot be had, the flyer takes the second and logs a warning.""",
        ),
    ]


class TaxiOptions(FlyerOptions, total=False):
    """Options of `TaxiFlyer`, as keyword arguments."""

    taxi_timeout: Annotated[
        float | None,
        _Means(None, "Seconds from the taxi's start, by `prepare` or `kickoff`, to its Done.", _optional_seconds),
    ]


class PollingOptions(FlyerOptions, total=False):
    """Options of `PollingFlyer`, as keyword arguments."""

    poll_sleep_interval_s: Annotated[float, _Means(0.05, "Seconds between two polls.", _seconds)]


@dataclass(frozen=True)
class Option:
    """One option of a flyer.

    Attributes
    ----------
    name : str
    type : type or special form
    default : object
    meaning : str
    """

    name: str
    type: Any
    default: Any
    meaning: str
    _check: Check | None

    def check(self, value: object) -> None:
        """Refuse a value that no flight can be flown with.

        Raises
        ------
        ValueError
            It names the option, the value and what it must be.
        """
        if self._check is not None:
            must_be = self._check(value)
        else:
            allowed = get_args(self.type)
            must_be = None if value in allowed else f"one of {', '.join(map(repr, allowed))}"
        if must_be is not None:
            raise ValueError(f"{self.name}={value!r}: must be {must_be}")

    @property
    def attribute(self) -> str:
        """Where a flyer keeps it: `describe` is a method of every Device."""
        return "describe_as" if self.name == "describe" else self.name

    @property
    def type_in_words(self) -> str:
        """As numpydoc has it."""
        if get_origin(self.type) is Literal:
            return "{" + ", ".join(f'"{value}"' for value in get_args(self.type)) + "}"
        types = get_args(self.type) or (self.type,)
        return " or ".join("None" if kind is type(None) else kind.__name__ for kind in types)


def _table(of: type) -> dict[str, Option]:
    table = {}
    for name, hint in get_type_hints(of, include_extras=True).items():
        kind, means = get_args(hint)
        table[name] = Option(name, kind, means.default, means.meaning, means.check)
    return table


OPTIONS = _table(FlyerOptions)
"""Options of `BusyFlyer`, by name."""

TAXI_OPTIONS = _table(TaxiOptions)
"""Options of `TaxiFlyer`, by name."""

POLLING_OPTIONS = _table(PollingOptions)
"""Options of `PollingFlyer`, by name."""


class Options:
    """The options of one flight, checked; those that are not given have their defaults.

    A flight keeps them from its kickoff to its last page.

    Raises
    ------
    ValueError
        For an option that no flight can be flown with; it names the option.
    """

    def __init__(self, **given: Unpack[FlyerOptions]) -> None:
        self.__dict__ = {name: plain(given.get(name, option.default)) for name, option in OPTIONS.items()}
        for name, option in OPTIONS.items():
            option.check(self.__dict__[name])

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def numpydoc(options: Iterable[Option]) -> str:
    """Their part of a docstring's section of parameters, at its depth in a class."""
    return "\n".join(
        f"    {option.name} : {option.type_in_words}\n{textwrap.indent(option.meaning, ' ' * 8)}" for option in options
    )


def signature(function: Callable[..., Any], options: Iterable[Option]) -> inspect.Signature:
    """The function's signature with these options by name, ahead of its other keywords."""
    parameters = inspect.signature(function).parameters.values()
    named = [_evaluated(function, one) for one in parameters if one.kind is not inspect.Parameter.VAR_KEYWORD]
    known = {parameter.name for parameter in named}
    by_keyword = [
        inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=option.type)
        for option in options
        if option.name not in known
    ]
    others = inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD, annotation=Any)
    return inspect.Signature([*named, *by_keyword, others])


def _evaluated(function: Any, parameter: inspect.Parameter) -> inspect.Parameter:
    """Its annotation is no text: loaders read it."""
    if not isinstance(parameter.annotation, str):
        return parameter
    return parameter.replace(annotation=eval(parameter.annotation, function.__globals__))
