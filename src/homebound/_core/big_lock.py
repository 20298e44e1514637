"""The big lock: a thread that holds it may be the main loop's home for a while.

The lock is its queue: a deque of threads' seats, whose head holds it. So the lock is taken, handed
over and let go by one C call each, and what says that it is taken says by which thread:

    acquire: append my seat; it is mine if I am the head, else sleep until I am
    release: take my seat, the head, off; wake the new head, if there is one
    give up: take my seat out, wherever it stands; wake the head, which I may have been by then

It is fair by construction: nobody overtakes. Whatever interrupts a thread here, between any two
bytecodes (a signal handler that raises, MemoryError, RecursionError), its seat is in the queue or
it is not, so the lock is never lost between the two:

    acquire   takes the seat out again, and raises: it is not ours
    release   takes the seat off, unless that is done, wakes who may have to be, and raises
    take back looks whether the seat is in, waits for its turn, and then raises: it is ours

What a thread keeps of that for itself (`here`) is set on the way in and on the way out. The repair
is made of C calls in the frame that was interrupted: there is room on the stack for those, because
its first one has found room.

A signal handler that takes the lock while its thread waits for it has the same seat queued twice.
It has its turn first; it takes off one of the two, and the other is its thread's.

`tests/model/biglock.pml` searches every interleaving of this.
"""

from __future__ import annotations

import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .._errors import ContextError, WouldDeadlock, WrongThread
from .._os.clock import Deadline
from .._os.parking import SET, my_parker, write_signal
from .._os.process import AtFork, at_fork
from .._os.snapshot import snapshot
from .current import ask, here, main

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .current import Seat


_ROOM = 20  # frames: more than it takes to let the lock go, sleep, and wait for it
# What the waker of the head finds: nobody waits, or it is about to look, or it is woken already.
_NOBODY_WAITS = (IndexError, AttributeError, BlockingIOError, RuntimeError)


def thread_name(ident: int | None) -> str:
    """A thread's name for messages."""
    thread = next((each for each in threading.enumerate() if each.ident == ident), None)
    return repr(thread.name) if thread else f"with ident {ident}"


