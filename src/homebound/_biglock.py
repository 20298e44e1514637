"""The big lock: whoever holds it may be the main loop's thread for a while.

Fair by construction: released to the thread that has waited longest, and nobody overtakes once
somebody waits. Built from two objects whose single operations are atomic on every build (a raw
lock tried without blocking, and a deque), so that the uncontended path blocks nowhere:

    acquire: nobody waits and the raw lock can be had -> mine
             else queue, *then* try the raw lock again (pairs with "look again" in `_pass_on`);
             whoever gets it that way serves the head of the queue
    release: somebody waits -> it is theirs, the raw lock stays locked
             else let the raw lock go, *then* look again

`tests/model/biglock.pml` searches every interleaving of this.
"""

from __future__ import annotations

import _thread
import os
import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ._clock import Deadline
from ._current import ask, here, main, set_big_lock
from ._errors import ContextError, WouldDeadlock, WrongThread
from ._park import Parker, my_parker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType


class _Waiter:
    """A thread in the queue. `granted` is written once, by the thread that hands the lock over."""

    __slots__ = ("granted", "ident", "parker", "timed")

    def __init__(self, *, timed: bool) -> None:
        self.timed = timed  # it leaves by itself
        self.parker: Parker = my_parker()
        self.ident = _thread.get_ident()
        self.granted = False


def thread_name(ident: int | None) -> str:
    """A thread's name for messages."""
    thread = next((each for each in threading.enumerate() if each.ident == ident), None)
    return repr(thread.name) if thread else f"with ident {ident}"


