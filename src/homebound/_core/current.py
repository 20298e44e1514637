"""Which context is current in a thread? The rule everything rests on, and the state it reads.

1. The context this thread is the home of, if it is one.
2. Otherwise the main context, if this thread holds the big lock; but not if the main loop is
   somebody else's (Qt's, uvloop's): that runs on in its own thread whoever holds the lock, and two
   threads would be at home in one context.
3. Otherwise none. Never "main by default": a thread for which this holds must not run a task.

The answer belongs to the thread: never keep it across an await, a task may resume elsewhere.
"""

from __future__ import annotations

import sys
import threading
from _thread import get_ident
from typing import TYPE_CHECKING

from .._os.process import AtFork, at_fork

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._os.parking import Parker
    from .context import AioContext


class _Ending:
    """Goes with its thread, and in it: that drops what it had for itself as it ends."""

    __slots__ = ("_ident", "_thread")

    # Kept here: an interpreter that ends empties the modules, and this may go after that.
    _get_ident = staticmethod(get_ident)
    _interpreter_ends = staticmethod(sys.is_finalizing)

    def __init__(self) -> None:
        self._ident = ident = get_ident()
        # Noted now: a thread that ends is no longer listed. None for one that threading never knew.
        self._thread = next((each for each in threading.enumerate() if each.ident == ident), None)

    def __del__(self) -> None:
        # A forked process drops what threads of its parent had; an interpreter that ends, all.
        if not self._interpreter_ends() and self._get_ident() == self._ident:
            ask.thread_ends(self._ident, self._thread)


class Seat:
    """A thread's place in the queue for the big lock; the queue's head holds the lock.

    Fields are written by the thread itself, before it queues or while it waits; any thread reads.
    """

    __slots__ = ("ident", "parker", "timed", "turns")

    def __init__(self) -> None:
        self.ident = get_ident()
        # Where it sleeps when it has to wait; made for its first wait.
        self.parker: Parker | None = None
        self.timed = True  # it leaves the queue by itself; False only in a wait without a timeout
        self.turns = 0  # how often it has queued: tells one acquire from the next


class _Here(threading.local):
    """What this thread is. Each field is written and read by its own thread only."""

    def __init__(self) -> None:
        self._ending = _Ending()
        # One for each thread, so that taking the lock is one append to the queue.
        self.seat = Seat()

    # The context this thread is the home of. Written by `set_home`, from its start to its end.
    home: AioContext | None = None
    # True between big_lock.acquire and big_lock.release: what the queue says, kept because it is
    # asked often. Written by the lock (big_lock.py) alone.
    has_big_lock: bool = False
    # The rule's answer, kept because it is asked at each wake-up. It can change in no other way:
    # who is main changes only under the big lock.
    context: AioContext | None = None


class _Main:
    """The one main context of the process."""

    # Written by the thread that becomes (or ceases to be) its home, while it holds the big lock;
    # None when no main loop runs. Readers without the big lock may see either side of a change.
    # A loop of somebody else's may have stopped without our being told: ask `main_context`.
    context: AioContext | None = None
    # Whom a holder of the big lock stands in for: the main context, or None if its loop is somebody
    # else's. Written with `context`.
    stood_in_for: AioContext | None = None


class _Ask:
    """What is known one layer up, of the big lock and of loops of others."""

    # Given what is current in this thread by its fields, None or a context of somebody else's
    # loop: what is current. Set where such loops are known (loop_end.py), before there is one.
    resident: Callable[[AioContext | None], AioContext | None]
    # Whether somebody else's loop has stopped. Likewise.
    stopped: Callable[[AioContext], bool]
    # A thread ends, and must leave nothing locked; called in it, by ident and what threading has of
    # it. Thread-local fields are gone by then, `here` among them. Set with the lock (big_lock.py).
    thread_ends: Callable[[int, threading.Thread | None], None]


here = _Here()
main = _Main()
ask = _Ask()


def _apply_rule() -> None:
    if here.home is not None:
        here.context = here.home
    elif here.has_big_lock:
        here.context = main.stood_in_for
    else:
        here.context = None


def set_home(context: AioContext | None) -> None:
    """This thread is the home of `context` from now on (None: of none any more).

    If it holds the big lock it stands in for the main context before and afterwards, but not while
    it is at home elsewhere: the lock may be let go, and be others', in that time.
    """
    if here.home is None and here.context is not None:
        here.context._stand_in.ends()
    here.home = context
    _apply_rule()
    if context is None and here.context is not None:
        here.context._stand_in.begins()


def set_main(context: AioContext | None) -> None:
    """`context` is the main one from now on; the caller holds the big lock."""
    main.context = context
    main.stood_in_for = None if context is None or context._is_guest else context
    _apply_rule()


def _begin_as_child() -> None:
    """A forked process has the memory of its parent's loops, but runs none of them."""
    here.home = here.context = main.context = main.stood_in_for = None
    here.has_big_lock = False
    here.seat = Seat()


at_fork(AtFork.CURRENT, _begin_as_child)


def current_context() -> AioContext | None:
    """The context whose tasks this thread may run now, or None.

    The context this thread is the home of; else the main context if this thread holds the big
    lock and the main loop is homebound's; else None.

    >>> import homebound
    >>> print(homebound.current_context())
    None

    Called from: any thread.
    """
    context = here.context
    if context is None or context._is_guest:
        return ask.resident(context)
    return context


def main_context() -> AioContext | None:
    """The context of the main loop, or None when no main loop runs.

    That is the loop of `homebound.run`, or else the one that the process's main thread runs:
    homebound's, or somebody else's (Qt's, uvloop's, asyncio's) that `AioContext.attach` knows.

    >>> import homebound
    >>> async def main():
    ...     return homebound.main_context() is homebound.current_context()
    >>> homebound.run(main())
    True

    Called from: any thread.
    """
    context = main.context
    if context is not None and context._is_guest and ask.stopped(context):
        return None
    return context
