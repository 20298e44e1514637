"""Calls that a finaliser leaves to another moment, as its thread is in the middle of something.

A thread of its own makes such a call. If none can be started, the call is *owed*, and made by what
has most to lose without it: a waiter of the queue, or a task or thread that comes to wait in one.

    owe     append to `owed`, *then* look at the waiters: ask each of them
    a wait  append to the waiters, *then* look at `owed`: pay
"""

from __future__ import annotations

from _thread import start_new_thread
from collections import deque
from typing import TYPE_CHECKING, Any

from .._aio.tasks import running_loop
from .._os.process import AtFork, at_fork
from .._os.snapshot import snapshot
from .waiters import parked

if TYPE_CHECKING:
    from collections.abc import Callable

    from .waiters import Waiter

# Any thread appends and pops; the thread that pops one makes the call.
owed: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()


def _forget() -> None:
    parked.clear()
    owed.clear()


at_fork(AtFork.PARKED, _forget)


def owe(waiters: deque[Waiter], act: Callable[..., object], args: tuple[Any, ...]) -> None:
    """Have `act(*args)` called once this thread has gone on. Called from: any thread."""
    try:
        start_new_thread(act, args)
    except (RuntimeError, MemoryError):  # at the limit of threads, or as the interpreter ends
        owed.append((act, args))
        loop = running_loop()
        if loop is not None:  # it makes the call although no waiter may come
            loop.call_soon_threadsafe(pay)
        for waiter in snapshot(waiters):
            waiter.ask(pay)


def pay() -> None:
    """Make the calls that are owed now. Called from: any thread, outside of any guard."""
    for _ in range(len(owed)):
        try:
            act, args = owed.popleft()
        except IndexError:
            return  # another thread makes it
        act(*args)


def pay_and(joined: Callable[[], object] | None) -> None:
    """Pay, then call `joined`, for a waiter that has joined its queue. Called from: any thread."""
    pay()
    if joined is not None:
        joined()
