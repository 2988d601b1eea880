"""Work in another thread, so that an exception in the waiting one does not tear it.

``concurrent.futures`` would not do: Ctrl-C may come while the waiting thread holds the
lock of a future, or before a new thread is noted, for which the interpreter would wait at
its end for ever; and an item that could not get a thread stays in the queue.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any


class Pool:
    """Up to ``most`` threads that make calls, and do not keep the interpreter alive."""

    def __init__(self, most: int, name: str):
        self._most, self._name = most, name
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def submit(self, call: Callable[[], None]) -> None:
        """Have it called soon; RuntimeError if a thread is missing and cannot start."""
        self._calls.put(call)
        if len(self._threads) < self._most:
            thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def _serve(self) -> None:
        while True:
            self._calls.get()()


class Aside:
    """A call that another thread makes, once.

    Parameters
    ----------
    work : callable
    *args
        Its arguments.

    Attributes
    ----------
    finished : bool
        Whether it has been made and is over.
    """

    def __init__(self, work: Callable[..., Any], *args: Any):
        self._work, self._args = work, args
        self._taker: dict[str, str] = {}  # the first decides whether the call is made
        self._over = threading.Lock()
        self._over.acquire()
        self._result: Any = None
        self._error: BaseException | None = None
        self.finished = False

    def start(self, pool: Pool) -> bool:
        """Have it called by a thread of a pool; whether there is one."""
        try:
            pool.submit(self._run)
        except RuntimeError:  # no more threads, or the interpreter is ending
            return not self.withdraw()
        return True

    def _run(self) -> None:
        if not self._take("its thread"):
            return
        try:
            self._result = self._work(*self._args)
        except BaseException as error:
            self._error = error
        self.finished = True
        self._over.release()

    def withdraw(self) -> bool:
        """Whether nobody has begun, and so nobody will; however often it is asked."""
        return self._take("nobody")

    def _take(self, taker: str) -> bool:
        # one step: an exception cannot come between asking and taking
        return self._taker.setdefault("is", taker) == taker

    def wait(self) -> None:
        """Until it is over; an exception may come meanwhile and changes nothing."""
        while not self.finished:
            # on some systems signals are noticed between two waits only
            self._over.acquire(timeout=0.1)

    def outcome(self) -> Any:
        """What the call has returned, or raise what it has raised."""
        self.wait()
        if self._error is not None:
            raise self._error
        return self._result
