"""The current context of a thread: the rule that everything rests on, and the state it reads.

1. The context whose home this thread is, if it is one.
2. Otherwise the main context, if this thread holds the big lock and the main loop is homebound's.
   A foreign main loop (Qt's, uvloop's) runs on in its own thread while another thread holds the
   lock, and two threads would be at home in one context.
3. Otherwise none, never "main by default": a thread without a current context must not run a task.

The answer belongs to the thread: do not keep it across an await, as a task may resume in another.
"""

from __future__ import annotations

import sys
import threading
from _thread import get_ident
from typing import TYPE_CHECKING

from .._os.first_look import FirstLook
from .._os.process import AtFork, at_fork

if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable

    from .._os.parking import Parker
    from .context import AioContext


class _Ending:
    """A thread-local object that is finalised in its thread, as that ends, and reports the end."""

    __slots__ = ("_ident", "_thread")

    # Kept here: an interpreter that ends empties the modules, and may finalise this afterwards.
    _get_ident = staticmethod(get_ident)
    _interpreter_ends = staticmethod(sys.is_finalizing)

    def __init__(self) -> None:
        ident = get_ident()
        # Looked up now: a thread that ends is no longer listed. None if threading never knew it.
        self._thread = next((each for each in threading.enumerate() if each.ident == ident), None)
        self._ident = ident  # last: without it, this failed, for lack of stack or memory

    def __del__(self) -> None:
        # A forked process drops the objects of its parent's threads; an ending interpreter, all.
        if not self._interpreter_ends() and self._get_ident() == getattr(self, "_ident", None):
            hooks.thread_ends(self._ident, self._thread)


class Seat:
    """A thread's place in the queue for the big lock; the queue's head holds the lock.

    The thread itself writes the fields, before it queues or while it waits; any thread reads them.
    `home` and `has_big_lock` are for the thread alone. They stand here and not in `here`, because a
    thread-local field costs ten times as much to read as a slot: a home that goes to sleep, and
    lends the lock meanwhile, looks its seat up a few times and reads them a dozen times.
    """

    __slots__ = ("has_big_lock", "home", "ident", "parker", "timed", "turns")

    def __init__(self) -> None:
        # The context whose home this thread is. Written by `set_home`, from its start to its end.
        self.home: AioContext | None = None
        # True between big_lock.acquire and big_lock.release: a copy of what the queue says, because
        # it is read often. Written by the lock (big_lock.py) alone.
        self.has_big_lock = False
        self.ident = get_ident()
        # Where it sleeps when it has to wait; made for its first wait.
        self.parker: Parker | None = None
        self.timed = True  # it leaves the queue by itself; False only in a wait without a timeout
        self.turns = 0  # how often it has queued: tells one acquire from the next


class _Here(threading.local):
    """The calling thread's state. Each field is written and read by its own thread only."""

    def __init__(self) -> None:
        self._ending = _Ending()

    # One for each thread, so that taking the lock is one append to the queue. The same one for the
    # thread's whole life: a frame may keep it.
    seat = FirstLook(Seat)
    # The rule's answer, kept because each wake-up reads it. It changes with two fields of the seat,
    # `home` and `has_big_lock`, and with the main context, which changes only under the big lock.
    context: AioContext | None = None
    # The context for which this thread makes an executor's call, if it is no home; see served.py.
    # Weak: an idle worker must not keep a context alive.
    serves: weakref.ref[AioContext] | None = None


class _Main:
    """The one main context of the process."""

    # Written by the thread that becomes (or ceases to be) its home, while it holds the big lock;
    # None when no main loop runs. Readers without the big lock may see either side of a change.
    # A foreign loop may have stopped without notice: `main_context` checks that.
    context: AioContext | None = None
    # The context that a holder of the big lock stands in for: the main context, or None if its loop
    # is a foreign loop. Written with `context`.
    stood_in_for: AioContext | None = None


class _Hooks:
    """Functions of higher layers that know the big lock and foreign loops; those set them."""

    # Corrects `here.context` where the thread's fields cannot tell, as they name a foreign loop's
    # context or none: takes that, and returns the context that is current. Set in foreign_loops.py,
    # before there is such a loop.
    resident: Callable[[AioContext | None], AioContext | None]
    # Returns whether a foreign loop has stopped. Set there, too.
    stopped: Callable[[AioContext], bool]
    # Releases the big lock in a thread that ends. Called in it, with its ident and its Thread, if
    # threading knew it; its thread-local fields, `here` among them, are gone. Set in big_lock.py.
    thread_ends: Callable[[int, threading.Thread | None], None]


here = _Here()
main = _Main()
hooks = _Hooks()


def _apply_rule() -> None:
    seat = here.seat
    if seat.home is not None:
        here.context = seat.home
    elif seat.has_big_lock:
        here.context = main.stood_in_for
    else:
        here.context = None


def set_home(context: AioContext | None) -> None:
    """Make this thread the home of `context` (None: of none any more).

    If it holds the big lock, it stands in for the main context before and afterwards, but not while
    it is another home: in that time it may release the lock, and others may acquire it.
    """
    seat = here.seat
    if seat.home is None and here.context is not None:
        here.context._stand_in.ends()
    seat.home = context
    _apply_rule()
    if context is None and here.context is not None:
        here.context._stand_in.begins()


def set_main(context: AioContext | None) -> None:
    """Make `context` the main context; the caller holds the big lock."""
    main.context = context
    main.stood_in_for = None if context is None or context._is_guest else context
    _apply_rule()


def _begin_as_child() -> None:
    """Forget the parent's contexts: a forked process has their memory, but runs none of them."""
    here.context = here.serves = main.context = main.stood_in_for = None
    here.seat.__init__()  # type: ignore[misc]  # its parker is the parent's as well


at_fork(AtFork.CURRENT, _begin_as_child)


def current_context() -> AioContext | None:
    """Return the context whose tasks this thread may run now, or None.

    That is the context whose home this thread is; else the main context, if this thread holds the
    big lock and the main loop is homebound's; else None.

    >>> import homebound
    >>> print(homebound.current_context())
    None

    Called from: any thread.
    """
    context = here.context
    if context is None or context._is_guest:
        return hooks.resident(context)
    return context


def main_context() -> AioContext | None:
    """Return the context of the main loop, or None when no main loop runs.

    That is the loop of `homebound.run`, or else the one that the process's main thread runs:
    homebound's, or a foreign loop (Qt's, uvloop's, asyncio's) given to `AioContext.attach`.

    >>> import homebound
    >>> async def main():
    ...     return homebound.main_context() is homebound.current_context()
    >>> homebound.run(main())
    True

    Called from: any thread.
    """
    context = main.context
    if context is not None and context._is_guest and hooks.stopped(context):
        return None
    return context
