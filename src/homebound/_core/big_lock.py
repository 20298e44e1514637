"""The big lock: a thread that holds it may stand in for the main loop's home.

The lock is its queue: a deque of threads' seats, whose head holds the lock. So one C call each
acquires, hands over and releases it, and the queue alone says whether it is held and by which
thread:

    acquire: append the seat; the lock is held once the seat is the head, until then sleep
    release: remove the seat, which is the head; wake the new head, if there is one
    time out: remove the seat from its place; wake the head, as this seat may just have become it

The queue is FIFO, so it is fair. An exception may interrupt a thread between any two bytecodes (a
signal handler that raises, MemoryError, RecursionError). The thread's seat is in the queue or it
is not, so the lock cannot get lost:

    acquire     removes the seat again, and raises: the lock is not held
    release     removes the seat if it is still there, wakes the new head, and raises
    reacquire   queues the seat unless it is queued, waits until it is the head, and raises: held

The thread-local copy of that state (`here`) is set on the way in and on the way out. The repair
consists of C calls in the interrupted frame. The stack has room for them, because that frame has
already made C calls.

If a signal handler acquires the lock while its thread waits for it, the same seat is queued twice.
The handler has its turn first and removes one of the two; the other is the interrupted wait's.

`tests/model/biglock.pml` searches every interleaving of this.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from .._errors import ContextError, WouldDeadlock, WrongThread
from .._os.clock import Deadline
from .._os.no_copy import refuse_threaded_copy
from .._os.parking import SET, my_parker, write_signal
from .._os.process import AtFork, at_fork
from .._os.snapshot import snapshot
from .current import here, hooks, main

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .current import Seat


_ROOM = 20  # frames: more than it takes to release the lock, sleep, and wait for it
# Errors in waking the head that need no action: no thread waits, or it has no parker yet and is
# about to look at the queue, or it has already been woken.
_NOBODY_WAITS = (IndexError, AttributeError, BlockingIOError, RuntimeError)


def thread_name(ident: int | None) -> str:
    """Return a thread's name; its ident in words if it is not one of `threading`'s."""
    thread = _thread_of(ident)
    return f"with ident {ident}" if thread is None else thread.name


def shown_thread(ident: int | None) -> str:
    """Return a thread's name as messages show it, in quotes."""
    return _shown(_thread_of(ident), ident)


def _shown(thread: threading.Thread | None, ident: int | None) -> str:
    return f"with ident {ident}" if thread is None else repr(thread.name)


def _thread_of(ident: int | None) -> threading.Thread | None:
    return next((each for each in threading.enumerate() if each.ident == ident), None)


def _find_room(frames: int) -> None:
    """Raise RecursionError if the stack has no room for that many frames."""
    if frames:
        _find_room(frames - 1)


