"""The one wait queue under every lock, event and queue.

A FIFO of waiters, and a *guard*: a C lock held for a few lines, never while a waiter is woken.
Waiters join, are granted and leave under the guard, so all of that is sequential:

    join     under the guard: append; at the head, take: it may be granted at once
    serve    under the guard: while there is a head: take for it, which sets `granted` if there is
             something for it; then remove it. Each is woken after the guard was released
    leave    under the guard: if not granted, remove it; else what it was granted is given back
             (a cancelled task, a thread's timeout, a task whose home has ended)

`granted` passes ownership on. It is written before the wake-up, and there is no state between "in
the queue" and "granted". So a waiter that leaves either was given nothing, or gives it back, which
serves the next waiter. Nothing is lost or given twice, in whatever order they come.

What can be had at once needs no guard. It lies in a deque, the *stock* (the token of a free lock, a
semaphore's permits, a queue's items and its free slots), whose single operations are atomic by its
own lock, or by the GIL where there is one:

    take     if there are waiters: join. Else pop from the stock; if it is empty: join
    give     append to the stock, *then* look whether there are waiters: serve
    join     append to the waiters, pass through the stock's lock (`rotate(0)`), *then* try to take

The append of `give` and the pass of `join` go through one lock, so one of them is first. If it is
the append, the joiner's try finds what was given. If it is the pass, `give` sees the waiter, which
was appended before, and serves it. tests/model/waitqueue.pml searches every interleaving, with
cancellations and ending homes, and catches the variants that look first.

A finaliser or a signal handler may run at any point, also under the guard, and may give, set or
release the same object. The guard knows its thread, so such a call sees that it stands on top of a
half-done one. It leaves its own action to a new thread (`_later`), which waits for the guard; at
the limit of threads, to a waiter (owed.py).

An exception may come in as well: a signal handler raises, or a call finds no memory or no stack
left. No waiter may wait forever for that, so each hand-over is done or undone before the exception
goes on:

* What decides is one step of the interpreter (a store; a `del` or `for` that takes from the stock,
  see `_take`), or one operation of a deque whose failure changes nothing.
* What follows from it can be begun again, whatever was done of it. A waiter is granted *before* it
  is removed from the queue, so a granted waiter at the head is one whose hand-over was cut short;
  the next thread that serves wakes it. Waking a waiter twice changes nothing.
* So the repair is to do it again before the exception goes on (`surely`, `_finish`): at once, or,
  where there is no stack left for that, in a new thread.

tests/locks/test_attacked.py and test_attacked_leaving.py raise an exception at each point where
the interpreter may.

There is no barging: a task or thread that comes while there are waiters joins behind them. One that
looked before the first of them joined may still get what is given afterwards; it came first.
"""

from __future__ import annotations

import asyncio
import sys
from _thread import start_new_thread as start_thread
from collections import deque
from typing import TYPE_CHECKING, Any

from .._aio.tasks import running_loop
from .._core.big_lock import big_lock_released
from .._core.current import current_context, here
from .._core.guest_context import GuestContext
from .._core.traps import current_task, suspend_for
from .._errors import WouldDeadlock
from .._os.arguments import checked_name
from .._os.clock import Deadline
from .._os.guard import new_guard
from .._os.no_copy import refuse_copy
from .._os.surely import surely
from .._threads.block_on import block_on
from .holders import describe_holder, watched
from .owed import owe, owed, pay, pay_and
from .waiters import FutureWaiter, TaskWaiter, ThreadWaiter, Waiter, parked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CoroutineType

    from .holders import Record


class _Done(tuple[()]):
    """An awaitable that is done at once, without a Python frame; for `__aenter__`."""

    __slots__ = ()

    __await__ = tuple.__iter__


# To type checkers what an `async def` returns: AbstractAsyncContextManager wants no less.
DONE: CoroutineType[Any, Any, None] = _Done()  # type: ignore[assignment]


ONCE = ((),)  # the arguments of one call, for starmap


