"""Parkers, on which a thread sleeps until another wakes it: a kernel counter, not a lock.

On a free-threaded build a thread that waits for a `threading.Lock` or a `SimpleQueue` is woken
after 50-117 µs, one that reads an eventfd after 7 µs; with the GIL it is 13 against 6 µs.

A process at its limit of descriptors cannot have another counter. The standard library's locks and
pools need none and keep working, so there a thread sleeps on a lock after all.
"""

from __future__ import annotations

import math
import os
import select
import selectors
import threading
from _thread import allocate_lock
from functools import partial
from typing import TYPE_CHECKING, Any

from .first_look import FirstLook
from .process import AtFork, at_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_EVENTFD = hasattr(os, "eventfd")

# Setting a signal is one C call, `write_signal(signal.written_fd, SET)`. A caller on a hot path, or
# one that a signal handler must not interrupt half-way, makes it inline.
write_signal: Callable[[int, Any], object]
SET: object
_HEED = 0.1  # seconds: the longest sleep of the main thread, which then looks for Unix signals
# Seconds: the longest sleep of any thread. poll takes milliseconds in an int, 24.8 days of them.
_LONGEST = 24 * 3600.0
_AT_LIMIT = 0.01  # seconds between two looks at a descriptor, where a wait cannot include it
_MOST = 4096  # bytes taken from a pipe at a time
if _EVENTFD:
    write_signal, SET = os.eventfd_write, 1
else:
    write_signal, SET = os.write, b"\0"


class Signal:
    """A kernel object that remembers being set: an eventfd, or a pipe where there is none.

    The descriptor is closed when the last reference to the object goes, never earlier. A thread
    about to write holds a reference, so it cannot write to a descriptor number that was reused.
    """

    __slots__ = ("fd", "written_fd")

    def __init__(self) -> None:
        if _EVENTFD:
            self.fd = self.written_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        else:
            self.fd, self.written_fd = os.pipe()
            os.set_blocking(self.fd, False)
            os.set_blocking(self.written_fd, False)

    def set(self) -> None:
        """Wake the thread that sleeps on it, or the next one to try. Called from: any thread."""
        try:
            write_signal(self.written_fd, SET)
        except BlockingIOError:
            pass  # it is full, so it is set

    def clear(self) -> None:
        """Forget what was set so far."""
        try:
            while len(os.read(self.fd, _MOST)) == _MOST:
                pass
        except BlockingIOError:
            pass

    def __del__(self) -> None:
        try:
            os.close(self.fd)
            if self.written_fd != self.fd:
                os.close(self.written_fd)
        except (AttributeError, OSError):
            pass  # __init__ failed: out of descriptors


class Parker(Signal):
    """The place where one thread sleeps. An `unpark` before `park` is remembered.

    Wakes may be spurious: every user looks at its own condition again, so one parker serves all the
    waits of its thread. Raises OSError if the process is at its limit of descriptors; `new_parker`
    does not.
    """

    __slots__ = ("_asleep", "_poll", "wake")

    # `unpark` in one C call, for a caller that has no stack left for more. Raises BlockingIOError
    # or RuntimeError if the parker is unparked already.
    wake: Callable[[], object]

    def __init__(self) -> None:
        super().__init__()
        self.wake = partial(write_signal, self.written_fd, SET)
        self._asleep = False  # in a call of `_poll`; written by the thread it belongs to
        self._poll = self._new_poll()

    unpark = Signal.set

    def park(self, timeout: float | None = None, *, also: int | None = None) -> bool:
        """Sleep until unparked, at most `timeout` seconds, or until descriptor `also` is readable.

        True if unparked; False may come early. Called from: the thread it belongs to.
        """
        unparked = self.sleep(timeout, also=also)
        if unparked:
            self.clear()
        return unparked

    def sleep(self, timeout: float | None, *, also: int | None = None) -> bool:
        """Sleep as `park` does, but leave the parker set if it was unparked."""
        timeout = _capped(timeout)
        milliseconds = None if timeout is None else timeout * 1000
        if also is None and not self._asleep:
            self._asleep = True
            try:
                return bool(self._poll.poll(milliseconds))
            finally:
                self._asleep = False
        # With another descriptor; or in a signal handler that waits while its thread is in `_poll`.
        poll = self._new_poll()
        if also is not None:
            poll.register(also, select.POLLIN)
        # No generator here: an interrupt that arrives while one is closed would be lost.
        return self.fd in dict(poll.poll(milliseconds))

    def is_set(self) -> bool:
        """Return whether it was unparked and not parked since. Called from: any thread."""
        return bool(self._new_poll().poll(0))

    def _new_poll(self) -> select.poll:
        """Return another poll object, as each serves one call at a time."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        return poll


class LockParker(Parker):
    """A parker that needs no descriptor, and so cannot wait for one either.

    Its lock is free while the parker is set. With `also` it sleeps only for a moment: a caller that
    waits for a descriptor looks at it again when `park` returns.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._lock.acquire()
        self.wake = self._lock.release

    def unpark(self) -> None:
        """Wake the thread that sleeps on it, or the next to try. Called from: any thread."""
        try:
            self._lock.release()
        except RuntimeError:
            pass  # the lock is free, so the parker is set

    set = unpark

    def clear(self) -> None:
        """Forget what was set so far."""
        self._lock.acquire(blocking=False)

    def sleep(self, timeout: float | None, *, also: int | None = None) -> bool:
        """Sleep as `park` does, but leave the parker set if it was unparked."""
        timeout = _capped(timeout)
        if also is not None:
            timeout = _AT_LIMIT if timeout is None else min(timeout, _AT_LIMIT)
        unparked = self._lock.acquire(timeout=-1 if timeout is None else timeout)
        if unparked:
            self.set()
        return unparked

    def is_set(self) -> bool:
        """Return whether it was unparked and not parked since. Called from: any thread."""
        return not self._lock.locked()


def _capped(timeout: float | None) -> float | None:
    """Return how much of `timeout` the calling thread may sleep at a time."""
    if threading.current_thread() is threading.main_thread():
        # A signal just before the system call does not interrupt it: look now and then.
        return _HEED if timeout is None else min(max(0.0, timeout), _HEED)
    return None if timeout is None else min(max(0.0, timeout), _LONGEST)


def new_parker() -> Parker:
    """Return a new parker, whether or not a descriptor is left. Called from: any thread."""
    try:
        return Parker()
    except OSError:
        return LockParker()


def wait_for_any(timeout: float | None, keys: Iterable[selectors.SelectorKey]) -> bool:
    """Sleep until a descriptor of a selector is ready; other threads may use the selector.

    True if one is ready.

    Called from: any thread.
    """
    poll = select.poll()
    for key in keys:
        reads = select.POLLIN if key.events & selectors.EVENT_READ else 0
        poll.register(key.fd, reads | (select.POLLOUT if key.events & selectors.EVENT_WRITE else 0))
    return bool(poll.poll(None if timeout is None else math.ceil(timeout * 1000)))


class _Mine(threading.local):
    parker = FirstLook(new_parker)


_mine = _Mine()
# A forked process must not sleep on its parent's counter, or take a wake meant for it.
at_fork(AtFork.PARKERS, lambda: vars(_mine).clear())


def my_parker() -> Parker:
    """Return the calling thread's own parker. Called from: any thread.

    A parker made at the limit of descriptors is replaced as soon as there are some again. Call this
    once for each wait: the waker has to unpark the very parker that the wait sleeps on.
    """
    parker = _mine.parker
    if type(parker) is LockParker:
        parker = vars(_mine)["parker"] = new_parker()
    return parker
