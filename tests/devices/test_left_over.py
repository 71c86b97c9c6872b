"""Classes that were moved from a polling flyer: what they must not keep, and what they may."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
from ophyd import Component, Device, EpicsSignalRO
from ophyd.status import DeviceStatus

import busy_callback_flyer
from busy_callback_flyer import BusyFlyer, PollingFlyer, TaxiFlyer

from .. import tutorial_flyer

BASES = [BusyFlyer, TaxiFlyer, PollingFlyer]


def method(self: Any, *args: Any) -> Any:
    """As a polling flyer has it: it does the whole work itself."""
    self._completion_status = DeviceStatus(self)
    return self._completion_status


def message(base: type, **attributes: Any) -> str:
    with pytest.raises(TypeError) as error:
        type("MyFlyer", (base,), attributes)
    return str(error.value)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("verb", ["kickoff", "complete", "describe_collect"])
def test_a_verb_that_replaces_ours_is_refused(base: type[BusyFlyer], verb: str) -> None:
    assert f"MyFlyer.{verb} would never hand on to BusyFlyer's: delete it. " in message(base, **{verb: method})


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("name", ["my_activity", "wait_busy", "collect"])
def test_what_nobody_would_call_is_refused(base: type[BusyFlyer], name: str) -> None:
    assert f"MyFlyer.{name} would never be called: delete it. " in message(base, **{name: method})


def test_all_that_is_to_be_deleted_is_named_at_once() -> None:
    methods = {name: entry for name, entry in vars(tutorial_flyer.MyFlyer).items() if callable(entry)}
    del methods["__init__"]
    assert message(BusyFlyer, **methods).startswith(
        "MyFlyer.collect would never be called: delete it, and describe_collect, kickoff, complete, my_activity, "
        "wait_busy with it."
    )


def test_a_mixin_that_brings_verbs_is_refused() -> None:
    class Polling:
        def kickoff(self) -> Any:
            return method(self)

    class Collects:
        def collect(self) -> Any: ...

    with pytest.raises(TypeError, match=r"Mixed\.kickoff would never hand on"):
        type("Mixed", (Polling, BusyFlyer), {})
    with pytest.raises(TypeError, match=r"Mixed\.collect would never be called"):
        type("Mixed", (TaxiFlyer, Collects), {})  # also behind ours, which has none
    type("Mixed", (BusyFlyer, Polling), {})  # it stands behind ours, and is never reached


def test_a_verb_below_one_that_hands_on_is_refused() -> None:
    class Polling:
        kickoff = method

    def handing_on(self: Any) -> Any:
        return super(Polling, self).kickoff()

    with pytest.raises(TypeError, match=r"Mixed\.kickoff"):
        type("Mixed", (Polling, BusyFlyer), {"kickoff": handing_on})


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    return functools.wraps(function)(lambda *args: function(*args))


def test_a_wrapped_verb_is_looked_into() -> None:
    for wrap in (logged, wrapped, lambda function: functools.partialmethod(function, 1)):
        assert "MyFlyer.kickoff would never hand on" in message(BusyFlyer, kickoff=wrap(method))


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("wrap", [lambda function: function, logged, wrapped])
def test_a_verb_that_calls_super_is_fine(base: Any, wrap: Callable[..., Any]) -> None:
    class Fine(base):
        @wrap
        def kickoff(self) -> Any:
            return super().kickoff()

        @wrap
        def complete(self) -> Any:
            def inner() -> Any:
                return base.complete(self)

            return inner()

        @wrap
        def describe_collect(self) -> Any:
            return getattr(super(), "describe_collect")()  # noqa: B009

    class ByItsClass(base):
        def kickoff(self) -> Any:
            return busy_callback_flyer.BusyFlyer.kickoff(self)

    class Finer(Fine, ByItsClass):
        def kickoff(self, *args: Any) -> Any:
            return self._prepared()

        def _prepared(self) -> Any:
            return super().kickoff()

    assert issubclass(Finer, base)


def test_verbs_that_are_ours_or_that_nobody_can_look_into_are_fine() -> None:
    class Opaque:
        def __call__(self) -> None: ...

    ours = BusyFlyer.kickoff
    for entry in (ours, logged(ours), functools.partialmethod(ours), Opaque()):
        type("MyFlyer", (BusyFlyer,), {"kickoff": entry})


def test_who_emits_pages_of_his_own_describes_them() -> None:
    def pages(self: Any) -> Any:
        yield {"data": {}, "timestamps": {}, "time": []}

    type("MyFlyer", (BusyFlyer,), {"collect_pages": pages, "describe_collect": method, "collect": method})
    assert "MyFlyer.kickoff" in message(BusyFlyer, collect_pages=pages, describe_collect=method, kickoff=method)


def test_other_names_are_nobodys_business() -> None:
    """What the tutorial's flyers keep beside their methods does no harm."""

    class MyFlyer(BusyFlyer):
        _completion_status = None
        wait_busy = Component(EpicsSignalRO, "position")

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__("prj:", parent=None, **kwargs)
            self._completion_status = None
            self.poll_sleep_interval_s = 0.05
            self.t0 = 0

        def my_plan(self) -> None: ...

    assert issubclass(MyFlyer, Device)