class WaitQueue:
    """A queue of waiters. A subclass defines what they wait for."""

    __slots__ = (
        "__weakref__",
        "_guard",
        "_name",  # if it was given one; else unset, so that a lock costs no more to make
        "_stock",
        "_waiters",
    )

    _name: str
    _shows_holders = False  # whether _held_inside knows anything

    def __init__(
        self, stock: deque[Any] | None = None, guard: Any = None, *, name: str | None = None
    ) -> None:
        if name is not None:
            self._name = checked_name(self, name)
        self._guard: Any = guard or new_guard()
        self._waiters: deque[Waiter] = deque()  # FIFO. Written under the guard, read without it
        # The deque that `give` appends to without the guard. If there is none, any deque will do.
        self._stock: deque[Any] = self._waiters if stock is None else stock

    def _take(self, waiter: Waiter) -> bool:
        """Grant the waiter at the head what it wants, if there is any. Under the guard.

        In one step: between the taking and `waiter.granted = True` there is no call, after which a
        signal handler could raise. `del` and a `for` that takes from an iterator in C are no calls.
        """
        raise NotImplementedError

    def _give_back(self, waiter: Waiter) -> None:
        """Undo the `_take` of a waiter that leaves, and set `waiter.left`. Under the guard.

        In one step, as `_take`. The caller serves afterwards.
        """
        raise NotImplementedError

    # Under the guard, or acquiring it.

    def _later(self, act: Callable[..., object], *args: Any) -> None:
        """Act once this thread, which holds the guard further up its stack, has released it."""
        owe(self._waiters, act, args)

    def _join(self, waiter: Waiter) -> bool:
        """Queue a waiter, or grant it at once; True if granted, and then it is not woken."""
        waiters = self._waiters
        if self._guard._is_owned():
            waiters.append(waiter)
            self._later(self._serve)
            return False
        with self._guard:
            waiters.append(waiter)
            self._stock.rotate(0)  # pairs with `give`: append to the stock, look
            if waiters[0] is waiter and self._take(waiter):
                waiters.popleft()
                return True
        return False

    _plain_join = _join

    @watched(_join)
    def _watched_join(self, waiter: Waiter) -> bool:
        waiter.show()
        return self._plain_join(waiter)

    def _serve(self) -> None:
        """Grant and wake the waiters at the head, while there is something to give them."""
        waiters = self._waiters
        if waiters and self._guard._is_owned():
            self._later(self._serve)
            return
        waiter: Waiter | None = None
        try:
            while True:  # not `while waiters`: the jump rule
                if not waiters:
                    return
                with self._guard:
                    if not waiters:
                        return
                    waiter = waiters[0]
                    # If it is granted already, the thread that granted it was cut short.
                    if not waiter.granted and not self._take(waiter):
                        return
                    waiters.popleft()
                if waiter.wake():
                    continue
                self._leave(waiter)  # last: the jump rule
        except BaseException:
            try:
                self._finish(waiter)
            except BaseException:  # noqa: BLE001  (surely.py)
                start_thread(self._finish, (waiter,))
            raise

    def _finish(self, waiter: Waiter | None = None) -> None:
        """Complete a hand-over that was cut short: wake `waiter` if it was granted, and serve."""
        if waiter is not None and waiter.granted and not waiter.wake():
            self._leave(waiter)
        self._serve()

    def _grant(self, woken: list[Waiter], most: int = sys.maxsize) -> None:
        """Grant and remove the first `most` waiters, and add them to `woken`.

        The caller holds the guard, and wakes them afterwards. After an exception it calls this
        again, with the same list, which goes on where it was cut short.
        """
        waiters = self._waiters
        if woken and not woken[-1].granted:
            woken.pop()
        while waiters:  # one by one: another may join in between, from a finaliser
            waiter = waiters[0]
            if not waiter.granted:  # else the call that granted it will wake it
                if len(woken) >= most:
                    return
                woken.append(waiter)
                waiter.granted = True
            waiters.popleft()

    def _wake_all(self, woken: list[Waiter]) -> None:
        for waiter in woken:
            if not waiter.wake():
                self._leave(waiter)

    def _withdraw(self, waiter: Waiter) -> bool:
        """Remove a waiter from the queue; False if it was granted first."""
        with self._guard:
            if waiter.granted or waiter.left:
                return False
            try:
                self._waiters.remove(waiter)
            except ValueError:
                pass  # an exception has kept it from joining
            waiter.left = True
        self._serve()  # the waiter behind it may need less
        return True

    def _leave(self, waiter: Waiter) -> None:
        """Have a waiter leave; what it was granted goes to the next. No-op a second time."""
        if self._guard._is_owned():
            self._later(self._leave, waiter)
            return
        surely(self._go, waiter)

    def _go(self, waiter: Waiter) -> None:
        """Do the steps of `_leave` that have not been done. See `surely`."""
        if not self._withdraw(waiter):
            with self._guard:
                if not waiter.left:
                    self._give_back(waiter)
            self._serve()

    def _leave_unseen(self, waiter: Waiter) -> None:
        """Do `_leave`, from a finaliser; often the waiter has left before."""
        if not waiter.left:
            self._leave(waiter)

    # Waiting.

    async def _wait(self, want: Any = None, joined: Callable[[], object] | None = None) -> Waiter:
        """Join, call `joined`, and suspend until granted; leave if cancelled.

        A waiter that is granted right after it joined still calls `joined` and takes the wake-up: a
        condition passes notifications on without its lock, also to a waiter about to release it.
        """
        task = current_task()
        if task is None:
            return await self._wait_elsewhere(want, joined)
        waiter = TaskWaiter(self, want, task)
        try:
            if self._join(waiter):
                return waiter
            if owed or joined is not None:
                pay_and(joined)
            armed = True  # granted or not: a wake-up is for this suspension
            while True:
                if armed:
                    await suspend_for(task, waiter)
                if waiter.granted:
                    return waiter
                armed = self._rearm(waiter)  # woken for another reason. Last: the jump rule
        except GeneratorExit:
            self._leave_unseen(waiter)
            raise
        except BaseException:
            try:
                waiter.forget()
                self._leave(waiter)
            except BaseException:  # noqa: BLE001  (surely.py)
                waiter.forget()
                start_thread(self._leave, (waiter,))
            raise

    def _rearm(self, waiter: TaskWaiter) -> bool:
        """Prepare it to suspend again, with a new cell; False if it was granted meanwhile."""
        with self._guard:
            if waiter.granted:
                return False
            waiter.rearm()
        return True

    async def _wait_elsewhere(self, want: Any, joined: Callable[[], object] | None) -> Waiter:
        """Do `_wait` in a foreign task."""
        waiter = FutureWaiter(self, want, asyncio.get_running_loop())
        try:
            if self._join(waiter):
                return waiter
            if owed or joined is not None:
                pay_and(joined)
            await waiter.future
        except GeneratorExit:
            self._leave_unseen(waiter)
            raise
        except BaseException:
            try:
                self._leave(waiter)
            except BaseException:  # noqa: BLE001  (surely.py)
                start_thread(self._leave, (waiter,))
            raise
        return waiter

    def _wait_sync(self, timeout: float | None, want: Any = None) -> Waiter | None:
        """Wait in this thread; None after `timeout` seconds. A home keeps its loop turning."""
        if isinstance(current_context(), GuestContext):  # cannot wait, but can take what there is
            waiter = self._wait_parked(0, want)
            if waiter is not None or (timeout is not None and timeout <= 0):
                return waiter
        if timeout is None and self._guard._is_owned():
            message = (
                f"{self!r} was waited for in a finaliser that has interrupted an operation on it, "
                "in the same thread: that would never end; use a timeout, or do not wait there"
            )
            raise WouldDeadlock(message)
        if not self._turns_home():
            return self._wait_parked(timeout, want)
        granted: list[Waiter] = []
        try:
            block_on(self._wait_in_task(want, granted), timeout=timeout)
            return granted[0]
        except BaseException as error:
            for waiter in granted:  # on its way here when the exception came
                try:
                    self._leave(waiter)
                except BaseException:  # noqa: BLE001  (surely.py)
                    start_thread(self._leave, (waiter,))
            if isinstance(error, TimeoutError):
                return None
            raise

    _plain_wait_sync = _wait_sync

    @watched(_wait_sync)
    def _watched_wait_sync(self, timeout: float | None, want: Any = None) -> Waiter | None:
        waiter = self._plain_wait_sync(timeout, want)
        if waiter is not None:
            self._note_waited_sync(waiter)
        return waiter

    def _turns_home(self) -> bool:
        """Return whether the caller is to turn its loop while it waits; raises if it cannot."""
        context = current_context()
        if isinstance(context, GuestContext):
            raise context.cannot(f"a synchronous wait for {self!r}")
        return context is not None

    async def _wait_in_task(self, want: Any, granted: list[Waiter]) -> None:
        waiter = await self._wait(want)
        granted += (waiter,)  # not by a call, after which a signal handler could raise

    def _wait_parked(
        self, timeout: float | None, want: Any = None, joined: Callable[[], object] | None = None
    ) -> Waiter | None:
        deadline = Deadline(timeout)
        look = self._looks(want) if timeout is None and self._shows_holders else None
        waiter = ThreadWaiter(self, want, timed=timeout is not None)
        try:
            parked[waiter.who] = waiter
            try:
                self._join(waiter)
                if joined is not None:
                    joined()
                while True:  # not `while not waiter.granted`: the jump rule
                    if owed:
                        pay()
                    if waiter.granted:
                        return waiter
                    if deadline.over():
                        # If it was granted at the last moment, it has what it waited for.
                        return None if self._withdraw(waiter) else waiter
                    at_most = None if look is None else next(look)
                    if here.seat.has_big_lock:  # the thread that would grant it may need that
                        with big_lock_released():
                            deadline.park(waiter.parker, at_most=at_most)
                    else:
                        deadline.park(waiter.parker, at_most=at_most)
            finally:
                parked.pop(waiter.who, None)
        except BaseException:  # Ctrl-C
            try:
                parked.pop(waiter.who, None)  # the one above may have failed
                self._leave(waiter)
            except BaseException:  # noqa: BLE001  (surely.py)
                start_thread(self._leave, (waiter,))
            raise

    def _looks(self, want: Any) -> Iterator[float] | None:
        """Return the looks for a task of this thread's foreign loop that holds the lock."""
        loop = running_loop()
        if loop is None:
            return None
        from .own_loop import looks  # noqa: PLC0415  (few programs come here)

        return looks(self, want, loop)

    __reduce__ = refuse_copy

    # What dump(), the stall watch and own_loop.py read. A lock that knows its holders overrides it.

    def _note_waited_sync(self, waiter: Waiter) -> None:
        """Record that the calling thread holds it; at home a task has waited in its place."""

    def _known_holders(self, _want: Any) -> tuple[Record, ...]:
        """See `holders.holders`."""
        return ()

    def _held_inside(self, _manager: object, _want: Any) -> bool:
        """Return whether an `async with` of that object keeps a waiter for `want` out."""
        return False

    def _keeps_out(self, _held: Any, _want: Any) -> bool:
        """Return whether what was granted for `held` keeps a waiter for `want` out."""
        return True

    def _describe(self) -> str:
        """Its state in words, for repr."""
        raise NotImplementedError

    @property
    def name(self) -> str | None:
        """The name it was given, which repr and dump() show; None without one.

        Called from: any thread.
        """
        return getattr(self, "_name", None)

    def __repr__(self) -> str:
        extra, shown = self._describe(), self._shown()
        if holders := self._known_holders(None):
            shown = f"{shown} held by {', '.join(describe_holder(record[0]) for record in holders)}"
        if self._waiters:
            extra = f"{extra}, waiters:{len(self._waiters)}"
        return f"<{shown} [{extra}]>"  # what is in brackets is asyncio's

    def _titled(self) -> str:
        """Return what begins a message: its class, and its name if it has one."""
        kind = type(self).__name__
        return kind if self.name is None else f"{kind} {self.name!r}"

    def _shown(self) -> str:
        """Return the start of its repr: asyncio's words, or its class and name."""
        if self.name is None:
            return object.__repr__(self)[1:-1]
        return f"{type(self).__module__}.{type(self).__qualname__} {self.name!r}"
