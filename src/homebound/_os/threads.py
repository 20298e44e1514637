"""A thread whose end is noticed, whatever ends it and wherever.

`Thread.start` returns once the new thread has recorded itself. That, and more, the thread does
before it calls its target: it installs the hooks of tracers and profilers, and calls `run`, which
another library may have replaced. An exception there (MemoryError, a hook's) ends the thread; a
caller that waits for what the target was to do would wait forever. If it comes before the thread is
recorded, as one that is thrown into the new thread does (`PyThreadState_SetAsyncExc`), even `start`
would. And a storm of them strikes again whatever Python code the thread runs to tell of its end.

So the interpreter tells of it, in C: see fuse.py.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

from .fuse import (
    is_registry_locked_here,
    leave_registry,
    tell_until_heard,
    unlock_registry,
    with_fuse,
)
from .once import Once

if TYPE_CHECKING:
    from collections.abc import Callable


class _Start(Once):
    """In the place of a thread's Event: set once the thread has recorded itself, or has ended."""

    recorded = False  # written by the thread

    def is_set(self) -> bool:
        return self.recorded or super().is_set()

    def set(self) -> None:
        self.recorded = True
        super().set()  # if it is struck before this, the thread ends

    def _at_fork_reinit(self) -> None:
        """Do nothing: a forked process goes on with the thread that forked, which is recorded."""


class NoticedThread(threading.Thread):
    """A daemon thread that tells of its end: `ended(thread)`, whether or not it called `target`.

    That is called in the thread's last step. If it raises, it is called again, by another thread.
    """

    _started: Any  # of threading's; as are the other private names here, which tests pin

    def __init__(
        self, target: Callable[[], object], ended: Callable[[Any], object], name: str
    ) -> None:
        super().__init__(target=target, name=name, daemon=True)
        # One entry, made by the first of: the thread, as it begins to run, or has ended before that
        # (True); `call_off` (False).
        self._runs: dict[str, bool] = {}
        self._ended: Callable[[Any], object] | None = ended  # until it has returned
        self._started = _Start()

    def start(self) -> None:
        """Start it, as threading does; an exception here leaves threading's registry unlocked."""
        locked = is_registry_locked_here()
        tell = tell_until_heard(self._tell, partial(getattr, self, "_ended"))
        at_end = (self._started.news.put, unlock_registry(), leave_registry(), tell)
        try:
            # What threading has the new thread call.
            self._bootstrap: Any = with_fuse(super()._bootstrap, at_end)  # type: ignore[misc]
            super().start()
        except BaseException as error:
            if not locked:
                unlock_registry()(error)
            raise
        finally:
            vars(self).pop("_bootstrap", None)  # it refers to the thread: a cycle otherwise

    def call_off(self) -> bool:
        """Have a thread whose start was cut short do nothing; False if it has begun, or ended.

        It then calls neither `target` nor `ended`. An exception may come out of `start` before it
        is known whether there is a thread.
        """
        return not self._runs.setdefault("", False)

    @property
    def called_off(self) -> bool:
        """Whether it has begun nothing, and will not."""
        return self._runs.get("") is False

    def run(self) -> None:
        """Do as threading's, unless it was called off."""
        if self._runs.setdefault("", True):
            super().run()

    def _bootstrap_inner(self) -> None:
        """Do as threading's, and tell of the end."""
        try:
            super()._bootstrap_inner()  # type: ignore[misc]
        finally:
            self._tell()

    def _tell(self, *_: object) -> None:
        """Call `ended`, unless that was done. Called from: the thread, or another after its end."""
        ended = self._ended
        if ended is None:
            return
        if not self._started.recorded:
            self._is_stopped = True  # to `join` and `is_alive`, before 3.13
        threading._limbo.pop(self, None)  # type: ignore[attr-defined]
        if self._runs.setdefault("", True):
            ended(self)
        self._ended = None  # it would be a reference cycle, too


def ended_early(thread: threading.Thread) -> RuntimeError:
    """Return the error of a wait for a thread that ended before it could report why."""
    return RuntimeError(f"thread {thread.name!r} has ended, with an exception of another's code")
