"""IOThreadPool: several I/O threads, with work spread over them."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import ExitStack
from itertools import count
from typing import TYPE_CHECKING, Any, Never, ParamSpec, Self, TypeVar

from .._core.coroutines import check_async, one_coroutine
from .._core.current import current_context
from .._errors import ContextError
from .._os.arguments import checked_name, hides_more
from .._os.clock import Deadline
from .._os.counts import check_count
from .._os.no_copy import refuse_threaded_copy
from .block_on import block_on
from .io_thread import IOThread, _move_back

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable, Coroutine, Iterable, Iterator
    from contextvars import Context
    from types import TracebackType

    from .._core.context import AioContext
    from .._core.task import Task


P = ParamSpec("P")
T = TypeVar("T")


class IOThreadPool:
    """A pool of `n` I/O threads; `spawn` takes them in turn.

    >>> import homebound
    >>> async def work():
    ...     return homebound.current_context().name
    >>> with homebound.IOThreadPool(2, name="disk") as pool:
    ...     sorted(homebound.block_on(pool.spawn(work())) for _ in range(2))
    ['disk0', 'disk1']

    The other options are those of IOThread. Raises ValueError if `n` is less than 1.

    Called from: any thread.
    """

    def __init__(  # noqa: PLR0913  (IOThread's options)
        self,
        n: int,
        *,
        name: str = "io",
        loop_factory: Callable[[], AbstractEventLoop] | None = None,
        poll_max_ns: int = 0,
        poll_grow: int = 0,
        poll_shrink: int = 0,
    ) -> None:
        check_count("IOThreadPool: n", n, 1)
        self._make: Callable[[], tuple[IOThread, ...]] = lambda: tuple(
            IOThread(
                f"{name}{index}",
                loop_factory=loop_factory,
                poll_max_ns=poll_max_ns,
                poll_grow=poll_grow,
                poll_shrink=poll_shrink,
            )
            for index in range(n)
        )
        self.name: str = checked_name(self, name)
        # Replaced by as many others if a start fails.
        self.threads: tuple[IOThread, ...] = self._make()
        self._turn: count[int] = count()
        self._came_from: AioContext | None = None  # as IOThread's

    def start(self) -> Self:
        """Start all threads, and return the pool.

        If one fails, none is left running, and the pool can be started again.

        Called from: any thread.
        """
        if any(thread._started for thread in self.threads):
            message = f"{self!r} was started before; make another one"
            raise ContextError(message)
        try:
            with ExitStack() as stack:
                for thread in self.threads:
                    stack.enter_context(thread)
                stack.pop_all()
        except BaseException:
            self.threads = self._make()
            raise
        return self

    def __len__(self) -> int:
        return len(self.threads)

    def __iter__(self) -> Iterator[IOThread]:
        return iter(self.threads)

    def next(self) -> IOThread:
        """Return the thread whose turn it is.

        Called from: any thread.
        """
        return self.threads[next(self._turn) % len(self.threads)]

    @hides_more
    def spawn(
        self,
        coro: Coroutine[Any, Any, T],
        *more: Never,
        name: str | None = None,
        context: Context | None = None,
    ) -> Task[T]:
        """Make a task of `coro` at home in the next thread. See AioContext.spawn.

        Called from: any thread.
        """
        if more:
            raise one_coroutine("spawn", coro, more)
        return self.next().spawn(coro, name=name, context=context)

    def spawn_each(
        self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> list[Task[T]]:
        """Call an `async def` once for each thread; return the tasks, one at home in each.

        >>> import asyncio, homebound
        >>> async def where():
        ...     return homebound.running_context().name
        >>> async def main(pool):
        ...     return await asyncio.gather(*pool.spawn_each(where))
        >>> with homebound.IOThreadPool(2, name="web") as pool:
        ...     homebound.run(main(pool))
        ['web0', 'web1']

        Called from: any thread.
        """
        check_async("IOThreadPool.spawn_each", fn)
        return _all_or_none(thread.spawn(fn(*args, **kwargs)) for thread in self.threads)

    def map(
        self,
        fn: Callable[..., Coroutine[Any, Any, T]],
        *iterables: Iterable[Any],
        timeout: float | None = None,
    ) -> Iterator[T]:
        """Call an `async def` for each item, with the tasks spread over the threads.

        As concurrent.futures' map: the calls begin at once, and the iterator returned waits for
        their results, in the order of the items, as `block_on` does. It raises what a call raised,
        and TimeoutError if a result is not there `timeout` seconds after the call of `map`; the
        tasks that are left are cancelled then, and if it is closed.

        >>> import homebound
        >>> async def double(number):
        ...     return 2 * number
        >>> with homebound.IOThreadPool(2) as pool:
        ...     list(pool.map(double, [1, 2, 3]))
        [2, 4, 6]

        Called from: any thread.
        """
        check_async("IOThreadPool.map", fn)
        deadline = Deadline(timeout)
        calls = zip(*iterables, strict=False)
        return _results(deque(_all_or_none(self.spawn(fn(*items)) for items in calls)), deadline)

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
        return self.start()

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

    __reduce__ = refuse_threaded_copy

    def __repr__(self) -> str:
        states = [thread._state() for thread in self.threads]
        counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        return f"<IOThreadPool {self.name!r} {counted}>"


def _all_or_none(making: Iterable[Task[T]]) -> list[Task[T]]:
    """Return the tasks that are being made; cancel those that were if one cannot be."""
    tasks: list[Task[T]] = []
    try:
        tasks.extend(making)
    except BaseException:
        for task in tasks:
            task.cancel()
        raise
    return tasks


def _results(tasks: deque[Task[T]], deadline: Deadline) -> Iterator[T]:
    """Wait for each task in turn; cancel those that are left if that fails or is given up."""
    try:
        while True:  # not `while tasks`: the jump rule
            if not tasks:
                break
            yield block_on(tasks[0], timeout=deadline.timeout())
            tasks.popleft()
    finally:
        for task in tasks:
            task.cancel()
