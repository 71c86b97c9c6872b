"""A Channel Access client in a process of its own.

libca reads its environment once in a process, so a test that brings its own IOC
needs its own client process too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

PATIENCE = 60.0  # seconds for anything that has to come


class Client:
    """What the tests ask of Channel Access; lives in the client process."""

    def __init__(self) -> None:
        import epics

        self.ca = epics.ca
        self._changed = threading.Condition()
        self._connected: dict[str, bool] = {}
        self._returned: dict[str, bool] = {}
        self._events: dict[str, list[int]] = {}
        self._stamps: dict[str, float] = {}
        self._subscriptions: list[Any] = []

    def _wait(self, condition: Callable[[], bool], awaited: str) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, PATIENCE), f"no {awaited} in {PATIENCE} s"

    # -- connection

    def _on_connection(self, pvname: str, conn: bool, **_: Any) -> None:
        with self._changed:
            self._connected[pvname] = conn
            self._changed.notify_all()

    def wait_for_connection(self, name: str, connected: bool = True) -> None:
        self._connected.setdefault(name, False)
        self.ca.create_channel(name, connect=False, callback=self._on_connection)
        self.ca.flush_io()
        self._wait(lambda: self._connected[name] is connected, f"connection of {name}")

    def _channel(self, name: str) -> Any:
        self.wait_for_connection(name)
        return self.ca.create_channel(name, connect=False, callback=self._on_connection)

    # -- get and put

    def get(self, name: str) -> Any:
        return self.ca.get(self._channel(name), timeout=PATIENCE)

    def get_array(self, name: str) -> list[float]:
        return list(self.ca.get(self._channel(name), timeout=PATIENCE, as_numpy=False))

    def get_text(self, name: str) -> Any:
        return self.ca.get(self._channel(name), timeout=PATIENCE, as_string=True)

    def choices(self, name: str) -> tuple[str, ...]:
        return tuple(self.ca.get_enum_strings(self._channel(name)))

    def state(self, name: str) -> tuple[int, int, float]:
        """Value, severity and stamp."""
        channel = self._channel(name)
        answer = self.ca.get_with_metadata(channel, ftype=self.ca.promote_type(channel, use_time=True))
        return answer["value"], answer["severity"], answer["timestamp"]

    def put(self, name: str, value: Any) -> None:
        self.ca.put(self._channel(name), value)
        self.ca.flush_io()

    def put_and_wait(self, name: str, value: Any) -> None:
        self.put_callback(name, value)
        self.wait_until_returned(name)

    def put_callback(self, name: str, value: Any) -> None:
        def on_return(**_: Any) -> None:
            with self._changed:
                self._returned[name] = True
                self._changed.notify_all()

        self._returned[name] = False
        self.ca.put(self._channel(name), value, callback=on_return)
        self.ca.flush_io()

    def wait_until_returned(self, name: str) -> None:
        self._wait(lambda: self._returned[name], f"end of the put-callback to {name}")

    def returned(self, name: str) -> bool:
        """Whether the last put-callback came back, asked when another one, sent now, has."""
        self.put_and_wait(f"{fence_of(name)}.PROC", 1)
        return self._returned[name]

    # -- events

    def watch(self, name: str) -> None:
        """Record the values of the events of VAL from now on."""
        self.events(name)
        self._events[name].clear()

    def events(self, name: str) -> list[int]:
        """Those since `watch`, once all that were posted have come."""
        self._subscribe(name)
        fence = fence_of(name)
        self._subscribe(fence)
        expected = self._events[fence][-1] + 1
        self.put(fence, expected)
        self._wait(lambda: self._events[fence][-1] == expected, f"event of {fence}")
        return self._events[name]

    def stamp_of_event(self, name: str) -> float:
        """Of the latest, once all that were posted have come."""
        self.events(name)
        return self._stamps[name]

    def wait_for_events(self, name: str, values: list[int]) -> None:
        self._wait(lambda: self._events[name] == values, f"events {values} of {name}, but {self._events[name]}")

    def _subscribe(self, name: str) -> None:
        if name in self._events:
            return
        events = self._events[name] = []

        def on_event(value: int = 0, timestamp: float = 0.0, **_: Any) -> None:
            with self._changed:
                events.append(value)
                self._stamps[name] = timestamp
                self._changed.notify_all()

        mask = self.ca.dbr.DBE_VALUE | self.ca.dbr.DBE_ALARM
        self._subscriptions.append(
            self.ca.create_subscription(self._channel(name), use_time=True, callback=on_event, mask=mask)
        )
        self.ca.flush_io()
        self._wait(lambda: bool(events), f"first event of {name}")


def fence_of(name: str) -> str:
    """The record whose replies and events come after those of all others that were asked for before."""
    return name.rpartition(":")[0] + ":fence"


_client: Client | None = None


def _begin(environment: Mapping[str, str]) -> None:
    global _client
    os.environ.update(environment)
    _client = Client()


def _call(method: str, arguments: tuple[Any, ...]) -> Any:
    return getattr(_client, method)(*arguments)


class RemoteClient:
    """A `Client` in another process: calls its methods there."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._pool = ProcessPoolExecutor(
            1, mp_context=get_context("spawn"), initializer=_begin, initargs=(dict(environment),)
        )

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            return self._pool.submit(_call, method, arguments).result(2 * PATIENCE)

        return call

    def close(self) -> None:
        self._pool.shutdown()


def run_python(
    code: str, *arguments: str, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a little program to its end."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
