"""Waits that release what their `with` block holds, and acquire it again before they end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Reacquires:
    """A mixin for a lock or condition with such waits. The class has the slot `_unheld`.

    A wait that is cancelled or interrupted by Ctrl-C acquires again all the same, and raises that
    once it holds what the `with` block is going to release. A few waits end without: that of a
    coroutine that is closed, which cannot wait any more, one that would deadlock, or one that a
    signal handler ends. The exception that they raise leads out of the block, which then releases
    nothing: it has the lock as its attribute `unheld`.
    """

    __slots__ = ()

    # One entry for each wait that a close has ended, until its block has ended: each frame of a
    # coroutine that is closed gets a GeneratorExit of its own. Atomic operations.
    _unheld: list[None]

    async def _reacquire(self, acquire: Callable[[], Awaitable[object]]) -> None:
        """Acquire, whatever comes meanwhile; then raise that."""
        interrupt: BaseException | None = None
        while True:
            try:
                await acquire()
            except (asyncio.CancelledError, KeyboardInterrupt) as error:
                if not isinstance(interrupt, KeyboardInterrupt):
                    interrupt = error
                continue
            except BaseException as error:
                self._leads_out(error)
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
            except BaseException as error:
                self._leads_out(error)
                raise
            break
        if interrupt is not None:
            try:
                raise interrupt
            finally:
                del interrupt  # its traceback holds this frame

    def _leads_out(self, error: BaseException) -> None:
        """Note that an exception comes of a wait that ends without what its block is to hold."""
        if isinstance(error, GeneratorExit):
            self._unheld.append(None)
        else:
            error.unheld = self  # type: ignore[attr-defined]

    def _ends_unheld(self, error: BaseException) -> bool:
        """Return whether a block that this exception ends must release nothing."""
        if isinstance(error, GeneratorExit):
            try:
                self._unheld.pop()
            except IndexError:
                return False
            return True
        if getattr(error, "unheld", None) is not self:
            return False
        del error.unheld  # type: ignore[attr-defined]  # a block around it holds its own
        return True
