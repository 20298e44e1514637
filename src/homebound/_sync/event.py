"""Event: a flag, and a queue of waiters for it. All under the guard, as setting it is rare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._os.surely import surely
from .wait_queue import WaitQueue

if TYPE_CHECKING:
    from .waiters import Waiter


class Event(WaitQueue):
    """asyncio.Event for tasks of any loop and for threads, all at once.

    >>> import homebound
    >>> event = homebound.Event()
    >>> async def main(io):
    ...     io.context.call_soon(event.set)
    ...     return await event.wait()
    >>> with homebound.IOThread("io0") as io:
    ...     homebound.run(main(io)), event.wait_sync(timeout=0)
    (True, True)

    Called from: any thread.
    """

    __slots__ = ("_value",)

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self._value = False  # written under the guard, read by all

    def is_set(self) -> bool:
        """Return True while it is set.

        Called from: any thread.
        """
        return self._value

    def set(self) -> None:
        """Set it, and wake all waiters; they go on even if it is cleared at once.

        Called from: any thread.
        """
        if self._waiters and self._guard._is_owned():  # in a finaliser
            self._value = True
            self._later(self._serve)
            return
        if self._waiters:
            surely(self._set, [])
            return
        with self._guard:  # the usual case: one store, which is made or not, so no `surely`
            if not self._waiters:  # no waiter to serve: one store does it
                self._value = True
                return
        surely(self._set, [])

    def _set(self, woken: list[Waiter]) -> None:
        with self._guard:
            self._value = True
            self._grant(woken)
        self._wake_all(woken)

    def clear(self) -> None:
        """Reset it: later calls of `wait` wait for the next `set`.

        Called from: any thread.
        """
        self._value = False

    async def wait(self) -> bool:
        """Wait until it is set; True.

        Called from: task.
        """
        if not self._value:
            await self._wait()
        return True

    def wait_sync(self, timeout: float | None = None) -> bool:
        """Wait in this thread until it is set, at most `timeout` seconds; True if it was.

        A home's loop keeps turning meanwhile, as in `block_on`.

        Called from: any thread.
        """
        return self._value or self._wait_sync(timeout) is not None

    def _take(self, waiter: Waiter) -> bool:
        waiter.granted = self._value
        return waiter.granted

    def _give_back(self, waiter: Waiter) -> None:
        """Give back nothing: a wait does not use an event up."""
        waiter.left = True

    def _describe(self) -> str:
        return "set" if self._value else "unset"
