"""Lock: one token, and a queue of waiters for it."""

from __future__ import annotations

from _thread import start_new_thread as start_thread
from collections import deque
from typing import TYPE_CHECKING, Any

from .holders import all_known, record_of, record_of_caller, watched
from .tokens import TOKEN, TokenQueue
from .wait_queue import DONE, WaitQueue

if TYPE_CHECKING:
    from types import CoroutineType

    from .holders import Record
    from .waiters import Waiter


_NOT_ACQUIRED = (
    "is not acquired, and cannot be released: `await lock.acquire()` in a task, "
    "lock.acquire_sync() in a thread"
)


class Lock(TokenQueue):
    """asyncio.Lock for tasks of any loop and for threads, all at once.

    `async with lock:` in a task, `with lock:` in a thread. Fair: it is handed over to the waiter
    that has waited longest, and a task that releases it and acquires it again queues behind the
    others. Like asyncio's, it has no owner: any task or thread may release it. So it is not
    recursive: a task or thread that holds it and acquires it again waits for a release by another
    one, in most programs forever. `watch_stalls` reports that, by the `name`.

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
        "_holder",  # a record of its holder, kept while a watch is on; else unset. See holders.py
    )

    _holder: Record | None
    _shows_holders = True

    def __init__(self, *, name: str | None = None) -> None:
        # Holds the token while the lock is free, never more than one. Atomic operations.
        self._free: deque[None] = deque([None], 1)
        super().__init__(self._free, name=name)

    def release(self) -> None:
        """Release it, or hand it over to the next waiter. Raises RuntimeError if it is free.

        Called from: any thread.
        """
        if self._free:
            raise RuntimeError(f"{self._titled()} {_NOT_ACQUIRED}")
        if self._waiters and self._hand_over():
            return
        try:
            self._free.append(None)
            if self._waiters:  # after the append: pairs with _join
                self._serve()
        except BaseException:
            try:
                self._serve()
            except BaseException:  # noqa: BLE001  (surely.py)
                start_thread(self._serve, ())
            raise

    _plain_release = release

    @watched(release)
    def _watched_release(self) -> None:
        self._holder = None
        self._plain_release()

    def _hand_over(self) -> bool:
        """Append the token and serve, in one step, so that no other caller comes in between."""
        if self._guard._is_owned():
            return False
        waiters = self._waiters
        waiter: Waiter | None = None
        try:
            with self._guard:
                if not waiters or waiters[0].granted:  # `_serve` wakes one that is granted
                    return False
                waiter = waiters[0]
                waiter.granted = True
                waiters.popleft()
            if not waiter.wake():
                self._leave(waiter)
        except BaseException:
            try:
                self._finish(waiter)
            except BaseException:  # noqa: BLE001  (surely.py)
                start_thread(self._finish, (waiter,))
            raise
        return True

    @watched(_hand_over)
    def _watched_hand_over(self) -> bool:
        return False  # so that `_serve` does it, by way of `_take`, which records the holder

    def locked(self) -> bool:
        """Return True while it is held.

        Called from: any thread.
        """
        return not self._free

    def _take(self, waiter: Waiter) -> bool:
        if not self._free:
            return False
        try:
            del self._free[0]  # not pop: see WaitQueue._take
            waiter.granted = True
        except IndexError:
            return False
        return True

    @watched(_take)
    def _watched_take(self, waiter: Waiter) -> bool:
        if not self._free:
            return False
        record = record_of(waiter)
        try:
            del self._free[0]
            self._holder = record  # first: once granted, it may release the lock
            waiter.granted = True
        except IndexError:
            return False
        return True

    def _give_back(self, waiter: Waiter) -> None:
        self._free += TOKEN  # not by a call: see WaitQueue._take
        waiter.left = True

    def __aenter__(self) -> CoroutineType[Any, Any, None]:
        if self._free and not self._waiters:  # as _acquire_now, without the call
            try:
                del self._free[0]  # not pop: after a call, a signal handler could raise
            except IndexError:
                pass
            else:
                return DONE
        return self._enter_waiting()  # type: ignore[return-value]

    @watched(__aenter__)
    def _watched_aenter(self) -> CoroutineType[Any, Any, None]:
        if not self._plain_acquire_now():
            return self._enter_waiting()  # type: ignore[return-value]
        self._note_holder(scoped=True)
        return DONE

    def _note_holder(self, *, scoped: bool) -> None:
        self._holder = record_of_caller(scoped=scoped)

    def _known_holders(self, _want: Any) -> tuple[Record, ...]:
        record = getattr(self, "_holder", None)
        if record is None or self._free:
            return ()
        return (record,) if all_known((record,), 1) else ()

    def _held_inside(self, manager: object, _want: Any) -> bool:
        condition = manager if isinstance(manager, WaitQueue) else None
        return manager is self or getattr(condition, "_lock", None) is self

    def _describe(self) -> str:
        return "locked" if self.locked() else "unlocked"
