"""Condition: a lock, and a queue of waiters that have released it until they are notified."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from .._core.coroutines import check_callback, shown
from .._os.clock import Deadline
from .._os.surely import surely
from .._threads.block_on import block_on
from .lock import Lock
from .reacquire import Reacquires
from .wait_queue import DONE, WaitQueue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import CoroutineType

    from .waiters import Waiter

T = TypeVar("T")


def _no_lock(lock: Any) -> TypeError:
    """Return the error for a lock that not all loops and threads can wait for."""
    if isinstance(lock, type):
        return TypeError(f"Condition: the lock is {shown(lock)}; call it: it makes one")
    kind = f"{type(lock).__module__}.{type(lock).__name__}"
    return TypeError(
        f"Condition: the lock is of type {kind}; it must be a homebound.Lock, for which tasks of "
        "all loops and threads can wait"
    )


class Condition(Reacquires, WaitQueue):
    """asyncio.Condition for tasks of any loop and for threads, all at once.

    `lock` is the Lock it uses, by default a new one. A waiter holds it again when its wait is over,
    however the wait ended. A notification for a waiter that is cancelled goes to the next one.

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

    def __init__(self, lock: Lock | None = None, *, name: str | None = None) -> None:
        super().__init__(name=name)
        if not isinstance(lock, Lock) and lock is not None:
            raise _no_lock(lock)
        self._lock: Lock = Lock() if lock is None else lock
        self.acquire: Callable[[], Awaitable[bool]] = self._lock.acquire
        self.acquire_sync: Callable[..., bool] = self._lock.acquire_sync
        self.locked: Callable[[], bool] = self._lock.locked
        self._unheld: list[None] = []

    def release(self) -> None:
        """Release the lock.

        Called from: any thread.
        """
        self._lock.release()

    def _must_hold(self, what: str) -> None:
        if not self.locked():
            message = (
                f"{self._titled()}: cannot {what} on un-acquired lock; call it in "
                "`async with condition:`, or in a thread in `with condition:`"
            )
            raise RuntimeError(message)

    async def wait(self) -> bool:
        """Release the lock until notified, and acquire it again; True.

        If cancelled, it holds the lock again before CancelledError is raised. Raises RuntimeError
        if the lock is free.

        Called from: task.
        """
        self._must_hold("wait")
        try:
            await self._wait(joined=self.release)
        except GeneratorExit as error:
            self._leads_out(error)
            raise
        except BaseException:
            await self._reacquire(self.acquire)
            raise
        try:
            await self._reacquire(self.acquire)
        except BaseException:
            self._notify(1)  # it was notified, but will not look: notify the next one
            raise
        return True

    async def wait_for(self, predicate: Callable[[], T]) -> T:
        """Wait until `predicate()`, called with the lock held, is true; returns its result.

        Called from: task.
        """
        check_callback("Condition.wait_for", predicate)
        result = predicate()
        while not result:
            await self.wait()
            result = predicate()
        return result

    def wait_sync(self, timeout: float | None = None) -> bool:
        """Release the lock in this thread until notified; False after `timeout` seconds.

        It holds the lock again when it returns. A home's loop keeps turning meanwhile, as in
        `block_on`. Raises RuntimeError if the lock is free.

        Called from: any thread.
        """
        self._must_hold("wait")
        if self._turns_home():
            try:
                return bool(block_on(self.wait(), timeout=timeout))
            except TimeoutError:
                return False
        waiter: Waiter | None = None
        try:
            waiter = self._wait_parked(timeout, joined=self.release)
        finally:
            try:
                self._reacquire_sync(self.acquire_sync)
            except BaseException:
                if waiter is not None:  # it was notified, but will not look: notify the next one
                    self._notify(1)
                raise
        return waiter is not None

    def wait_for_sync(self, predicate: Callable[[], T], timeout: float | None = None) -> T:
        """Do `wait_for` in this thread, at most `timeout` seconds; returns the last result.

        Called from: any thread.
        """
        check_callback("Condition.wait_for_sync", predicate)
        deadline = Deadline(timeout)
        result = predicate()
        while not result and not deadline.over():
            self.wait_sync(deadline.timeout())
            result = predicate()
        return result

    def notify(self, n: int = 1) -> None:
        """Notify the `n` waiters that have waited longest. Raises RuntimeError if the lock is free.

        Called from: any thread.
        """
        self._must_hold("notify")
        self._notify(n)

    def notify_all(self) -> None:
        """Notify all waiters. Raises RuntimeError if the lock is free.

        Called from: any thread.
        """
        self._must_hold("notify")
        self._notify(len(self._waiters))

    def _notify(self, n: int) -> None:
        if self._guard._is_owned():  # in a finaliser
            self._later(self._notify, n)
            return
        surely(self._notify_first, n, [])

    def _notify_first(self, n: int, woken: list[Waiter]) -> None:
        with self._guard:
            self._grant(woken, n)
        self._wake_all(woken)

    def _take(self, _waiter: Waiter) -> bool:
        return False  # only a notification ends a wait

    def _leave(self, waiter: Waiter) -> None:
        if self._guard._is_owned():  # in a finaliser
            self._later(self._leave, waiter)
            return
        surely(self._pass_on, waiter, [])

    def _pass_on(self, waiter: Waiter, woken: list[Waiter]) -> None:
        """Withdraw a waiter, or notify the next one in its place. See `surely`."""
        if not self._withdraw(waiter):
            with self._guard:
                if not waiter.left:
                    self._grant(woken, 1)
                    waiter.left = True
            self._wake_all(woken)

    def __aenter__(self) -> CoroutineType[Any, Any, None]:
        return self._lock.__aenter__()

    def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: object
    ) -> CoroutineType[Any, Any, None]:
        if error is None or not self._ends_unheld(error):
            self._lock.release()
        return DONE

    def __enter__(self) -> None:
        self._lock.__enter__()

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: object
    ) -> None:
        if error is None or not self._ends_unheld(error):
            self._lock.release()

    def _describe(self) -> str:
        return "locked" if self.locked() else "unlocked"
