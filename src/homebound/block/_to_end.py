"""A blocking call in a worker, waited for until it ends even by a task that is cancelled.

The call uses the caller's buffer, and its write must not take effect after a later write to the
same range. So a cancelled operation lasts as long as its call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from .._sync.event import Event
from .._workers.to_worker import to_worker

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class _Call:
    __slots__ = ("_claim", "_fn", "ended")

    def __init__(self, fn: Callable[[], Any]) -> None:
        self._fn = fn
        # Popped by the worker that begins it, or by the task that gives it up: one of them gets it.
        self._claim: deque[None] = deque([None])
        self.ended = Event()  # set by the worker

    def claim(self) -> bool:
        """Take the right to begin the call, or to give it up; False if it was taken before."""
        try:
            self._claim.pop()
        except IndexError:
            return False
        return True

    def __call__(self) -> Any:
        if not self.claim():
            return None  # given up, so the result is not read
        try:
            return self._fn()
        finally:
            self.ended.set()


async def to_end(fn: Callable[[], T]) -> T:
    """Call `fn` in a worker. Cancelled after the call has begun, wait for its end, then raise."""
    call = _Call(fn)
    try:
        result: T = await to_worker(call)
    except asyncio.CancelledError:
        if not call.claim():
            await _until(call.ended)
        raise
    return result


async def close_in_worker(close: Callable[[], object]) -> None:
    """Call `close` in a worker, as it may block; here if none begins it, as in a home that ends."""
    begun = False

    def call() -> None:
        nonlocal begun
        begun = True
        close()

    try:
        await to_end(call)
    except BaseException:
        if not begun:
            close()
        raise


async def _until(event: Event) -> None:
    while not event.is_set():
        try:
            await event.wait()
        except asyncio.CancelledError:
            continue  # the caller raises one when the call has ended
