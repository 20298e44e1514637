"""Condition: a lock, and a queue of those who gave it up until they are notified."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from .._core.current import current_context
from .._os.clock import Deadline
from .._threads.block_on import block_on
from .lock import Lock
from .wait_queue import DONE, WaitQueue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .waiters import Waiter

T = TypeVar("T")


class Condition(WaitQueue):
    """asyncio.Condition for tasks of any loop and for threads, all at once.

    `lock` is the Lock it goes with, by default one of its own. Who waits has it again when the wait
    is over, however it ended. A notification that reaches somebody who is cancelled goes on to the
    next.

    >>> import asyncio, homebound
    >>> async def main():
    ...     condition, box = homebound.Condition(), []
    ...     async def taker():
    ...         async with condition:
    ...             await condition.wait_for(lambda: box)
    ...             return box.pop()
    ...     taken = asyncio.create_task(taker())
    ...     await asyncio.sleep(0)
    ...     async with condition:
    ...         box.append("thing")
    ...         condition.notify()
    ...     return await taken
    >>> homebound.run(main())
    'thing'

    Called from: any thread.
    """

    __slots__ = ("_lock", "_unheld", "acquire", "acquire_sync", "locked")

    def __init__(self, lock: Lock | None = None) -> None:
        super().__init__()
        self._lock: Any = Lock() if lock is None else lock
        self.acquire: Callable[[], Awaitable[bool]] = self._lock.acquire
        self.acquire_sync: Callable[..., bool] = getattr(self._lock, "acquire_sync", None)  # type: ignore[assignment]
        self.locked: Callable[[], bool] = self._lock.locked
        # One entry for each wait that was closed without having the lock again. Atomic operations.
        self._unheld: list[None] = []

    def release(self) -> None:
        """Release the lock.

        Called from: any thread.
        """
        self._lock.release()

    def _must_hold(self, what: str) -> None:
        if not self.locked():
            raise RuntimeError(f"cannot {what} on un-acquired lock")

    async def wait(self) -> bool:
        """Give up the lock until notified, and take it again; True.

        Cancelled, it has the lock again before CancelledError is raised. Raises RuntimeError if
        nobody has the lock.

        Called from: task.
        """
        self._must_hold("wait")
        try:
            try:
                waiter = await self._wait(joined=self.release)
            except GeneratorExit:
                raise
            except BaseException:
                await self._reacquire(None)
                raise
            await self._reacquire(waiter)
        except GeneratorExit:  # it can wait for nothing more: it must not release what it has not
            self._unheld.append(None)
            raise
        return True

    async def _reacquire(self, waiter: Waiter | None) -> None:
        cancelled: BaseException | None = None
        while True:
            try:
                await self.acquire()
                break
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            if waiter is not None:  # notified, and it will not look: the next one should
                self._notify(1)
            try:
                raise cancelled
            finally:
                del cancelled  # its traceback holds this frame

    async def wait_for(self, predicate: Callable[[], T]) -> T:
        """Wait until `predicate()` is true, which is asked with the lock held; what it returned.

        Called from: task.
        """
        result = predicate()
        while not result:
            await self.wait()
            result = predicate()
        return result

    def wait_sync(self, timeout: float | None = None) -> bool:
        """Give up the lock in this thread until notified, at most `timeout` seconds; if it was.

        It has the lock again when it returns. A home's loop keeps turning meanwhile, as in
        `block_on`. Raises RuntimeError if nobody has the lock.

        Called from: any thread.
        """
        self._must_hold("wait")
        if current_context() is not None:
            try:
                return bool(block_on(self.wait(), timeout=timeout))
            except TimeoutError:
                return False
        try:
            return self._wait_parked(timeout, joined=self.release) is not None
        finally:
            self._reacquire_parked()

    def _reacquire_parked(self) -> None:
        interrupt: BaseException | None = None
        while True:
            try:
                self.acquire_sync()
                break
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt

    def wait_for_sync(self, predicate: Callable[[], T], timeout: float | None = None) -> T:
        """`wait_for` in this thread, at most `timeout` seconds; what `predicate()` last returned.

        Called from: any thread.
        """
        deadline = Deadline(timeout)
        result = predicate()
        while not result and not deadline.over():
            self.wait_sync(deadline.timeout())
            result = predicate()
        return result

    def notify(self, n: int = 1) -> None:
        """Wake the `n` that have waited longest. Raises RuntimeError if nobody has the lock.

        Called from: any thread.
        """
        self._must_hold("notify")
        self._notify(n)

    def notify_all(self) -> None:
        """Wake everyone who waits. Raises RuntimeError if nobody has the lock.

        Called from: any thread.
        """
        self._must_hold("notify")
        self._notify(len(self._waiters))

    def _notify(self, n: int) -> None:
        if self._guard._is_owned():  # in a finaliser
            self._later(self._notify, n)
            return
        with self._guard:
            woken = [self._waiters.popleft() for _ in range(min(n, len(self._waiters)))]
            for waiter in woken:
                waiter.granted = True
        self._wake_all(woken)

    def _take(self, _waiter: Waiter) -> bool:
        return False  # only a notification ends a wait

    def _give_back(self, _waiter: Waiter) -> None:
        self._notify(1)

    def __aenter__(self) -> Awaitable[Any]:
        return self._lock.__aenter__()  # type: ignore[no-any-return]

    def __aexit__(self, kind: type[BaseException] | None, *_error: object) -> Awaitable[None]:
        if kind is GeneratorExit and self._unheld:
            self._unheld.pop()
        else:
            self._lock.release()
        return DONE

    def __enter__(self) -> None:
        self._lock.__enter__()

    def __exit__(self, *_error: object) -> None:
        self._lock.release()

    def _describe(self) -> str:
        return "locked" if self.locked() else "unlocked"
