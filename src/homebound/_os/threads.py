"""A thread whose end is noticed even if it ends before its own code has begun.

`Thread.start` returns once the new thread exists. Before that thread calls its target, threading
records it, installs the hooks of tracers and profilers, and calls `run`, which another library may
have replaced. An exception there (MemoryError, a hook's) ends the thread; a caller that waits for
what the target was to do would wait forever. If it comes before the thread is recorded, as one
that is thrown into the new thread does (`PyThreadState_SetAsyncExc`), even `start` would.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class NoticedThread(threading.Thread):
    """A daemon thread that calls `ended` in its last step, whether or not it called `target`."""

    def __init__(
        self, target: Callable[[], object], ended: Callable[[], object], name: str
    ) -> None:
        super().__init__(target=target, name=name, daemon=True)
        self._notice: Callable[[], object] | None = ended  # dropped by the thread, at its end
        # Emptied by the first of: the thread, as it begins to run, or ends before that; `call_off`.
        self._claim = [None]
        self._runs = False  # the thread was first

    def call_off(self) -> bool:
        """Have a thread whose start was cut short do nothing; False if it has begun, or ended.

        It then calls neither `target` nor `ended`. An exception may come out of `start` before it
        is known whether there is a thread.
        """
        try:
            del self._claim[0]
        except IndexError:
            return False
        return True

    def run(self) -> None:
        """Do as threading's, unless it was called off."""
        try:
            del self._claim[0]  # no call, after which an exception could come
            self._runs = True
        except IndexError:
            return
        super().run()

    def _bootstrap_inner(self) -> None:
        """Do as threading's, and call `ended`."""
        try:
            super()._bootstrap_inner()  # type: ignore[misc]  # private; tests pin that it is called
        finally:
            if not self._started.is_set():  # type: ignore[attr-defined]
                self._is_stopped = True  # to `join` and `is_alive`, before 3.13
                self._started.set()  # type: ignore[attr-defined]  # `start` waits for it
            ended, self._notice = self._notice, None  # it would be a reference cycle
            if ended is not None and (self._runs or self.call_off()):
                ended()


def ended_early(thread: threading.Thread) -> RuntimeError:
    """Return the error of a wait for a thread that ended before it could report why."""
    return RuntimeError(f"thread {thread.name!r} has ended, with an exception of another's code")
