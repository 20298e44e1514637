"""The base of Lock and Semaphore: acquiring takes a token from the stock, or waits for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .._os.arguments import no_timeout, refuses_timeout
from .holders import watched
from .wait_queue import DONE, WaitQueue

if TYPE_CHECKING:
    from types import CoroutineType

    from .waiters import Waiter

TOKEN = (None,)  # what is added to a stock in one step


class TokenQueue(WaitQueue):
    """A wait queue whose stock holds tokens. A subclass says how one is released."""

    __slots__ = ()

    @refuses_timeout
    async def acquire(self, blocking: None = None, timeout: None = None) -> bool:
        """Acquire it, waiting as long as it takes; True.

        Called from: task.
        """
        if blocking is not timeout:  # one of them is given
            raise no_timeout(self, "acquire")
        if not self._acquire_now():
            await self._wait()
        return True

    def acquire_sync(self, timeout: float | None = None) -> bool:
        """Acquire it in this thread, waiting at most `timeout` seconds; True if acquired.

        A home's loop keeps turning meanwhile, as in `block_on`.

        Called from: any thread.
        """
        return self._acquire_now() or self._wait_sync(timeout) is not None

    def release(self) -> None:
        """Release one token.

        Called from: any thread.
        """
        raise NotImplementedError

    def _acquire_now(self) -> bool:
        """Take a token without waiting, unless others wait."""
        if self._stock and not self._waiters:
            try:
                del self._stock[0]  # not pop: after a call, a signal handler could raise
            except IndexError:
                return False
            return True
        return False

    _plain_acquire_now = _acquire_now

    @watched(_acquire_now)
    def _watched_acquire_now(self) -> bool:
        if not self._plain_acquire_now():
            return False
        self._note_holder(scoped=False)
        return True

    def __aenter__(self) -> CoroutineType[Any, Any, None]:
        return DONE if self._acquire_now() else self._enter_waiting()  # type: ignore[return-value]

    @watched(__aenter__)
    def _watched_aenter(self) -> CoroutineType[Any, Any, None]:
        if not self._acquire_now():
            return self._enter_waiting()  # type: ignore[return-value]
        self._note_holder(scoped=True)
        return DONE

    async def _enter_waiting(self) -> None:
        await self._wait()

    @watched(_enter_waiting)
    async def _watched_enter_waiting(self) -> None:
        await self._wait()
        self._note_holder(scoped=True)

    def __aexit__(self, *_error: object) -> CoroutineType[Any, Any, None]:
        self.release()
        return DONE

    def __enter__(self) -> None:
        self.acquire_sync()

    @watched(__enter__)
    def _watched_enter(self) -> None:
        self.acquire_sync()
        self._note_holder(scoped=True)

    def __exit__(self, *_error: object) -> None:
        self.release()

    # For the watched twins.

    def _note_holder(self, *, scoped: bool) -> None:
        """Record that the caller has acquired it."""
        raise NotImplementedError

    def _note_waited_sync(self, _waiter: Waiter) -> None:
        self._note_holder(scoped=False)
