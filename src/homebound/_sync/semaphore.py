"""Semaphores: permits in a deque, and a queue for them."""

from __future__ import annotations

import _thread
from collections import deque
from itertools import repeat
from typing import TYPE_CHECKING, Any

from .wait_queue import DONE, WaitQueue

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .waiters import Waiter

MOST = 1024  # permits laid out at a time: a semaphore of a million is not a million entries


class Semaphore(WaitQueue):
    """asyncio.Semaphore for tasks of any loop and for threads, all at once.

    `async with semaphore:` in a task, `with semaphore:` in a thread. A permit is handed straight to
    the longest waiting. Raises ValueError for a `value` below 0.

    >>> import homebound
    >>> semaphore = homebound.Semaphore(2)
    >>> async def main():
    ...     async with semaphore, semaphore:
    ...         return semaphore.locked()
    >>> homebound.run(main())
    True

    Called from: any thread.
    """

    __slots__ = (
        "_holders",  # who has entered it, where somebody watches; else unset. See _debug/holders.py
        "_initial",
        "_permits",
        "_reserve",
    )

    _holders: list[tuple[Any, bool, object]]

    def __init__(self, value: int = 1) -> None:
        if value < 0:
            raise ValueError("Semaphore initial value must be >= 0")
        self._initial = value  # constant
        now = min(value, MOST)
        # One None for each permit that is free. Atomic operations.
        self._permits: deque[None] = deque(repeat(None, now))
        self._reserve = value - now  # free as well, not laid out yet. Under the guard
        super().__init__(self._permits)

    @property
    def _value(self) -> int:
        return len(self._permits) + self._reserve

    async def acquire(self) -> bool:
        """Wait for a permit; True.

        Called from: task.
        """
        if not self._acquire_now():
            await self._wait()
        return True

    def acquire_sync(self, timeout: float | None = None) -> bool:
        """Wait in this thread for a permit, at most `timeout` seconds; False if there was none.

        A home's loop keeps turning meanwhile, as in `block_on`.

        Called from: any thread.
        """
        return self._acquire_now() or self._wait_sync(timeout) is not None

    def _acquire_now(self) -> bool:
        if self._permits and not self._waiters:
            try:
                self._permits.pop()
            except IndexError:
                return False
            return True
        return False

    def release(self) -> None:
        """Give a permit to the longest waiting, or put it back.

        Called from: any thread.
        """
        self._permits.append(None)
        if self._waiters:  # after the append: pairs with _join
            try:
                self._serve()
            except BaseException:
                _thread.start_new_thread(self._serve, ())
                raise

    def locked(self) -> bool:
        """True if who wants a permit now has to wait.

        Called from: any thread.
        """
        return not self._value or bool(self._waiters)

    def _take(self, _waiter: Waiter | None) -> bool:
        permits = self._permits
        if not permits:
            if not self._reserve:
                return False
            more = min(self._reserve, MOST)
            self._reserve -= more
            permits.extend(repeat(None, more))
        try:
            permits.pop()
        except IndexError:
            return False
        return True

    def _give_back(self, _waiter: Waiter) -> None:
        self._permits.append(None)
        self._serve()

    def __aenter__(self) -> Awaitable[Any]:
        return DONE if self._acquire_now() else self._enter_waiting()

    async def _enter_waiting(self) -> None:
        await self._wait()

    def __aexit__(self, *_error: object) -> Awaitable[None]:
        self.release()
        return DONE

    def __enter__(self) -> None:
        self.acquire_sync()

    def __exit__(self, *_error: object) -> None:
        self.release()

    def _describe(self) -> str:
        return "locked" if self.locked() else f"unlocked, value:{self._value}"


class BoundedSemaphore(Semaphore):
    """A Semaphore that refuses to be released above its initial value.

    Called from: any thread.
    """

    __slots__ = ()

    def __init__(self, value: int = 1) -> None:  # so that errors about arguments name this class
        super().__init__(value)

    def release(self) -> None:
        """Give a permit to the longest waiting, or put it back. Raises ValueError if none is out.

        Called from: any thread.
        """
        with self._guard:  # looked at and put back in one
            if self._value >= self._initial:
                raise ValueError("BoundedSemaphore released too many times")
            self._permits.append(None)
        if self._waiters:  # after the append: pairs with _join
            self._serve()