class BigLock:
    """The lock under which another thread may stand in for the main context's home.

    The main thread holds it except while its loop sleeps. It is FIFO, not recursive, and released
    by its holder only. While a thread that is no home itself holds it, `current_context()` is the
    main context there: it may enter tasks, poll, and `block_on` without a thread hop.

    If the main loop is a foreign loop, the main thread holds the lock while it runs homebound's
    tasks and callbacks, and a holder is no stand-in: what it wakes or blocks on is queued.

    >>> import homebound
    >>> with homebound.big_lock:
    ...     homebound.big_lock.held()
    True
    >>> homebound.big_lock.held()
    False

    Called from: any thread.
    """

    def __init__(self) -> None:
        # A forked process calls this again, for the one that there is.
        if globals().get("big_lock", self) is not self:
            raise TypeError("there is one big lock in a process: use homebound.big_lock")
        # The head holds the lock, the others wait, FIFO. A thread appends and removes only its own
        # seat; the deque's own lock makes both atomic.
        self._queue: deque[Seat] = deque()
        # The seats of waiting threads. The main loop looks in each iteration whether there are any,
        # which costs less with this set than with the queue. An exception at the end of a wait may
        # leave its seat in the set; `_look_around` removes it.
        self._crowd: set[Seat] = set()

    def acquire(self, timeout: float = -1) -> bool:
        """Acquire the lock, waiting at most `timeout` seconds (-1: forever); True if acquired.

        Raises WouldDeadlock if this thread holds it already: it is not recursive.

        Called from: any thread.
        """
        seat = here.seat
        if seat.has_big_lock:
            message = (
                "big_lock.acquire(): this thread holds the big lock already, and it is not "
                "recursive; check big_lock.held() first"
            )
            raise WouldDeadlock(message)
        queue = self._queue
        seat.turns += 1
        try:
            queue.append(seat)
            if queue[0] is not seat and not self._wait(seat, timeout):
                return False
            seat.has_big_lock = True
            if seat.home is None:
                context = here.context = main.stood_in_for
                if context is not None:
                    context._stand_in.begins()
        except BaseException:  # as in `release`
            context, here.context = here.context, seat.home
            seat.has_big_lock = False
            if seat in queue:
                queue.remove(seat)
            if context is not seat.home:
                signal = context._signal  # type: ignore[union-attr]
                write_signal(signal.written_fd, SET)
            try:
                parker = queue[0].parker
                parker.wake()  # type: ignore[union-attr]  # as in `_wake_head`
            except _NOBODY_WAITS:
                pass
            raise
        return True

    def release(self, *_: object) -> None:
        """Hand the lock to the longest waiting thread; wake the main loop if it has work now.

        Raises WrongThread if this thread does not hold it.

        Called from: any thread.
        """
        seat = here.seat
        if not seat.has_big_lock:
            owner = self._owner
            holder = "no thread" if owner is None else f"thread {shown_thread(owner)}"
            message = (
                f"big_lock.release(): this thread does not hold the big lock ({holder} does); "
                "only its holder may release it"
            )
            raise WrongThread(message)
        queue = self._queue
        try:
            if seat.home is None:
                context = here.context
                if context is not None:
                    context._stand_in.ends()
                here.context = None
            seat.has_big_lock = False
            queue.popleft()
            if queue:
                self._wake_head()
        except BaseException:
            # Every step again, whichever are done: one wake too many does no harm. It is written
            # out here and in `acquire`, as the stack may have no room for a call of a function.
            context, here.context = here.context, seat.home
            seat.has_big_lock = False
            if seat in queue:
                queue.remove(seat)
            if context is not seat.home:  # this thread stood in: the home must look for itself
                signal = context._signal  # type: ignore[union-attr]
                write_signal(signal.written_fd, SET)
            try:
                parker = queue[0].parker
                parker.wake()  # type: ignore[union-attr]  # as in `_wake_head`
            except _NOBODY_WAITS:
                pass
            raise

    def held(self) -> bool:
        """Return True if the calling thread holds the lock.

        Called from: any thread.
        """
        return here.seat.has_big_lock

    __enter__ = acquire
    # `release` itself: a method that calls it would need more stack than `acquire` has found.
    __exit__ = release

    if not TYPE_CHECKING:

        async def __aenter__(self) -> NoReturn:
            message = (
                "big_lock is acquired by a thread, not by a task: `with big_lock:`, and no await "
                "in it. (The main loop's tasks run with it held.) What tasks share is guarded by a "
                "homebound.Lock, which has `async with`"
            )
            raise TypeError(message)

        __aexit__ = __aenter__

    __reduce__ = refuse_threaded_copy

    def __repr__(self) -> str:
        owner = self._owner
        state = "free" if owner is None else f"held by thread {shown_thread(owner)}"
        return f"<homebound.big_lock, {state}, {len(self._waiters)} waiting>"

    @property
    def _owner(self) -> int | None:
        """The ident of the thread that holds it; None if it is free. Called from: any thread."""
        try:
            return self._queue[0].ident
        except IndexError:
            return None

    @property
    def _waiters(self) -> tuple[Seat, ...]:
        """The seats of the waiting threads, in their order. Called from: any thread."""
        return snapshot(self._queue)[1:]

    # The lock alone, without the duties of a stand-in: used around a home's sleep, and by a thread
    # that lends the lock.

    def _reacquire(self) -> None:
        """Acquire the lock whatever happens, then raise what was raised meanwhile.

        A no-op if this thread holds it. The caller has called `_make_ready` while it held the lock,
        so that a failure in here does not repeat without end.
        """
        seat = here.seat
        queue = self._queue
        # Queued by an acquire that was interrupted by the signal handler which runs this call.
        before = queue.count(seat) if queue else 0
        raised: BaseException | None = None
        while True:
            try:
                if not seat.has_big_lock:
                    if raised is None or queue.count(seat) == before:
                        seat.turns += 1
                        queue.append(seat)
                    if queue[0] is not seat:
                        self._wait(seat, -1)
                    seat.has_big_lock = True
                if seat.home is None:
                    here.context = main.stood_in_for
                break
            except BaseException as error:  # noqa: BLE001  (raised below)
                if raised is not None and error.__context__ is None:
                    error.__context__ = raised
                raised = error
        if raised is not None:
            try:
                raise raised
            finally:
                del raised  # its traceback leads to this frame

    def _make_ready(self) -> None:
        """Get what a wait for the lock needs: a descriptor, and room on the stack."""
        seat = here.seat
        if seat.parker is None:
            seat.parker = my_parker()
        _find_room(_ROOM)

    def _release_if_held(self) -> None:
        """Release it, if this thread holds it: the program may have released it by hand."""
        seat = here.seat
        if seat.has_big_lock:
            if seat.home is None:
                here.context = None
            self.release()

    def _wait(self, seat: Seat, timeout: float) -> bool:
        """Sleep until the seat is the head; False if the time is over and the seat is removed."""
        queue = self._queue
        parker = seat.parker
        if parker is None:
            # Made before the last look: a thread that releases the lock wakes it, or finds none and
            # has changed the queue by then.
            parker = seat.parker = my_parker()
        deadline = Deadline(None if timeout < 0 else timeout)
        try:
            seat.timed = timeout >= 0
            self._crowd.add(seat)
            while True:  # not `while queue[0] is not seat`: the jump rule
                if queue[0] is seat:
                    return True
                if deadline.over():
                    queue.remove(seat)
                    self._wake_head()  # this seat may have become the head meanwhile
                    return False
                deadline.park(parker)
        finally:
            self._crowd.discard(seat)
            seat.timed = True

    def _look_around(self) -> None:
        """Remove seats that no longer wait from `_crowd`. Called as the main loop gives way."""
        if len(self._queue) == 1:
            self._crowd.clear()
            # A thread may have come meanwhile: it joins the queue, then the crowd (see `_wait`).
            self._crowd.update(self._waiters)

    def _wake_head(self) -> None:
        try:
            # A reference of our own: the thread may have woken, and have ended, and with the last
            # reference its descriptor is closed.
            parker = self._queue[0].parker
            parker.wake()  # type: ignore[union-attr]
        except _NOBODY_WAITS:
            pass

    def _holder_ends(self, ident: int, thread: threading.Thread | None) -> None:
        """Release the lock if the thread that ends, in which this is called, holds it."""
        if self._owner != ident:
            return
        context = main.stood_in_for
        if context is not None:
            context._stand_in.ends()
        self._queue.popleft()
        self._wake_head()
        error = ContextError(
            f"thread {_shown(thread, ident)} ended while it held the big lock, which is now "
            "released; acquire it with `with big_lock:`, or call big_lock.release() in the thread "
            "that acquired it"
        )
        threading.excepthook(threading.ExceptHookArgs((ContextError, error, None, thread)))


@contextmanager
def big_lock_released() -> Iterator[None]:
    """Release the big lock for a block, if this thread holds it, and always reacquire it."""
    seat = here.seat
    if not seat.has_big_lock:
        yield
        return
    home = seat.home
    # In a signal handler that runs as the home goes to sleep, the lock is already lent.
    lent = home is not None and home._stand_in.lent
    big_lock._make_ready()
    try:
        if home is not None:
            home._stand_in.lent = True
        big_lock.release()
        yield
    finally:
        try:
            big_lock._reacquire()
        finally:
            if not seat.has_big_lock:  # interrupted before it had begun
                big_lock._reacquire()
            context = here.context
            if home is not None:
                home._stand_in.lent = lent
            elif context is not None:
                context._stand_in.begins()


big_lock: BigLock = BigLock()
hooks.thread_ends = big_lock._holder_ends
# A forked process has none of the threads that held it or waited for it.
at_fork(AtFork.BIG_LOCK, big_lock.__init__)  # type: ignore[misc]
