"""Lock: one token, and a queue for it."""

from __future__ import annotations

import _thread
from collections import deque
from typing import TYPE_CHECKING, Any

from .wait_queue import DONE, WaitQueue

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .waiters import Waiter


class Lock(WaitQueue):
    """asyncio.Lock for tasks of any loop and for threads, all at once.

    `async with lock:` in a task, `with lock:` in a thread. Fair: handed straight to the longest
    waiting, and who releases it and wants it again queues behind. Not recursive; like asyncio's it
    has no owner, anybody may release it.

    >>> import homebound
    >>> lock = homebound.Lock()
    >>> async def main():
    ...     async with lock:
    ...         return lock.locked()
    >>> homebound.run(main())
    True
    >>> with lock:
    ...     lock.acquire_sync(timeout=0)
    False

    Called from: any thread.
    """

    __slots__ = (
        "_free",
        "_holder",  # who has taken it, where somebody watches; else unset. See _debug/holders.py
    )

    _holder: tuple[Any, bool, object] | None

    def __init__(self) -> None:
        # The token lies in here while nobody has the lock. Atomic operations; never more than one.
        self._free: deque[None] = deque([None], 1)
        super().__init__(self._free)

    async def acquire(self) -> bool:
        """Wait until it is ours; True.

        Called from: task.
        """
        if not self._acquire_now():
            await self._wait()
        return True

    def acquire_sync(self, timeout: float | None = None) -> bool:
        """Wait in this thread until it is ours, at most `timeout` seconds; False if it is not.

        A home's loop keeps turning meanwhile, as in `block_on`.

        Called from: any thread.
        """
        return self._acquire_now() or self._wait_sync(timeout) is not None

    def _acquire_now(self) -> bool:
        if self._free and not self._waiters:
            try:
                self._free.pop()
            except IndexError:
                return False
            return True
        return False

    def release(self) -> None:
        """Hand it to the longest waiting. Raises RuntimeError if nobody has it.

        Called from: any thread.
        """
        if self._free:
            raise RuntimeError("Lock is not acquired.")
        if self._waiters and self._hand_over():
            return
        self._free.append(None)
        if self._waiters:  # after the append: pairs with _join
            try:
                self._serve()
            except BaseException:
                _thread.start_new_thread(self._serve, ())
                raise

    def _hand_over(self) -> bool:
        """As appending the token and serving, in one: nobody can come between."""
        if self._guard._is_owned():
            return False
        with self._guard:
            if not self._waiters:
                return False
            waiter = self._waiters.popleft()
            waiter.granted = True
        try:
            if not waiter.wake():
                self._leave(waiter)
        except BaseException:
            _thread.start_new_thread(self._wake_rest, ([waiter],))
            raise
        return True

    def locked(self) -> bool:
        """True if somebody has it.

        Called from: any thread.
        """
        return not self._free

    def _take(self, _waiter: Waiter) -> bool:
        if not self._free:
            return False
        try:
            self._free.pop()
        except IndexError:
            return False
        return True

    def _give_back(self, _waiter: Waiter) -> None:
        self.release()

    def __aenter__(self) -> Awaitable[Any]:
        if self._free and not self._waiters:  # as _acquire_now, without the call
            try:
                self._free.pop()
            except IndexError:
                pass
            else:
                return DONE
        return self._enter_waiting()

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
        return "locked" if self.locked() else "unlocked"
