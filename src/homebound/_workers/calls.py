"""A blocking call in a worker whose end is passed on by a callback: a job without a future.

For a caller that has many calls and no task that waits for one: a future costs its lock, its
condition and its callbacks at every call, more than the hand-over to the worker does.
"""

from __future__ import annotations

import _thread
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from .pool import WorkerPool

T = TypeVar("T")


class Call(Generic[T]):
    """A blocking call, in a copy of the maker's contextvars.

    At its end, made or not, `last` is called once, and then `tell(call)`: in a worker, or in the
    thread that withdraws the call or shuts the pool down. `tell` is called again if it raises.
    """

    __slots__ = ("_fn", "_last", "_tell", "_vars", "done", "dropped", "error", "result", "worker")

    def __init__(
        self,
        fn: Callable[[], T],
        *,
        last: Callable[[], object],
        tell: Callable[[Call[T]], object],
    ) -> None:
        self._fn = fn
        self._vars: Context = copy_context()
        self._last = [last]  # taken by the thread that calls it: a list's pop is atomic
        self._tell = tell
        # The outcome: written by the worker, or by the thread that drops it, before it is `done`.
        self.result: T | None = None
        self.error: BaseException | None = None
        self.dropped = False  # it was not made
        self.done = False
        self.worker: int | None = None  # the ident of the thread that makes it

    def begin(self, pool: WorkerPool) -> None:
        """Queue it. Raises RuntimeError if no worker will take it: then nothing is told.

        Called from: any thread.
        """
        pool._put(self)

    def withdraw(self, pool: WorkerPool) -> None:
        """Drop it, unless a worker has it. Called from: any thread."""
        if pool._take_out(self):
            self.drop()

    def work(self) -> None:
        """Make it. Called from: a worker."""
        self.worker = _thread.get_ident()
        try:
            self.result = self._vars.run(self._fn)
        except BaseException as error:  # noqa: BLE001  (the caller gets it)
            self.error = error
        self._end()
        del self  # a cycle otherwise: the error's traceback refers to this frame

    def drop(self) -> None:
        """End it without having made it, as the pool shuts down."""
        self.dropped = True
        self._end()

    def fail(self, error: BaseException) -> None:
        """End it with an error, as the worker is gone; if it is done, only tell again."""
        if not self.done:
            self.error = error
        self._end()

    def _end(self) -> None:
        self.done = True
        try:
            last = self._last.pop()
        except IndexError:
            pass  # it has been called
        else:
            last()
        self._tell(self)
