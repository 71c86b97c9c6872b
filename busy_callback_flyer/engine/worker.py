"""A thread that may wait, for what would hold up the thread that brings the news."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


class Worker:
    """Does tasks one after another in a daemon thread, which starts with the first of them.

    A task that never ends does not keep the interpreter from exiting.

    Parameters
    ----------
    name : str
        Of the thread.
    first : callable, optional
        Called in the thread before the first task.
    """

    def __init__(self, name: str, first: Callable[[], None] | None = None) -> None:
        self._name = name
        self._first = first
        self._tasks: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._lock = threading.RLock()  # the garbage collector may ask for a task while the thread holds it
        self._thread: threading.Thread | None = None
        self._stopped = False

    @property
    def here(self) -> bool:
        """Whether the calling thread is the worker's."""
        return self._thread is not None and self._thread.ident == threading.get_ident()

    def do(self, task: Callable[[], object]) -> bool:
        """Do it soon, after what was asked for before; False where the worker was stopped, and it will not be done."""
        with self._lock:
            if self._stopped:
                return False
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._tasks.put(task)
        return True

    def ask(self, ask: Callable[[], _T], answer: Callable[[_T | str], None]) -> None:
        """Ask soon; `answer` gets the answer, or a sentence why there is none."""

        def task() -> None:
            try:
                reading: _T | str = ask()
            except Exception as error:  # each control layer has its own
                reading = str(error) or repr(error)
            answer(reading)

        if not self.do(task):
            answer("it was closed")

    def wait(self, timeout: float) -> None:
        """Wait until everything asked for is done, no longer than `timeout` seconds; not in the worker's own thread."""
        if self._thread is not None and not self.here:
            done = threading.Event()
            if self.do(done.set):
                done.wait(timeout)

    def stop(self, timeout: float) -> None:
        """Do what was asked for and no more; wait until the thread has ended, no longer than `timeout` seconds.

        A thread that used Channel Access must not end while the interpreter's exit shuts that down: it crashes.
        """
        with self._lock:
            self._stopped = True
            self._tasks.put(None)
        if self._thread is not None and not self.here:
            self._thread.join(timeout)

    def _run(self) -> None:
        task: Callable[[], object] | None = self._first
        while True:
            try:
                if task is not None:
                    task()
            except Exception:
                logger.exception("a task of %s failed", self._name)
            task = None  # it may hold the last reference to a flyer
            task = self._tasks.get()
            if task is None:
                return
