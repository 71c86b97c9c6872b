"""What a subclass has kept of a polling flyer: it would take the place of ours, or nobody would ever call it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial, partialmethod
from types import CodeType, FunctionType
from typing import Any

NEVER_CALLED = ("my_activity", "wait_busy")
"""The tutorial's own methods, beside bluesky's verbs."""


def refuse_left_overs(cls: type, base: type) -> None:
    """Refuse what a subclass must not keep: a verb that does not hand on to `base`, and what nobody would call.

    It may emit pages of its own, and describe them.

    Raises
    ------
    TypeError
        It names all that is to be deleted.
    """
    own_pages = _replaces(cls, base, "collect_pages")
    replaced = [verb for verb in ("describe_collect", "kickoff", "complete") if _replaces(cls, base, verb)]
    if own_pages and "describe_collect" in replaced:
        replaced.remove("describe_collect")
    unused = [name for name in NEVER_CALLED if callable(getattr(cls, name, None))]
    if not own_pages and hasattr(cls, "collect"):
        unused.insert(0, "collect")
    if not (unused or replaced):
        return
    what = "be called" if unused else f"hand on to {base.__name__}'s"
    first, *others = [*unused[:1], *replaced, *unused[1:]]
    raise TypeError(
        f"{cls.__name__}.{first} would never {what}: delete it{', and ' * bool(others)}{', '.join(others)}"
        f"{' with it' * bool(others)}. {base.__name__} puts Busy, waits for Done and emits every Waveform component by "
        f"itself; a verb that does more has to call super(), as in super().kickoff()"
    )


def _replaces(cls: type, base: type, verb: str) -> bool:
    """Whether a class ahead of `base` has this verb, and does not hand on to the next one."""
    classes = cls.__mro__[: cls.__mro__.index(base) + 1]
    entries = [each.__dict__[verb] for each in classes if verb in each.__dict__]
    return not all(_hands_on(entry, verb, classes, entries[i + 1 :]) for i, entry in enumerate(entries[:-1]))


def _hands_on(entry: Any, verb: str, classes: tuple[type, ...], following: list[Any]) -> bool:
    """Whether the code that it runs names the verb, and ``super`` or one of the classes. Of other code nobody can tell.

    Looked through are what decorators wrap, and methods that it calls.
    """
    who = {"super", *(each.__name__ for each in classes)}
    waiting, seen = [entry], set[int]()
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if any(thing is other for other in following):
            return True
        if isinstance(thing, classmethod | staticmethod):
            waiting.append(thing.__func__)
        elif isinstance(thing, partial | partialmethod):
            waiting.append(thing.func)
        elif isinstance(thing, FunctionType):
            names, closed_over = set(_names(thing.__code__)), list(_closed_over(thing))
            by_other_names = [*map(thing.__globals__.get, names), *closed_over]
            if verb in names and (names & who or any(one is each for one in by_other_names for each in classes)):
                return True
            waiting += closed_over
            waiting += [each.__dict__[name] for each in classes[:-1] for name in names & each.__dict__.keys() - {verb}]
            waiting.append(getattr(thing, "__wrapped__", None))
        elif thing is entry:
            return True
    return False


def _closed_over(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # it is empty yet
            yield cell.cell_contents


def _names(code: CodeType) -> Iterator[str]:
    """All that it refers to by name, its inner functions included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, str):  # as for getattr
            yield constant
        elif isinstance(constant, CodeType):
            yield from _names(constant)
