"""Calls at the end of a thread that no exception thrown into it can keep from being made.

The interpreter makes them, in C. The thread's outermost function is in C, too. It makes an object,
the *fuse*, holds it while it makes the thread's own call, and drops it when that has returned or
raised. Weak references to the fuse have the calls at the end as their callbacks. (The thread makes
the fuse itself: without a GIL, an object is freed by the thread that made it, when that next runs
Python code.)

An exception can strike before each line of Python. So there is none: what runs in the thread is one
call in C, which exhausts iterators in C. In them, `map` and `starmap` make calls; `repeat` is a
loop; `takewhile`, `compress` and `iter(fn, None)` are conditions. Each function that returns such a
call says what it would be in Python. A callback is given its reference, which `next` takes for its
default.
"""

from __future__ import annotations

import threading
from _thread import get_ident, start_new_thread
from collections import deque
from functools import partial
from itertools import accumulate, chain, compress, repeat, starmap, takewhile
from operator import itemgetter, methodcaller
from time import sleep
from typing import TYPE_CHECKING, Any
from weakref import ref

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Seconds between two attempts to tell of an end, a multiple that grows by one; and how many there
# are: all of them take 8 minutes.
_PAUSE = 0.1
_ATTEMPTS = 100

_ONCE = ((),)  # the arguments of one call, for starmap


def with_fuse(
    act: Callable[[], object], at_end: tuple[Callable[[Any], object], ...]
) -> Callable[[], object]:
    """Return what calls `act`, once, and then those of `at_end`.

    In Python:

        fuse = set()
        references = [ref(fuse, each) for each in at_end]
        try:
            act()
        finally:
            del fuse
    """
    fuse: list[set[object]] = []
    references: list[object] = []
    make: Iterator[object] = map(fuse.append, starmap(set, _ONCE))
    watch = map(references.append, map(ref, map(itemgetter(0), repeat(fuse)), at_end))
    # `next` is given the fuse, as its default, and so holds it during the call; nothing else does.
    run = map(next, [starmap(act, _ONCE)], map(fuse.pop, [0]))
    return partial(deque, chain(make, watch, run), 0)


def is_registry_locked_here() -> bool:
    """Return whether this thread has locked threading's registry; False if the lock is gevent's."""
    lock = threading._active_limbo_lock  # type: ignore[attr-defined]
    return hasattr(lock, "_is_owned") and lock._is_owned()


def unlock_registry() -> Callable[[Any], object]:
    """Return what releases the lock of threading's registry, if the thread has left it locked.

    An exception that is thrown into it may do that on 3.14: guard.py says why. No other thread
    could be started, and the interpreter could not end.

    In Python:

        while lock._is_owned():
            lock.release()
    """
    lock = threading._active_limbo_lock  # type: ignore[attr-defined]
    if not hasattr(lock, "_is_owned"):
        return bool  # gevent's, which cannot tell: do nothing
    held = takewhile(methodcaller("_is_owned"), repeat(lock))
    return partial(next, filter(methodcaller("release"), held))  # it returns None


def leave_registry() -> Callable[[Any], object]:
    """Return what removes the thread from threading's registry, where the next has its ident.

    In Python:

        active.pop(get_ident(), None)
    """
    active = threading._active  # type: ignore[attr-defined]
    return partial(next, map(active.pop, starmap(get_ident, _ONCE), [None]))


def tell_until_heard(
    tell: Callable[[Any], object], unheard: Callable[[], object]
) -> Callable[[Any], object]:
    """Return what starts a thread that calls `tell` until `unheard()` is None; none if it is.

    In Python:

        def attempt():
            for pause in accumulate(repeat(_PAUSE, _ATTEMPTS)):
                if unheard() is None:
                    break
                ref(set(), tell)  # calls it at once, as nothing holds the set
                sleep(pause)

        if unheard() is not None:
            start_new_thread(attempt, ())

    What an attempt raises is reported, as a callback's, and does not end the loop.
    """
    attempts: Iterator[object] = map(ref, starmap(set, repeat(())), repeat(tell))
    pauses = map(sleep, accumulate(repeat(_PAUSE, _ATTEMPTS)))
    loop = zip(iter(unheard, None), attempts, pauses, strict=False)
    new_thread = repeat((deque, (loop, 0)))
    return partial(next, starmap(start_new_thread, compress(new_thread, iter(unheard, None))))
