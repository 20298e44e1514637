"""IOThreadPool: several I/O threads, with work spread over them."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from itertools import count
from typing import TYPE_CHECKING, Any, Self

from .._core.current import current_context
from .._errors import ContextError
from .._os.clock import Deadline
from .io_thread import IOThread, _move_back

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import TracebackType

    from .._core.context import AioContext
    from .._core.task import Task


class IOThreadPool:
    """A pool of `n` I/O threads; `spawn` takes them in turn.

    >>> import homebound
    >>> async def work():
    ...     return homebound.current_context().name
    >>> with homebound.IOThreadPool(2, name="disk") as pool:
    ...     sorted(homebound.block_on(pool.spawn(work())) for _ in range(2))
    ['disk0', 'disk1']

    `options` are those of IOThread. Raises ValueError if `n` is less than 1.

    Called from: any thread.
    """

    def __init__(self, n: int, *, name: str = "io", **options: Any) -> None:
        if n < 1:
            message = f"IOThreadPool: n is {n}; it must be at least 1"
            raise ValueError(message)
        self._make: Callable[[], tuple[IOThread, ...]] = lambda: tuple(
            IOThread(f"{name}{index}", **options) for index in range(n)
        )
        self.threads: tuple[IOThread, ...] = self._make()
        self._turn: count[int] = count()
        self._came_from: AioContext | None = None  # as IOThread's

    def start(self) -> None:
        """Start all threads. If one fails, none is left running, and the pool can be started again.

        Called from: any thread.
        """
        try:
            with ExitStack() as stack:
                for thread in self.threads:
                    stack.enter_context(thread)
                stack.pop_all()
        except ContextError:
            raise  # the pool was started before
        except BaseException:
            self.threads = self._make()
            raise

    def next(self) -> IOThread:
        """Return the thread whose turn it is.

        Called from: any thread.
        """
        return self.threads[next(self._turn) % len(self.threads)]

    def spawn(self, coro: Coroutine[Any, Any, Any], **options: Any) -> Task[Any]:
        """Make a task of `coro` at home in the next thread. See AioContext.spawn.

        Called from: any thread.
        """
        return self.next().spawn(coro, **options)

    def stop(self, timeout: float | None = None) -> None:
        """Stop all threads. See IOThread.stop.

        Called from: any thread.
        """
        for thread in self.threads:
            thread._check_wait("stop")
        for thread in self.threads:
            thread._ask_to_stop()
        deadline = Deadline(timeout)
        try:
            for thread in self.threads:
                thread.join(deadline.timeout())
        except TimeoutError:
            for thread in self.threads:
                thread._bound_exit(timeout)
            raise

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        self._came_from = current_context()
        self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for thread in self.threads:
            await _move_back(thread, self._came_from)
        await asyncio.gather(*(thread.__aexit__(None, None, None) for thread in self.threads))
