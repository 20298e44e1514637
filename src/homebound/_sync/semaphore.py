"""Semaphores: permits in a deque, and a queue of waiters for them."""

from __future__ import annotations

from _thread import start_new_thread as start_thread
from collections import deque
from itertools import repeat
from typing import TYPE_CHECKING, Any

from .._os.counts import check_count
from .holders import SharedHold, all_known, record_of_caller, watched
from .tokens import TOKEN, TokenQueue
from .wait_queue import DONE

if TYPE_CHECKING:
    from types import CoroutineType

    from .holders import Record
    from .waiters import Waiter

MOST = 1024  # permits in the deque at first: a semaphore of a million is not a million entries


class Semaphore(SharedHold, TokenQueue):
    """asyncio.Semaphore for tasks of any loop and for threads, all at once.

    `async with semaphore:` in a task, `with semaphore:` in a thread. A permit is handed over to the
    waiter that has waited longest. Raises ValueError for a `value` below 0.

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
        "_holders",  # records of its holders, kept while a watch is on; else unset. See holders.py
        "_initial",
        "_permits",
        "_reserve",
    )

    def __init__(self, value: int = 1, *, name: str | None = None) -> None:
        check_count("Semaphore: the initial value", value, 0)
        self._initial = value  # constant
        now = min(value, MOST)
        # One None for each free permit. Atomic operations.
        self._permits: deque[None] = deque(repeat(None, now))
        self._reserve = value - now  # free too, but not in the deque yet. Under the guard
        super().__init__(self._permits, name=name)

    @property
    def _value(self) -> int:
        return len(self._permits) + self._reserve

    def release(self) -> None:
        """Release a permit, or hand it over to the next waiter.

        Called from: any thread.
        """
        try:
            self._permits.append(None)
            if self._waiters:  # after the append: pairs with _join
                self._serve()
        except BaseException:
            try:
                self._serve()
            except BaseException:  # noqa: BLE001  (surely.py)
                start_thread(self._serve, ())
            raise

    def locked(self) -> bool:
        """Return True if `acquire` would have to wait now.

        Called from: any thread.
        """
        return not self._value or bool(self._waiters)

    def _take(self, waiter: Waiter) -> bool:
        if not self._permits:
            self._lay_out()
        try:
            del self._permits[0]  # not pop: see WaitQueue._take
            waiter.granted = True
        except IndexError:
            return False
        return True

    def _lay_out(self) -> None:
        """Move permits of the reserve, if there are any, into the deque. Under the guard."""
        permits = self._permits
        more = min(self._reserve, MOST)
        marks = repeat(None, more)
        # No call between the two, after which a signal handler could raise.
        permits += marks
        self._reserve -= more

    def _give_back(self, waiter: Waiter) -> None:
        self._permits += TOKEN  # not by a call: see WaitQueue._take
        waiter.left = True

    # Any task or thread may release a permit, so only holders that use `with` are recorded, and
    # `release` has no twin: the exits have.

    def __aexit__(self, *_error: object) -> CoroutineType[Any, Any, None]:
        self.release()
        return DONE

    @watched(__aexit__)
    def _watched_aexit(self, *_error: object) -> CoroutineType[Any, Any, None]:
        self._forget_holder()
        self.release()
        return DONE

    def __exit__(self, *_error: object) -> None:
        self.release()

    @watched(__exit__)
    def _watched_exit(self, *_error: object) -> None:
        self._forget_holder()
        self.release()

    def _note_holder(self, *, scoped: bool) -> None:
        if scoped:
            with self._guard:
                self._holder_list().add(record_of_caller(scoped=True))

    def _forget_holder(self) -> None:
        """Remove the caller's record; it is about to release."""
        with self._guard:
            self._holder_list().drop(record_of_caller(scoped=False)[0])

    def _known_holders(self, _want: Any) -> tuple[Record, ...]:
        known = self._recorded()
        return known if not self._value and all_known(known, self._initial) else ()

    def _describe(self) -> str:
        return "locked" if self.locked() else f"unlocked, value:{self._value}"


class BoundedSemaphore(Semaphore):
    """A Semaphore whose value never exceeds its initial value.

    Called from: any thread.
    """

    __slots__ = ()

    # So that errors about arguments name this class.
    def __init__(self, value: int = 1, *, name: str | None = None) -> None:
        super().__init__(value, name=name)

    def release(self) -> None:
        """Release a permit, or hand it over. Raises ValueError if none has been acquired.

        Called from: any thread.
        """
        try:
            with self._guard:  # checked and released in one region
                if self._value >= self._initial:
                    message = (
                        f"{self._titled()} released too many times: it has all {self._initial} "
                        "permits already"
                    )
                    raise ValueError(message)  # noqa: TRY301
                self._permits.append(None)
            if self._waiters:  # after the append: pairs with _join
                self._serve()
        except BaseException:
            try:
                self._serve()
            except BaseException:  # noqa: BLE001  (surely.py)
                start_thread(self._serve, ())
            raise
