"""Waits that release what their `with` block holds, and acquire it again before they end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .._errors import WouldDeadlock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Reacquires:
    """A mixin for a lock or condition with such waits. The class has the slot `_unheld`.

    A wait that is cancelled or interrupted by Ctrl-C acquires again all the same, and raises that
    once it holds what the `with` block is going to release. Two waits end without: that of a
    coroutine that is closed, which cannot wait any more, and one that would deadlock. The exception
    that they raise leads out of the block, which then releases nothing.
    """

    __slots__ = ()

    # One entry for each wait that has ended without holding anything, until its block has ended.
    # Atomic operations.
    _unheld: list[None]

    async def _reacquire(self, acquire: Callable[[], Awaitable[object]]) -> None:
        """Acquire, whatever comes meanwhile; then raise the last of that."""
        interrupt: BaseException | None = None
        while True:
            try:
                await acquire()
            except (asyncio.CancelledError, KeyboardInterrupt) as error:
                interrupt = error
                continue
            except GeneratorExit:
                self._unheld.append(None)
                raise
            break
        if interrupt is not None:
            try:
                raise interrupt
            finally:
                del interrupt  # its traceback holds this frame

    def _reacquire_sync(self, acquire: Callable[[], object]) -> None:
        """Do `_reacquire` in this thread."""
        interrupt: BaseException | None = None
        while True:
            try:
                acquire()
            except KeyboardInterrupt as error:
                interrupt = error
                continue
            except WouldDeadlock:
                self._unheld.append(None)
                raise
            break
        if interrupt is not None:
            try:
                raise interrupt
            finally:
                del interrupt  # its traceback holds this frame

    def _ends_unheld(self, kind: type[BaseException]) -> bool:
        """Return whether a block that an exception of this kind ends must release nothing."""
        if kind is not GeneratorExit and kind is not WouldDeadlock:
            return False
        try:
            self._unheld.pop()
        except IndexError:
            return False
        return True
