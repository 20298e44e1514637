"""The one wait queue under every lock, event and queue.

A FIFO of waiters and a *guard*, a C lock held for a few lines and never while somebody is woken.
Waiters come, go and are granted under the guard, so all of that is sequential:

    join     under the guard: append; if at the head: take; it may be granted at once
    serve    under the guard: while there is a head and it can take: remove it, granted = True
             each is woken after the guard was let go
    leave    under the guard: if not granted, remove it; else what it was given goes back
             (a cancelled task, a thread's timeout, a task whose home has ended)

`granted` is what passes ownership on; it is written before the wake-up, and there is no second
state between "in the queue" and "granted". So a waiter that leaves either was never given anything,
or gives it back, which serves the next: nothing is lost or given twice, whoever comes first.

Where something is to be had at once, the guard is not needed. What can be had then lies in a deque,
the *stock* (the token of a free lock, a semaphore's permits, a queue's items and its free slots),
whose single operations are atomic by its own lock, or by the GIL where there is one:

    take     somebody waits: join. Else pop from the stock; nothing there: join
    give     append to the stock, *then* look whether somebody waits: serve
    join     append to the waiters, pass through the stock's lock (`rotate(0)`), *then* try to take

The append of `give` and the pass of `join` go through one lock, so one is first. The append: the
joiner's try finds what was given. The pass: `give` sees the waiter that was appended before, and
serves it. tests/model/waitqueue.pml searches every interleaving, with the cancellations and the
homes that end, and catches the variants that look first.

The garbage collector or a signal handler may come in anywhere, also under the guard, and what it
calls may give, set or release the same thing. The guard knows its thread, so such a call sees that
it stands on top of a half-done one, and leaves what it would do to a thread of its own (`_later`),
which waits for the guard.

Nobody barges: who comes while somebody waits joins behind. Only who looked before the first of them
had joined may still get what is given after; he came first.
"""

from __future__ import annotations

import _thread
import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, NoReturn

from .._core.big_lock import big_lock_let_go
from .._core.current import current_context, here
from .._core.traps import current_task, suspend_for
from .._os.clock import Deadline
from .._threads.block_on import block_on
from .waiters import FutureWaiter, TaskWaiter, ThreadWaiter, Waiter, parked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class _Done(tuple[()]):
    """Awaiting it is over at once, without a Python frame. What `__aenter__` returns if it can."""

    __slots__ = ()

    __await__ = tuple.__iter__


DONE: Awaitable[None] = _Done()  # type: ignore[assignment]  # its __await__ is C, and has no type


def no_copy(what: object) -> TypeError:
    """The error of copying or pickling it: half of it would be shared, and no longer agree."""
    name = type(what).__name__
    return TypeError(f"cannot copy or pickle {name!r} object: share it, or make another {name}")