class BigLock:
    """The one lock under which a thread stands in as the main context's home.

    The main thread holds it at all times but while its loop sleeps. FIFO, not recursive, released
    by its holder only. While a thread that is no home itself holds it, `current_context()` is the
    main context there: it may enter tasks, poll, and `block_on` without a thread hop.

    Where the main loop is somebody else's, the main thread holds it while it runs homebound's tasks
    and callbacks, and a holder is no stand-in: what it wakes or blocks on is queued.

    >>> import homebound
    >>> with homebound.big_lock:
    ...     homebound.big_lock.held()
    True
    >>> homebound.big_lock.held()
    False

    Called from: any thread.
    """

    def __init__(self) -> None:
        self._raw = _thread.allocate_lock()  # held while somebody owns the lock or it is in transit
        self._waiters: deque[_Waiter] = deque()  # FIFO; any thread appends, the owner pops
        # Written by the owner; read by anyone for messages, and as its thread ends.
        self._owner: int | None = None

    def acquire(self, timeout: float = -1) -> bool:
        """Wait for the lock, at most `timeout` seconds (-1: for ever). True if it is ours now.

        Raises WouldDeadlock if this thread holds it already: it is not recursive.

        Called from: any thread.
        """
        if here.has_big_lock:
            message = (
                "big_lock.acquire(): this thread holds the big lock already, and it is not "
                "recursive; check big_lock.held() first"
            )
            raise WouldDeadlock(message)
        if (self._waiters or not self._raw.acquire(False)) and not self._queue(timeout):
            return False
        self._owner = _thread.get_ident()
        here.has_big_lock = True  # from here on as set_big_lock, without a call
        if here.home is None:
            context = here.context = main.stood_in_for
            if context is not None:
                context._stand_in_begins()
        return True

    def release(self) -> None:
        """Let the longest waiting thread have it; wake the main loop if it has work now.

        Raises WrongThread if this thread does not hold it.

        Called from: any thread.
        """
        if not here.has_big_lock:
            owner = "nobody" if self._owner is None else f"thread {thread_name(self._owner)}"
            message = (
                f"big_lock.release(): this thread does not hold the big lock ({owner} does); "
                "only its holder may release it"
            )
            raise WrongThread(message)
        if here.home is None:
            context = here.context
            if context is not None:
                context._stand_in_ends()
            here.context = None
        here.has_big_lock = False
        self._owner = None
        self._pass_on()

    def held(self) -> bool:
        """True if the calling thread holds the lock.

        Called from: any thread.
        """
        return here.has_big_lock

    __enter__ = acquire

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        owner = self._owner
        state = "free" if owner is None else f"held by thread {thread_name(owner)}"
        return f"<homebound.big_lock, {state}, {len(self._waiters)} waiting>"

    # What the loop uses around its sleep: the lock alone, without the stand-in's duties.

    def _take_back(self) -> None:
        """Take the lock whatever happens: Ctrl-C meanwhile is raised once it is ours."""
        interrupt: BaseException | None = None
        while not here.has_big_lock:
            try:
                if self._waiters or not self._raw.acquire(False):
                    self._queue(-1)
                self._owner = _thread.get_ident()
                set_big_lock(held=True)
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt

    def _let_go(self) -> None:
        if not here.has_big_lock:
            return  # somebody released it by hand in the main thread, which then takes it again
        set_big_lock(held=False)
        self._owner = None
        self._pass_on()

    def _pass_on(self) -> None:
        """The raw lock is ours to give: to the head of the queue, or to nobody."""
        while True:
            if self._waiters:
                try:
                    waiter = self._waiters.popleft()
                except IndexError:
                    pass  # it gave up
                else:
                    waiter.granted = True
                    waiter.parker.unpark()
                    return
            self._raw.release()
            # Look again: who queued since the first look found the raw lock taken, and sleeps now.
            # The pass through the deque's lock puts the look after his append; pairs with _queue.
            self._waiters.rotate(0)
            if not self._waiters or not self._raw.acquire(False):
                return

    def _holder_ends(self, ident: int, thread: threading.Thread | None) -> None:
        """A thread ends, perhaps with the lock: nobody would ever have it again. Called in it."""
        if self._owner != ident:
            return
        context = main.stood_in_for
        if context is not None:
            context._stand_in_ends()
        self._owner = None
        self._pass_on()
        name = f"with ident {ident}" if thread is None else repr(thread.name)
        error = ContextError(
            f"thread {name} ended while it held the big lock, which is now let go; take it "
            "with `with big_lock:`, or call big_lock.release() in the thread that took it"
        )
        threading.excepthook(threading.ExceptHookArgs((ContextError, error, None, thread)))

    def _queue(self, timeout: float) -> bool:
        me = _Waiter(timed=timeout >= 0)
        deadline = Deadline(None if timeout < 0 else timeout)
        push = self._waiters.append
        try:
            push(me)  # the first call in here: an interrupt finds us queued, or handed the lock
            if self._raw.acquire(False):
                self._pass_on()  # it was let go before we were seen: serve the head
            while not me.granted:
                if deadline.over():
                    return not self._withdraw(me)
                deadline.park(me.parker)
        except BaseException:
            if not self._withdraw(me):
                self._pass_on()  # it was handed to us while the interrupt came
            raise
        return True

    def _withdraw(self, waiter: _Waiter) -> bool:
        """Leave the queue; False if the lock was handed over before we could."""
        try:
            self._waiters.remove(waiter)
        except ValueError:
            return False
        return True


@contextmanager
def big_lock_let_go() -> Iterator[None]:
    """Not holding the big lock, if we do; it is ours again afterwards, Ctrl-C or not."""
    if not here.has_big_lock:
        yield
        return
    home = here.home
    if home is not None:
        home._lent = True
    big_lock.release()
    try:
        yield
    finally:
        try:
            big_lock._take_back()
        finally:
            context = here.context
            if home is not None:
                home._lent = False
            elif context is not None:
                context._stand_in_begins()


big_lock: BigLock = BigLock()
ask.thread_ends = big_lock._holder_ends
# Whoever held it or waited for it is not in a forked process.
os.register_at_fork(after_in_child=big_lock.__init__)  # type: ignore[misc]