def _find_room(frames: int) -> None:
    """Raise RecursionError if the stack has no room for so many."""
    if frames:
        _find_room(frames - 1)


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
        # The head holds the lock, the others wait, FIFO. A thread appends its own seat and takes
        # it out again, nobody else's; each of that is atomic by the deque's own lock.
        self._queue: deque[Seat] = deque()
        # Seats of threads that wait, for the main loop, which asks in each iteration whether there
        # are any: the set is cheaper to ask than the queue. A wait that is cut short at its end may
        # leave its seat in here; `_look_around` takes it out.
        self._crowd: set[Seat] = set()

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
        seat = here.seat
        queue = self._queue
        seat.turns += 1
        try:
            queue.append(seat)
            if queue[0] is not seat and not self._wait(seat, timeout):
                return False
            here.has_big_lock = True
            if here.home is None:
                context = here.context = main.stood_in_for
                if context is not None:
                    context._stand_in.begins()
        except BaseException:  # as in `release`
            context, here.context = here.context, here.home
            here.has_big_lock = False
            if seat in queue:
                queue.remove(seat)
            if context is not here.home:
                signal = context._signal  # type: ignore[union-attr]
                write_signal(signal.written_fd, SET)
            try:
                queue[0].parker.wake()  # type: ignore[union-attr]
            except _NOBODY_WAITS:
                pass
            raise
        return True

    def release(self, *_: object) -> None:
        """Let the longest waiting thread have it; wake the main loop if it has work now.

        Raises WrongThread if this thread does not hold it.

        Called from: any thread.
        """
        if not here.has_big_lock:
            owner = self._owner
            holder = "nobody" if owner is None else f"thread {thread_name(owner)}"
            message = (
                f"big_lock.release(): this thread does not hold the big lock ({holder} does); "
                "only its holder may release it"
            )
            raise WrongThread(message)
        queue = self._queue
        try:
            if here.home is None:
                context = here.context
                if context is not None:
                    context._stand_in.ends()
                here.context = None
            here.has_big_lock = False
            queue.popleft()
            if queue:
                self._wake_head()
        except BaseException:
            # All of it, whatever is done so far: a wake too many does no harm. It stands here, and
            # in `acquire`, and not in a function: there may be no room on the stack for a call.
            context, here.context = here.context, here.home
            here.has_big_lock = False
            if here.seat in queue:
                queue.remove(here.seat)
            if context is not here.home:  # we stood in: its home is to look for itself
                signal = context._signal  # type: ignore[union-attr]
                write_signal(signal.written_fd, SET)
            try:
                queue[0].parker.wake()  # type: ignore[union-attr]
            except _NOBODY_WAITS:
                pass
            raise

    def held(self) -> bool:
        """True if the calling thread holds the lock.

        Called from: any thread.
        """
        return here.has_big_lock

    __enter__ = acquire
    __exit__ = release  # itself: one that calls it needs more of the stack than `acquire` found

    def __repr__(self) -> str:
        owner = self._owner
        state = "free" if owner is None else f"held by thread {thread_name(owner)}"
        return f"<homebound.big_lock, {state}, {len(self._waiters)} waiting>"

    @property
    def _owner(self) -> int | None:
        """By which thread it is held; None if it is free. Called from: any thread."""
        try:
            return self._queue[0].ident
        except IndexError:
            return None

    @property
    def _waiters(self) -> tuple[Seat, ...]:
        """Those who wait, first come first. Called from: any thread."""
        return snapshot(self._queue)[1:]

    # What a home uses around its sleep, and whoever lends the lock: the lock alone, without the
    # duties of a stand-in.

    def _take_back(self) -> None:
        """Take the lock whatever happens: what is raised meanwhile is raised once it is ours.

        No-op if it is. The caller has called `_make_ready` while it held the lock: what fails in
        here may not go on failing.
        """
        seat = here.seat
        queue = self._queue
        # In there for an acquire that a signal handler, and so we, interrupt.
        before = queue.count(seat) if queue else 0
        raised: BaseException | None = None
        while True:
            try:
                if not here.has_big_lock:
                    if raised is None or queue.count(seat) == before:
                        seat.turns += 1
                        queue.append(seat)
                    if queue[0] is not seat:
                        self._wait(seat, -1)
                    here.has_big_lock = True
                if here.home is None:
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
        """Have what it takes to wait for the lock: a descriptor, and room on the stack."""
        seat = here.seat
        if seat.parker is None:
            seat.parker = my_parker()
        _find_room(_ROOM)

    def _let_go(self) -> None:
        if here.has_big_lock:  # else the main thread has released it by hand, and takes it again
            if here.home is None:
                here.context = None
            self.release()

    def _wait(self, seat: Seat, timeout: float) -> bool:
        """Sleep until it is our turn; False when the time is over, and we have left the queue."""
        queue = self._queue
        parker = seat.parker
        if parker is None:
            # Before the last look: who lets us have it has found no parker, or wakes this one.
            parker = seat.parker = my_parker()
        deadline = Deadline(None if timeout < 0 else timeout)
        try:
            seat.timed = timeout >= 0
            self._crowd.add(seat)
            # CPython looks for signals at a jump back. On 3.12 to 3.14 one that depends on a
            # condition is outside of the `try` it stands in: so neither a `while` with a condition
            # nor a loop that ends in an `if`. tests/core/test_jumps_back.py looks for those.
            while True:
                if queue[0] is seat:
                    return True
                if deadline.over():
                    queue.remove(seat)
                    self._wake_head()  # it may have been our turn by then
                    return False
                deadline.park(parker)
        finally:
            self._crowd.discard(seat)
            seat.timed = True

    def _look_around(self) -> None:
        """The main loop gives way; it need not if the crowd is of those that have gone."""
        if len(self._queue) == 1:
            self._crowd.clear()
            # One may have come: it queues before it joins the crowd, pairs with `_wait`.
            self._crowd.update(self._waiters)

    def _wake_head(self) -> None:
        try:
            self._queue[0].parker.wake()  # type: ignore[union-attr]
        except _NOBODY_WAITS:
            pass

    def _holder_ends(self, ident: int, thread: threading.Thread | None) -> None:
        """A thread ends, perhaps with the lock: nobody would ever have it again. Called in it."""
        if self._owner != ident:
            return
        context = main.stood_in_for
        if context is not None:
            context._stand_in.ends()
        self._queue.popleft()
        self._wake_head()
        name = f"with ident {ident}" if thread is None else repr(thread.name)
        error = ContextError(
            f"thread {name} ended while it held the big lock, which is now let go; take it "
            "with `with big_lock:`, or call big_lock.release() in the thread that took it"
        )
        threading.excepthook(threading.ExceptHookArgs((ContextError, error, None, thread)))


@contextmanager
def big_lock_let_go() -> Iterator[None]:
    """Not holding the big lock, if we do; it is ours again afterwards, whatever is raised."""
    if not here.has_big_lock:
        yield
        return
    home = here.home
    # In a signal handler that runs as the home goes to sleep, it is lent already.
    lent = home is not None and home._stand_in.lent
    big_lock._make_ready()
    try:
        if home is not None:
            home._stand_in.lent = True
        big_lock.release()
        yield
    finally:
        try:
            big_lock._take_back()
        finally:
            if not here.has_big_lock:  # interrupted before it had begun
                big_lock._take_back()
            context = here.context
            if home is not None:
                home._stand_in.lent = lent
            elif context is not None:
                context._stand_in.begins()


big_lock: BigLock = BigLock()
ask.thread_ends = big_lock._holder_ends
# Whoever held it or waited for it is not in a forked process.
at_fork(AtFork.BIG_LOCK, big_lock.__init__)  # type: ignore[misc]
