"""Fork and exit: the steps in a forked process and at the interpreter's end, and their order.

A forked process has its parent's memory, but of its threads only the one that forked. It runs none
of the parent's tasks, and touches none of the parent's kernel objects: an epoll is shared, so a
descriptor that is taken out of it in the child is gone from the parent's. (Closing the child's copy
of a descriptor does not affect the parent.) Each module resets its own fields, in a function that
it registers here.

The order is that of the enumerations below, and does not depend on the order of imports: a module
may be loaded at its first use. No other module of homebound registers with `os` or `atexit`.
"""

from __future__ import annotations

import atexit
import os
from enum import IntEnum, auto
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class AtFork(IntEnum):
    """The order in which a forked process resets what it has of its parent's."""

    PARKERS = auto()  # first: to park or unpark must not touch the parent's counters
    CURRENT = auto()  # no context is current, and no thread has a seat, before the lock is made new
    BIG_LOCK = auto()  # free before anything below may acquire it
    TASKS = auto()  # kept before what refers to them is dropped: unkept, their coroutines clean up
    LOOP_ENDS = auto()  # its lock is free before a finaliser may attach a loop
    GENERATORS = auto()  # its lock is free before a finaliser may begin a generator
    PURSUERS = auto()  # they refer to tasks, so after TASKS; as do the next two
    WAITS = auto()  # nothing waits before a finaliser may kick
    PARKED = auto()  # nothing is parked before a finaliser may release a lock
    IO_THREADS = auto()  # they have ended before a finaliser may join one
    BACKGROUNDS = auto()  # can be started before a finaliser may make a call
    WORKERS = auto()  # pools are free, and without jobs, before a finaliser may submit one
    VCPUS = auto()  # the guard is free before a finaliser may ask a vCPU to stop
    WATCHES = auto()  # locks have their plain methods before a finaliser may use one
    DEBUG_WATCH = auto()  # counts no home before a loop may run
    LISTENERS = auto()  # has no socket of its parent's, whose thread answers there
    CONTEXTS = auto()  # last: it drops mailboxes and timers, and so runs finalisers


class AtExit(IntEnum):
    """The order in which threads are ended when the interpreter ends."""

    VCPUS = auto()  # first: guest code may wait for workers and I/O threads
    WORKERS = auto()  # jobs may wait for I/O threads
    IO_THREADS = auto()  # their tasks clean up when no other thread needs them any more
    LISTENERS = auto()  # last: an end that hangs can be looked at


_in_child: dict[AtFork, Callable[[], object]] = {}
_at_end: dict[AtExit, Callable[[], object]] = {}


def at_fork(order: AtFork, fn: Callable[[], object]) -> None:
    """Have `fn()` called in each forked process, at its place in the order; each place has one.

    Called from: any thread.
    """
    _in_child[order] = fn


def at_exit(order: AtExit, fn: Callable[[], object]) -> None:
    """Have `fn()` called when the interpreter ends, at its place in the order; each place has one.

    Called from: any thread.
    """
    _at_end[order] = fn


def _call(registered: dict[Any, Callable[[], object]], order: IntEnum) -> None:
    fn = registered.get(order)
    if fn is not None:  # else its module is not loaded
        fn()


# One registration for each place, so that Python reports what one raises, and calls the next.
for _order in AtFork:
    os.register_at_fork(after_in_child=partial(_call, _in_child, _order))
for _last in reversed(AtExit):  # atexit calls the last registered function first
    atexit.register(partial(_call, _at_end, _last))
