"""Background: a home of a library's own, and a synchronous face of its asynchronous code."""

from __future__ import annotations

import asyncio
import inspect
import threading
from itertools import count
from typing import TYPE_CHECKING, Any, Never, ParamSpec, Self, TypeVar, overload
from weakref import WeakSet

from .._core.coroutines import check_async, one_coroutine
from .._errors import ContextClosed, ContextError
from .._os.arguments import hides_more
from .._os.guard import new_guard
from .._os.no_copy import refuse_threaded_copy
from .._os.process import AtFork, at_fork
from .block_on import block_on, exit_is_under_way
from .faces import face_of
from .io_thread import IOThread
from .options import check_options
from .sessions import stopped

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Awaitable,
        Callable,
        Coroutine,
        Generator,
        Iterator,
    )
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from contextvars import Context
    from types import TracebackType
    from typing import Protocol

    from .._core.context import AioContext
    from .._core.task import Task

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")


if TYPE_CHECKING:

    class _Class(Protocol[P]):
        """Any class, by what its metaclass has; mypy also finds its constructor's parameters."""

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any: ...
        def mro(self, /) -> list[type[Any]]: ...


_numbers = count()
_all: WeakSet[Background] = WeakSet()  # to be forgotten in a forked process


class Background:
    """A home for a library's asynchronous code, and a synchronous face of that code.

    A module makes one; its thread is started once a process, at the first use; a forked process
    begins anew. `loop_factory` is that of `IOThread`. Any thread may call it: of a script, a
    notebook, a worker of Celery's, one that runs a loop (which stands still meanwhile, unless it is
    homebound's main loop). The interpreter's exit stops it.

    >>> import asyncio, homebound
    >>> background = homebound.Background("weather")
    >>> async def afetch(city):
    ...     await asyncio.sleep(0)
    ...     return f"sunny in {city}"
    >>> fetch = background.sync(afetch)
    >>> fetch("Graz")
    'sunny in Graz'
    >>> background.stop()

    Called from: any thread.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> None:
        check_options("Background", name, loop_factory)
        self.name: str = f"background{next(_numbers)}" if name is None else name
        self._loop_factory = loop_factory
        # Held while the thread is started. Re-entrant: a signal handler or a finaliser of the
        # starting thread may make a call, and is refused.
        self._lock = new_guard()
        self._starting: IOThread | None = None  # written under _lock
        self._thread: IOThread | None = None  # the latest; written under _lock
        _all.add(self)

    # Its thread.

    @property
    def started(self) -> bool:
        """True from the end of `start` (or the first use) until the thread has ended.

        Called from: any thread.
        """
        thread = self._thread
        return thread is not None and not thread._ended

    @property
    def stopped(self) -> bool:
        """True once the thread has ended, by `stop` or otherwise, until `start` is called again.

        Called from: any thread.
        """
        thread = self._thread
        return thread is not None and thread._ended

    @property
    def context(self) -> AioContext:
        """Its home's context; the first use starts the thread. Raises as `call` does.

        Called from: any thread.
        """
        thread = self._thread
        if thread is None or thread._ended:
            thread = self._start(again=False)
        return thread.context

    def start(self) -> Self:
        """Start the thread, unless it has started, and return when it is up; return `self`.

        The first use does this, too; only `start` itself starts it again after `stop`. Raises what
        `loop_factory` raises; then it can be started again. Raises ContextClosed as the interpreter
        ends.

        Called from: any thread.
        """
        self._start(again=True)
        return self

    def _start(self, *, again: bool) -> IOThread:
        # The thread that is started has none of its own in the first moments of that.
        starting = getattr(self._starting, "_thread", None)
        if starting is threading.current_thread():
            # In loop_factory: it would wait for itself.
            raise ContextError(self._starting_message())
        with self._lock:
            thread = self._thread
            if thread is not None and not thread._ended:
                return thread
            if thread is not None and not again:
                message = f"{self!r} takes no more work; start() starts it again"
                raise ContextClosed(message)
            if exit_is_under_way():
                message = f"{self!r} is not started any more, as the interpreter ends"
                raise ContextClosed(message)
            if self._starting is not None:
                raise ContextError(self._starting_message())
            return self._start_new()

    def _starting_message(self) -> str:
        return (
            f"{self!r} is being started by what makes this call: a loop_factory, a signal handler "
            "or a finaliser must not use it before that"
        )

    def _start_new(self) -> IOThread:
        thread = IOThread(self.name, loop_factory=self._loop_factory)
        self._starting = thread
        try:
            thread.start()
        finally:
            self._starting = None
            if thread._context is not None:  # also if Ctrl-C came as it started
                self._thread = thread
            else:
                thread._ask_to_stop()  # if it has begun, it ends once it can
        return thread

    def stop(self, timeout: float | None = None) -> None:
        """End the thread and wait for it, for at most `timeout` seconds; then TimeoutError.

        Work in flight is cancelled and waited for, and its callers get ContextClosed; so does each
        later use, until `start`. A no-op if the thread has ended or was never started. Raises
        WouldDeadlock as `IOThread.stop` does; `astop` waits without blocking.

        Called from: any thread.
        """
        with self._lock:  # one that is just being started is stopped, too
            thread = self._thread
        if thread is not None:
            thread.stop(timeout)

    async def astop(self) -> None:
        """End the thread and wait for it, without blocking: `stop` for a task, on any loop.

        Called from: task.
        """
        with self._lock:
            thread = self._thread
        if thread is not None:
            await thread.astop()

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
        return self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.astop()

    __reduce__ = refuse_threaded_copy

    def __repr__(self) -> str:
        state = "started" if self.started else "stopped" if self.stopped else "not started"
        return f"<Background {self.name!r} {state}>"

    # Work.

    @hides_more
    def spawn(
        self,
        coro: Coroutine[Any, Any, T],
        *more: Never,
        name: str | None = None,
        context: Context | None = None,
    ) -> Task[T]:
        """Make a task of `coro` at its home, without waiting; any thread may cancel it.

        A task of any loop may `await` it, and so has the asynchronous face of the same code. Raises
        as `call` does.

        Called from: any thread.
        """
        if more:
            raise one_coroutine("spawn", coro, more)
        return self._context_for(coro).spawn(coro, name=name, context=context)

    def block_on(self, awaitable: Awaitable[T], *, timeout: float | None = None) -> T:
        """Run `awaitable` at its home and wait for it; return its result or raise its exception.

        As `homebound.block_on`: `timeout` and Ctrl-C cancel it and wait for its cleanup; in a task
        at the same home it runs inline. Raises ContextClosed if it is stopped before or meanwhile,
        WouldDeadlock in the thread of another IOThread or Background: `await background.spawn(...)`
        there.

        Called from: any thread.
        """
        context = self._context_for(awaitable)
        try:
            return block_on(awaitable, context, timeout=timeout)
        except asyncio.CancelledError:
            if not context._ending:
                raise
            raise stopped(self) from None

    def _context_for(self, awaitable: object) -> AioContext:
        try:
            return self.context
        except BaseException:
            if asyncio.iscoroutine(awaitable):
                awaitable.close()  # it is not begun: have no warning that it was never awaited
            raise

    @overload
    def call(
        self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    @overload
    def call(self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def call(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    def call(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Call `fn` at its home, await the result if it can be awaited, and wait for that.

        Raises as `block_on`.

        >>> import asyncio, homebound
        >>> with homebound.Background() as background:
        ...     background.call(asyncio.sleep, 0, "slept")
        'slept'

        Called from: any thread.
        """
        check_async("Background.call", fn)
        return self.block_on(_call(fn, args, kwargs))

    @overload
    def sync(self, target: _Class[P], /) -> Callable[P, Any]: ...
    @overload
    def sync(self, target: Callable[P, Coroutine[Any, Any, T]], /) -> Callable[P, T]: ...
    @overload
    def sync(
        self, target: Callable[P, AsyncGenerator[T, S]], /
    ) -> Callable[P, Generator[T, S, None]]: ...
    @overload
    def sync(self, target: Callable[P, AsyncIterator[T]], /) -> Callable[P, Iterator[T]]: ...
    @overload
    def sync(
        self, target: Callable[P, AbstractAsyncContextManager[T]], /
    ) -> Callable[P, AbstractContextManager[T]]: ...
    @overload
    def sync(self, target: Callable[P, Awaitable[T]], /) -> Callable[P, T]: ...
    @overload
    def sync(self, target: AsyncGenerator[T, S], /) -> Generator[T, S, None]: ...
    @overload
    def sync(self, target: AsyncIterator[T], /) -> Iterator[T]: ...
    @overload
    def sync(self, target: AbstractAsyncContextManager[T], /) -> AbstractContextManager[T]: ...
    def sync(self, target: Any, /) -> Any:
        """Return the synchronous face of an asynchronous function, class, iterator or manager.

        Of a function: one with the same parameters that waits for what the other returns, or that
        returns an iterator or a context manager. It is a decorator, also for methods, and keeps the
        types. Of a class: a class whose objects have the other's methods, as such faces; to a type
        checker they are Any, though mypy checks the arguments that make one.
        `Client: Callable[[str], ClientFace] = background.sync(AClient)`, with a Protocol that has
        the methods, gives them types (docs/background.md). Each iterator and context manager is run
        by one task from its beginning to its end, so timeouts, cancel scopes and contextvars hold
        there. TypeError for anything else.

        >>> import homebound
        >>> background = homebound.Background()
        >>> @background.sync
        ... async def numbers(limit):
        ...     for number in range(limit):
        ...         yield number
        >>> list(numbers(3))
        [0, 1, 2]
        >>> background.stop()

        Called from: any thread.
        """
        return face_of(self, target)


async def _call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = fn(*args, **kwargs)
    return await result if inspect.isawaitable(result) else result


def _begin_as_child() -> None:
    """Forget the parent's threads in a forked process: the first use there starts another."""
    for background in tuple(_all):
        background._lock = new_guard()
        background._starting = None
        background._thread = None


at_fork(AtFork.BACKGROUNDS, _begin_as_child)
