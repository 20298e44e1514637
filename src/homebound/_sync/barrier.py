"""Barrier: the last waiter of a group releases it. The next group forms once all have left."""

from __future__ import annotations

from asyncio import BrokenBarrierError
from typing import TYPE_CHECKING, Any

from .._os.clock import Deadline
from .._os.counts import check_count
from .._os.surely import surely
from .wait_queue import DONE, WaitQueue

if TYPE_CHECKING:
    from types import CoroutineType

    from .waiters import Waiter


FILLING, DRAINING, RESETTING, BROKEN = "filling", "draining", "resetting", "broken"
INSIDE = object()  # the `want` of a waiter that is counted
GONE = object()  # that of one that is counted no more


class Barrier(WaitQueue):
    """asyncio.Barrier for tasks of any loop and for threads, all at once.

    Raises ValueError unless `parties` is above 0.

    >>> import asyncio, homebound
    >>> async def main():
    ...     barrier = homebound.Barrier(2)
    ...     return await asyncio.gather(barrier.wait(), barrier.wait())
    >>> homebound.run(main())
    [0, 1]

    Called from: any thread.
    """

    __slots__ = ("_count", "_parties", "_state")

    def __init__(self, parties: int, *, name: str | None = None) -> None:
        check_count("Barrier: parties", parties, 1)
        super().__init__(name=name)
        self._parties = parties
        # Under the guard. While a group leaves, new waiters stay outside: queued, not counted.
        self._state = FILLING
        self._count = 0  # how many are inside: waiting, or released and not gone yet

    @property
    def parties(self) -> int:
        """The number of waiters that pass together.

        Called from: any thread.
        """
        return self._parties

    @property
    def n_waiting(self) -> int:
        """The number of waiters that wait for the rest of their group.

        Called from: any thread.
        """
        return self._count if self._state == FILLING else 0

    @property
    def broken(self) -> bool:
        """True after `abort`, until `reset`.

        Called from: any thread.
        """
        return self._state == BROKEN

    async def wait(self) -> int:
        """Wait for `parties` to be waiting; returns a number of its own, from 0 to parties - 1.

        A cancelled wait is no longer counted. Raises asyncio.BrokenBarrierError if the barrier is
        or becomes broken, or is reset meanwhile.

        Called from: task.
        """
        number = None
        while number is None:
            waiter = await self._wait()
            try:
                number = self._pass(waiter)
            except BaseException:
                self._exit(waiter)
                raise
        return number

    def wait_sync(self, timeout: float | None = None) -> int:
        """Do `wait` in this thread; after `timeout` seconds, TimeoutError, and it is not counted.

        A home's loop keeps turning meanwhile, as in `block_on`.

        Called from: any thread.
        """
        deadline = Deadline(timeout)
        number = None
        while number is None:
            waiter = self._wait_sync(deadline.timeout())
            if waiter is None:
                message = (
                    f"{self._titled()}: {self._parties} parties were not there after {timeout} s; "
                    "this one is not counted any more"
                )
                raise TimeoutError(message)
            try:
                number = self._pass(waiter)
            except BaseException:
                self._exit(waiter)
                raise
        return number

    async def reset(self) -> None:
        """Return it to its initial state; current waits raise asyncio.BrokenBarrierError.

        Called from: task.
        """
        self._reset()

    def reset_sync(self) -> None:
        """Do `reset` in a thread, without waiting.

        Called from: any thread.
        """
        self._reset()

    async def abort(self) -> None:
        """Break it: current and later waits raise asyncio.BrokenBarrierError, until `reset`.

        Called from: task.
        """
        self._abort()

    def abort_sync(self) -> None:
        """Do `abort` in a thread, without waiting.

        Called from: any thread.
        """
        self._abort()

    def _reset(self) -> None:
        if self._guard._is_owned():  # in a finaliser
            self._later(self._reset)
            return
        surely(self._change, RESETTING, [])

    def _abort(self) -> None:
        if self._guard._is_owned():  # in a finaliser
            self._later(self._abort)
            return
        surely(self._change, BROKEN, [])

    def _change(self, state: str, woken: list[Waiter]) -> None:
        """End the waits: RESETTING, of the waiters inside; BROKEN, of all. See `surely`."""
        with self._guard:
            if state is BROKEN:
                self._state = BROKEN
                self._grant(woken)
            else:
                self._state = state if self._count else FILLING
                self._let_go(woken)
        self._wake_all(woken)

    def _join(self, waiter: Waiter) -> bool:
        surely(self._come, waiter, [])
        return waiter.granted

    def _come(self, waiter: Waiter, woken: list[Waiter]) -> None:
        """Queue a waiter and count it; the last of a group releases it. See `surely`."""
        with self._guard:
            if not waiter.granted and waiter not in self._waiters:
                self._waiters.append(waiter)
            if self._state == FILLING and waiter.want is not INSIDE:
                waiter.value = self._count
                waiter.want = INSIDE  # no call between this and the count
                self._count += 1
                if self._count == self._parties:
                    self._state = DRAINING
            if self._state == BROKEN:
                self._grant(woken)
            else:
                self._let_go(woken)
        self._wake_all([each for each in woken if each is not waiter])

    def _let_go(self, woken: list[Waiter]) -> None:
        """Grant the waiters inside if they are to leave; adds them to `woken`. Under the guard."""
        if self._state == FILLING:
            return
        for waiter in tuple(self._waiters):
            if waiter.want is INSIDE:
                woken.append(waiter)
                waiter.granted = True
                self._waiters.remove(waiter)

    def _pass(self, waiter: Waiter) -> int | None:
        """End a wait: returns its number, or raises; None if it was outside and may try again."""
        inside = waiter.want is INSIDE
        state = self._exit(waiter)
        if not inside:
            if state == BROKEN:
                message = f"{self._titled()} aborted: nothing passes it before a reset()"
                raise BrokenBarrierError(message)
            return None
        number: int = waiter.value
        if state in (BROKEN, RESETTING) and number + 1 < self._parties:
            message = f"{self._titled()}: abort or reset of it while this waited"
            raise BrokenBarrierError(message)
        return number

    def _exit(self, waiter: Waiter) -> str:
        """Take it out of the group, once; returns the state before.

        After the last, let outsiders try. As in asyncio, they enter one by one as they run, so a
        `reset` before that affects none.
        """
        states: list[str] = []
        surely(self._count_out, waiter, states, [])
        return states[0]

    def _count_out(self, waiter: Waiter, states: list[str], woken: list[Waiter]) -> None:
        with self._guard:
            states.append(self._state)
            if waiter.want is INSIDE:
                waiter.want = GONE  # no call between this and the count
                self._count -= 1
            if not self._count and self._state in (DRAINING, RESETTING):
                self._grant(woken)
                self._state = FILLING
        self._wake_all(woken)

    def _withdraw(self, waiter: Waiter) -> bool:
        withdrawn = super()._withdraw(waiter)
        if waiter.left:
            self._exit(waiter)
        return withdrawn

    def _go(self, waiter: Waiter) -> None:
        if not self._withdraw(waiter):
            self._give_back(waiter)

    def _take(self, _waiter: Waiter) -> bool:
        return False  # only the last waiter of a group ends a wait

    def _give_back(self, waiter: Waiter) -> None:
        self._exit(waiter)
        waiter.left = True

    def __aenter__(self) -> CoroutineType[Any, Any, int]:
        return self.wait()  # type: ignore[return-value]

    def __aexit__(self, *_error: object) -> CoroutineType[Any, Any, None]:
        return DONE

    def __enter__(self) -> int:
        return self.wait_sync()

    def __exit__(self, *_error: object) -> None:
        """Do nothing: there is nothing to release."""

    def __repr__(self) -> str:
        return f"<{self._shown()} [{self._describe()}]>"

    def _describe(self) -> str:
        inside = "" if self.broken else f", waiters:{self.n_waiting}/{self.parties}"
        return self._state + inside
