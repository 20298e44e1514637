"""A check that a block of code leaves nothing behind: no thread, descriptor, task or exception."""

from __future__ import annotations

import gc
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from .._core.big_lock import big_lock
from .._core.context import every_context
from .._core.left_over import every_task
from .._core.loop_context import LoopContext
from .._os.clock import monotonic
from .._os.parking import my_parker

if TYPE_CHECKING:
    from types import TracebackType

    from .._core.task import Task

_OPEN_FILES = Path("/proc/self/fd")
# libffi opens its own file at the first callback that ctypes makes in a process, and keeps it.
_LIBFFI = "/libffi.so."
_SECONDS_TO_END = 1.0  # for a thread whose work is done but which the interpreter has not left yet


class no_leaks:  # noqa: N801  (used as a function is: with no_leaks())
    """Raise AssertionError at the end of the `with` if something begun inside has not ended.

    It looks for running threads, open file descriptors, unfinished tasks, contexts whose loops were
    not closed, the big lock, and exceptions that could not be caught: in a thread, in a finaliser.
    An exception that leaves the `with` is raised as it is, with the leaks in its notes.

    >>> import homebound
    >>> from homebound.testing import no_leaks
    >>> with no_leaks(), homebound.IOThread() as io:
    ...     homebound.block_on(homebound.to_worker(int), io.context)
    0

    Called from: any thread.
    """

    # Descriptors that a library keeps for good, by number and what each is open on: no leaks.
    kept: ClassVar[dict[str, str]] = {}

    @staticmethod
    def open_files() -> dict[str, str]:
        """Descriptor number to what it is open on; empty where the system does not tell.

        What a library opens once and keeps, put it into `no_leaks.kept`.

        Called from: any thread.
        """
        files = {}
        for entry in _OPEN_FILES.iterdir() if _OPEN_FILES.exists() else ():
            try:
                files[entry.name] = str(entry.readlink())
            except FileNotFoundError:
                continue  # the descriptor that reads this very directory
        return files

    def __enter__(self) -> Self:
        my_parker()  # a thread's own descriptor, made at first use, lives as long as the thread
        self._unseen: list[str] = []
        self._first: BaseException | None = None  # of them: the cause that is shown
        self._hooks = sys.unraisablehook, threading.excepthook
        sys.unraisablehook, threading.excepthook = self._unraisable, self._uncaught
        self._contexts = set(every_context())
        self._tasks = _tasks()
        self._threads = set(threading.enumerate())
        self._files = self.open_files()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        threads = _still_running(set(threading.enumerate()) - self._threads)
        gc.collect()  # a finaliser runs where it belongs
        sys.unraisablehook, threading.excepthook = self._hooks
        left = {
            "threads left running": threads,
            "tasks left": list(_tasks() - self._tasks),
            "contexts left open": self._open_contexts(),
            "file descriptors left open": self._opened(),
            "the big lock is still held": _big_lock_held(),
            "exceptions never retrieved": self._unseen,
        }
        said = "; ".join(f"{what}: {which}" for what, which in left.items() if which)
        if said and error is not None:
            error.add_note(said)
        elif said:
            raise AssertionError(said) from self._first

    def _open_contexts(self) -> list[LoopContext]:
        new = set(every_context()) - self._contexts
        return [each for each in new if isinstance(each, LoopContext) and not each._closed]

    def _opened(self) -> dict[str, str]:
        """Look for a while: an ended thread drops its own objects a moment later."""
        deadline = monotonic() + _SECONDS_TO_END
        files = self._files | self.kept
        while True:
            now = self.open_files()
            opened = {
                fd: target
                for fd, target in now.items()
                if files.get(fd) != target and _LIBFFI not in target
            }
            if not opened or monotonic() > deadline:
                return opened
            time.sleep(0.001)

    # In place of Python's hooks, which would only print.

    def _unraisable(self, unraisable: Any) -> None:
        self._note(unraisable.exc_value, repr(unraisable.object))

    def _uncaught(self, args: Any) -> None:
        if args.exc_type is not SystemExit:
            self._note(args.exc_value, repr(args.thread))

    def _note(self, error: BaseException | None, where: str) -> None:
        self._unseen.append(f"{error!r} in {where}")
        self._first = self._first or error


def _tasks() -> set[Task[Any]]:
    return every_task()


def _big_lock_held() -> str:
    """Said, if this thread holds it without being a main loop's."""
    return repr(big_lock) if big_lock.held() else ""


def _still_running(threads: set[threading.Thread]) -> list[threading.Thread]:
    deadline = monotonic() + _SECONDS_TO_END
    for thread in threads:
        thread.join(max(0.0, deadline - monotonic()))
    return [thread for thread in threads if thread.is_alive()]
