"""A listener that keeps what it hears."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from busy_callback_flyer.engine.ports import Reading

TIMEOUT = 20.0


class Listener:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard: queue.Queue[tuple[str, Any]] = queue.Queue()

    def connected(self, reading: Reading) -> None:
        self.heard.put(("connected", reading))

    def connection_lost(self) -> None:
        self.heard.put(("lost", None))

    def record_says(self, reading: Reading) -> None:
        self.heard.put(("says", reading))

    def record_read(self, reading: Reading) -> None:
        self.heard.put(("read", reading))

    def unusable(self, problem: str) -> None:
        self.heard.put(("unusable", problem))

    def next(self) -> tuple[str, Any]:
        return self.heard.get(timeout=TIMEOUT)


def never_mind(problem: str | None) -> None:
    """Take it as it comes whether a put was taken."""


def in_thread(action: Callable[[], None]) -> None:
    """Run in a thread that Channel Access does not know."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    assert errors == []