class WaitQueue:
    """Waiters, and the way in and out of them. A subclass says what there is to take."""

    __slots__ = ("__weakref__", "_guard", "_stock", "_waiters")

    def __init__(self, stock: deque[Any] | None = None, guard: Any = None) -> None:
        self._guard: Any = guard or _thread.RLock()
        self._waiters: deque[Waiter] = deque()  # FIFO. Written under the guard, looked at by all
        # What `give` appends to without the guard; where there is no such thing, no matter what.
        self._stock: deque[Any] = self._waiters if stock is None else stock

    def _take(self, waiter: Waiter) -> bool:
        """Give the waiter at the head what it wants, if that is there. Under the guard."""
        raise NotImplementedError

    def _give_back(self, waiter: Waiter) -> None:
        """A waiter that was granted will not come: undo `_take`, and serve. Any thread."""
        raise NotImplementedError

    # Under the guard, or taking it.

    def _later(self, act: Callable[..., object], *args: Any) -> None:
        """Act once this thread has let go of the guard, which it has further up its stack."""
        _thread.start_new_thread(act, args)

    def _join(self, waiter: Waiter) -> bool:
        """Queue it, or grant it at once: True, and it will not be woken."""
        waiters = self._waiters
        if self._guard._is_owned():
            waiters.append(waiter)
            self._later(self._serve)
            return False
        with self._guard:
            waiters.append(waiter)
            self._stock.rotate(0)  # pairs with whoever gives: append to the stock, look
            if waiters[0] is waiter and self._take(waiter):
                waiters.popleft()
                waiter.granted = True
                return True
        return False

    def _serve(self) -> None:
        """Hand over to the head, and the next, while there is something for it."""
        waiters = self._waiters
        if waiters and self._guard._is_owned():
            self._later(self._serve)
            return
        while waiters:
            with self._guard:
                if not waiters:
                    return
                waiter = waiters[0]
                if not self._take(waiter):
                    return
                waiters.popleft()
                waiter.granted = True
            try:
                if not waiter.wake():
                    self._leave(waiter)
            except BaseException:
                _thread.start_new_thread(self._wake_rest, ([waiter],))
                raise

    def _grant_all(self) -> list[Waiter]:
        """Take everyone out, granted. The caller has the guard, and wakes them after it."""
        waiters, woken = self._waiters, []
        while waiters:  # one by one: another may join in between, from a finaliser
            waiter = waiters.popleft()
            waiter.granted = True
            woken.append(waiter)
        return woken

    def _wake_all(self, woken: list[Waiter]) -> None:
        try:
            for waiter in woken:
                if waiter.wake():
                    continue
                self._leave(waiter)  # last: see BigLock._wait
        except BaseException:
            _thread.start_new_thread(self._wake_rest, (woken,))
            raise

    def _wake_rest(self, woken: list[Waiter]) -> None:
        """The thread that has granted them was cut short: wake them, and serve whom it has not.

        In a thread of its own: there is stack there. Being woken twice changes nothing.
        """
        self._wake_all(woken)
        self._serve()

    def _withdraw(self, waiter: Waiter) -> bool:
        """Take it out of the queue; False if it was granted first."""
        with self._guard:
            if waiter.granted or waiter.left:
                return False
            waiter.left = True
            self._waiters.remove(waiter)
        self._serve()  # who stood behind it may be content with less
        return True

    def _leave(self, waiter: Waiter) -> None:
        """It will not come any more; what it was handed goes to the next. Once, whoever asks."""
        if self._guard._is_owned():
            self._later(self._leave, waiter)
            return
        if self._withdraw(waiter):
            return
        with self._guard:
            if waiter.left:
                return
            waiter.left = True
        self._give_back(waiter)

    def _leave_unseen(self, waiter: Waiter) -> None:
        """`_leave`, from a finaliser, often of one that has left."""
        if not waiter.left:
            self._leave(waiter)

    # Waiting.

    async def _wait(self, want: Any = None, joined: Callable[[], object] | None = None) -> Waiter:
        """Join, call `joined`, and suspend until granted. Cancelled, it leaves.

        Granted right after it joined, it still calls `joined`, and takes the wake-up: a condition
        passes notifications on without its lock, also to a waiter that is about to release it.
        """
        task = current_task()
        if task is None:
            return await self._wait_elsewhere(want, joined)
        waiter = TaskWaiter(self, want, task)
        if self._join(waiter):
            return waiter
        try:
            if joined is not None:
                joined()
            armed = True  # granted or not: a wake-up is for this suspension
            while True:
                if armed:
                    await suspend_for(task, waiter)
                if waiter.granted:
                    return waiter
                armed = self._rearm(waiter)  # woken by somebody else. Last: see BigLock._wait
        except GeneratorExit:
            self._leave_unseen(waiter)
            raise
        except BaseException:
            waiter.forget()
            self._leave(waiter)
            raise

    def _rearm(self, waiter: TaskWaiter) -> bool:
        """It is about to suspend again, with another cell; False if it was granted meanwhile."""
        with self._guard:
            if waiter.granted:
                return False
            waiter.rearm()
        return True

    async def _wait_elsewhere(self, want: Any, joined: Callable[[], object] | None) -> Waiter:
        """In a task that is not ours."""
        waiter = FutureWaiter(self, want, asyncio.get_running_loop())
        if self._join(waiter):
            return waiter
        try:
            if joined is not None:
                joined()
            await waiter.future
        except GeneratorExit:
            self._leave_unseen(waiter)
            raise
        except BaseException:
            self._leave(waiter)
            raise
        return waiter

    def _wait_sync(self, timeout: float | None, want: Any = None) -> Waiter | None:
        """Wait in this thread; None if the time is over. A home keeps its loop turning."""
        if current_context() is not None:
            try:
                waiter: Waiter = block_on(self._wait(want), timeout=timeout)
            except TimeoutError:
                return None
            return waiter
        return self._wait_parked(timeout, want)

    def _wait_parked(
        self, timeout: float | None, want: Any = None, joined: Callable[[], object] | None = None
    ) -> Waiter | None:
        deadline = Deadline(timeout)
        waiter = ThreadWaiter(self, want, timed=timeout is not None)
        parked[waiter.who] = waiter
        try:
            self._join(waiter)
            if joined is not None:
                joined()
            while True:  # not `while not waiter.granted`: see BigLock._wait
                if waiter.granted:
                    return waiter
                if deadline.over():
                    # Handed over in the last moment, it is ours.
                    return None if self._withdraw(waiter) else waiter
                if here.has_big_lock:  # who would grant it may need that
                    with big_lock_let_go():
                        deadline.park(waiter.parker)
                else:
                    deadline.park(waiter.parker)
        except BaseException:  # Ctrl-C
            self._leave(waiter)
            raise
        finally:
            parked.pop(waiter.who, None)

    def __reduce__(self) -> NoReturn:
        raise no_copy(self)

    # Telling.

    def _describe(self) -> str:
        """For repr."""
        raise NotImplementedError

    def __repr__(self) -> str:
        extra = self._describe()
        if self._waiters:
            extra = f"{extra}, waiters:{len(self._waiters)}"
        return f"<{object.__repr__(self)[1:-1]} [{extra}]>"
