"""Repairs of what an exception has cut short, which must not be left half done.

A signal handler raises between any two calls, and a call may find no memory, or no room on the
stack. If a task or thread would then wait forever, what was begun is made good before the exception
goes on. `surely` does that for an act that can be made again, and goes on where it was cut short.
Where the first attempt is no call of its own, as that would cost too much, or where the repair is
another act, the same stands inline:

    except BaseException:
        try:
            repair(...)
        except BaseException:
            start_thread(repair, (...,))
        raise

The repair is made here if possible. Where there is no stack left for it, a new thread makes it,
which has a stack of its own. So the repair is no function that takes another: its own frame might
find no room, and nothing would be repaired. The first exception is the one that is raised. It
stands in

    _core/cell.py          Enterable._begin_surely
    _core/cell.py          Enterable._wake_in
    _core/cell.py          OneSuspension.wake
    _core/context.py       AioContext._enter_here
    _core/context.py       AioContext.schedule
    _core/entries.py       BottomHalf.schedule
    _core/loop.py          Loop.call_soon
    _core/loop.py          Loop.call_soon_threadsafe
    _core/loop_context.py  LoopContext._ring
    _core/mailbox.py       Mailbox._post
    _core/pursuit.py       at_home
    _os/surely.py          surely
    _sync/lock.py          Lock._hand_over
    _sync/lock.py          Lock.release
    _sync/queue_ends.py    Getters.get_now
    _sync/queue_ends.py    Unfinished.done
    _sync/queues.py        Queue._put_now
    _sync/queues.py        Queue.get
    _sync/queues.py        Queue.get_nowait
    _sync/queues.py        Queue.get_sync
    _sync/queues.py        Queue.put
    _sync/queues.py        Queue.put_sync
    _sync/rw_lock.py       RWLock.downgrade
    _sync/rw_lock.py       RWLock.release
    _sync/semaphore.py     BoundedSemaphore.release
    _sync/semaphore.py     Semaphore.release
    _sync/wait_queue.py    WaitQueue._serve
    _sync/wait_queue.py    WaitQueue._wait
    _sync/wait_queue.py    WaitQueue._wait_elsewhere
    _sync/wait_queue.py    WaitQueue._wait_parked
    _sync/wait_queue.py    WaitQueue._wait_sync

tests/core/test_repair_sites.py finds any other place, and checks the form of these.
"""

from __future__ import annotations

from _thread import start_new_thread as start_thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def surely(act: Callable[..., object], *args: object) -> None:
    """Act; after an exception act again, then raise it. `act` continues what it has begun.

    Called from: any thread.
    """
    try:
        act(*args)
    except BaseException:
        try:
            act(*args)
        except BaseException:  # noqa: BLE001  (surely.py)
            start_thread(act, args)
        raise
