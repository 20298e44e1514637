"""A wait for another thread: a home keeps its loop running, and the big lock is released.

A thread sleeps on its parker, not on a threading.Condition; see _os/parking.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core.big_lock import big_lock, big_lock_released
from .._core.current import current_context, here, main
from .._errors import ContextClosed
from .._os.clock import Deadline
from .._os.parking import my_parker
from .wait_while import Waiting, place_to_wait, turn_while

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._core.context import AioContext
    from .._os.parking import Parker


Reason = tuple[str, object]  # the call that waits and what it waits for, shown by dump()


class Watchers:
    """The waiters for a change. They enter, then look; the changer changes, then calls `tell`."""

    __slots__ = ("_wakes",)

    def __init__(self) -> None:
        self._wakes: list[Callable[[], object]] = []  # each operation is atomic on every build

    def enter(self, wake: Callable[[], object]) -> None:
        """Have `wake` called at each change from now on. Called from: any thread."""
        self._wakes.append(wake)

    def leave(self, wake: Callable[[], object]) -> None:
        """Undo `enter`; a late call may still come. Called from: any thread."""
        self._wakes.remove(wake)

    def tell(self) -> None:
        """Wake all waiters, then raise what one raised. Called from: any thread, with no guard."""
        failure: BaseException | None = None
        for wake in tuple(self._wakes):
            try:
                wake()
            except BaseException as error:  # noqa: BLE001  (the others wait as well)
                failure = error
        if failure is not None:
            raise failure


def check_may_wait(what: str) -> None:
    """Raise if the caller cannot wait, as on a foreign loop, before anything has changed."""
    context = current_context()
    if context is not None:
        place_to_wait(what, context)


def wait_until(
    what: Reason, done: Callable[[], object], *watched: Watchers, timeout: float | None = None
) -> None:
    """Sleep, or run the loop, until `done()`; `watched` are notified of its changes.

    Raises TimeoutError. Called from: any thread, holding no guard.
    """
    deadline = Deadline(timeout)
    while not done():
        context = current_context()
        try:
            _wait_in(context, what, done, *watched, timeout=deadline.timeout())
        except ContextClosed:
            if current_context() is context:
                raise
            # This thread stood in for a main loop, which has ended; `done` is still to come.


def _wait_in(
    context: AioContext | None,
    what: Reason,
    done: Callable[[], object],
    *watched: Watchers,
    timeout: float | None,
) -> None:
    parker = my_parker()
    wake: Callable[[], object] = parker.unpark if context is None else context.notify
    for each in watched:
        each.enter(wake)
    try:
        if context is None or context is not main.context:
            with big_lock_released():
                if context is None:
                    _sleep_until(what, done, timeout, parker)
                else:
                    turn_while(what, lambda: not done(), context, timeout)
        else:
            turn_while(what, _MainWait(done), None, timeout)
    finally:
        for each in watched:
            each.leave(wake)


def _sleep_until(
    what: Reason, done: Callable[[], object], timeout: float | None, parker: Parker
) -> None:
    deadline = Deadline(timeout)
    with Waiting(*what, timed=timeout is not None):
        while True:  # not `while not done()`: the jump rule
            if done():
                break
            if deadline.over():
                raise TimeoutError
            deadline.park(parker)


class _MainWait:
    """The predicate of a wait in the main context, true while the wait must go on.

    In each iteration the home gives way to the waiters for the big lock, but a stand-in does not:
    in a busy loop, a vCPU that needs the lock to make `done` true would never get it.
    """

    def __init__(self, done: Callable[[], object]) -> None:
        self._done = done
        self._nested = False  # turn_while looks once before it turns the loop

    def __call__(self) -> bool:
        if self._nested and here.seat.home is None and len(big_lock._queue) > 1:
            with big_lock_released():
                pass  # before the look: a notification meanwhile finds no thread asleep
        self._nested = True
        return not self._done()
