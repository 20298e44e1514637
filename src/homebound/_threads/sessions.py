"""Sessions: calls made one after the other by one task, and what is built on that.

An asynchronous iterator or context manager expects one task to make all calls of it. A timeout, a
cancel scope or a lock entered in one call is left in a later one, for the same task; so is the
contextvars.Context. A session is a task at the home that makes the calls in its own step.
"""

from __future__ import annotations

import _thread
import asyncio
from collections import deque
from collections.abc import Generator
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from .._core.mailbox import check_open
from .._errors import ContextClosed, ContextError, WouldDeadlock
from .block_on import block_on

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from .._core.context import AioContext
    from .background import Background

    Leave = Callable[[BaseException], Awaitable[Any]]

T = TypeVar("T")
S = TypeVar("S")
Make: TypeAlias = "Callable[[], Awaitable[T]]"


def stopped(background: Background) -> ContextClosed:
    """Return the error of a call that a Background which was stopped has not done."""
    return ContextClosed(f"{background!r} was stopped before the call was done")


class _Call:
    """A call that a session is to make, the future of its outcome, and what undoes it. Home."""

    __slots__ = ("leave", "make", "outcome")

    def __init__(
        self,
        make: Make[Any],
        leave: Leave | None,
    ) -> None:
        self.make = make
        self.leave = leave
        self.outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()


class Session:
    """A task at the home of a Background that makes one call after another.

    It refers to no object of the caller's between two calls, so that one which is dropped without
    an end can be finalised, and ends the session then.
    """

    def __init__(self, background: Background, subject: object) -> None:
        self._background = background
        self._home: AioContext = background.context
        self._calls: deque[_Call | None] = deque()  # None: end. Home only
        self._next_call: asyncio.Future[None] | None = None  # of a wait for a call. Home only
        # Awaited if the task is cancelled between two calls, as it is when its home ends. Home only
        self._leave: Leave | None = None
        name = getattr(subject, "__qualname__", type(subject).__qualname__)
        self._task = self._home.spawn(self._serve(), name=f"{background.name}: {name}")

    def ask(self, make: Make[T], leave: Leave | None = None) -> asyncio.Future[T]:
        """Have the task await `make()`, and return the outcome, a future that is done.

        If it succeeds, `leave(error)` is awaited in case the task is cancelled before its next
        call. Raises if the call could not be made, or was interrupted. Called from: any thread.
        """
        check_open(self._home)  # not the background's present home, which may be another
        try:
            outcome = block_on(self._ask(make, leave), self._home)
        except asyncio.CancelledError:
            if not self._home._ending:
                raise
        else:
            if not (outcome.cancelled() and self._home._ending):
                return outcome
        raise stopped(self._background)

    def end(self, make: Make[Any] | None = None) -> None:
        """Have the task end, after one more call, without waiting. Called from: any thread."""
        try:
            self._home.call_soon(self._put_last, make)
        except ContextClosed:
            pass  # it has ended

    # At home.

    async def _ask(self, make: Make[T], leave: Leave | None) -> asyncio.Future[T]:
        if self._task.done():
            if self._home._ending:
                raise stopped(self._background)
            message = f"task {self._task.get_name()!r} was cancelled, and makes no more calls"
            raise ContextError(message)
        call = _Call(make, leave)
        self._put(call)
        # For the task, too: as the home ends, it may be cancelled before it takes the call.
        ends = (call.outcome, self._task)
        while not any(each.done() for each in ends):
            try:
                # Not `await call.outcome`, which a cancellation of this task would cancel.
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            except asyncio.CancelledError:
                if not call.outcome.done():
                    self._task.cancel()
        call.outcome.cancel()  # if the task ended without it
        return call.outcome

    def _put_last(self, make: Make[Any] | None) -> None:
        if make is not None:
            self._put(_Call(make, None))
        self._put(None)

    def _put(self, call: _Call | None) -> None:
        self._calls.append(call)
        if self._next_call is not None and not self._next_call.done():
            self._next_call.set_result(None)

    async def _next(self) -> _Call | None:
        while not self._calls:
            self._next_call = asyncio.get_running_loop().create_future()
            await self._next_call
        return self._calls.popleft()

    async def _serve(self) -> None:
        try:
            while True:
                call = await self._next()
                if call is None:
                    return
                leave, self._leave = call.leave, None
                if await self._make(call):
                    self._leave = leave
                del call, leave
        except asyncio.CancelledError as error:
            if self._leave is not None:
                await self._leave(error)
            raise

    async def _make(self, call: _Call) -> bool:
        """Make the call; return whether it succeeded."""
        try:
            call.outcome.set_result(await call.make())
        except asyncio.CancelledError:
            call.outcome.cancel()
            if self._home._ending:
                raise
            self._task.uncancel()  # that was the call's
        except (KeyboardInterrupt, SystemExit):
            call.outcome.cancel()
            raise
        except BaseException as error:  # noqa: BLE001  (the caller gets it)
            call.outcome.set_exception(error)
        else:
            return True
        return False


class IteratorFace(Generator[T, S, None]):
    """The synchronous face of an asynchronous iterator: a generator, whose steps one task makes."""

    def __init__(self, background: Background, source: Any) -> None:
        self._background = background
        self._source = source
        self._steps: Any = None  # the iterator itself, from the first step on
        self._session: Session | None = None  # from the first step to the last
        self._closed = False
        self._turn = _thread.allocate_lock()  # held for a step, as generators refuse two at a time

    def __next__(self) -> T:
        return self._advance("__anext__")

    def send(self, value: S, /) -> T:
        """Send a value to an asynchronous generator; return what it yields next."""
        if value is None:
            return self._advance("__anext__")
        return self._advance("asend", value)

    def throw(self, kind: Any, value: Any = None, traceback: Any = None, /) -> T:
        """Raise an exception in an asynchronous generator; return what it yields next."""
        error = value or kind
        if isinstance(error, type):
            error = error()
        if traceback is not None:
            error = error.with_traceback(traceback)
        return self._advance("athrow", error)

    def close(self) -> None:
        """Close it; its cleanup has run when this returns."""
        if self._session is not None and hasattr(self._steps, "aclose"):
            self._step("aclose")
        self._end()
        self._closed = True

    def _advance(self, method: str, *args: Any) -> T:
        if self._closed:
            raise StopIteration
        try:
            step: T = self._step(method, *args)
        except StopAsyncIteration:
            self._closed = True
            raise StopIteration from None
        return step

    def _step(self, method: str, *args: Any) -> Any:
        if not self._turn.acquire(blocking=False):
            message = "generator already executing"
            raise ValueError(message)
        try:
            if self._session is None:
                self._session = Session(self._background, self._source)
                self._steps = type(self._source).__aiter__(self._source)
            step = partial(getattr(self._steps, method), *args)
            outcome = self._session.ask(step, partial(_aclose, self._steps))
            try:
                return outcome.result()
            except BaseException:
                self._end()
                raise
        finally:
            self._turn.release()

    def _end(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.end()

    def __del__(self) -> None:
        # In any thread, the home perhaps: have the home close it, and do not wait.
        session = getattr(self, "_session", None)
        if session is not None:
            session.end(partial(_aclose, self._steps))


async def _aclose(steps: Any, _error: BaseException | None = None) -> None:
    aclose = getattr(steps, "aclose", None)
    if aclose is not None:
        await aclose()


class ContextManagerFace(AbstractContextManager[T, bool | None]):
    """The synchronous face of an asynchronous context manager, entered and left by one task."""

    def __init__(
        self, background: Background, manager: AbstractAsyncContextManager[T, bool | None]
    ) -> None:
        self._background = background
        self._manager = manager
        self._sessions: list[Session] = []  # one for each time it is entered; a lock may be, often

    def __enter__(self) -> T:
        manager = self._manager
        session = Session(self._background, manager)
        try:
            enter = partial(type(manager).__aenter__, manager)
            value = session.ask(enter, partial(_leave, manager)).result()
        except BaseException:
            session.end()
            raise
        self._sessions.append(session)
        return value

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        manager = self._manager
        session = self._sessions.pop()
        leave = partial(type(manager).__aexit__, manager, kind, error, traceback)
        try:
            outcome = session.ask(leave)
        except WouldDeadlock:
            session.end(leave)  # this thread may not wait for it
            raise
        except BaseException:
            session.end()
            raise
        session.end()
        return outcome.result()


async def _leave(
    manager: AbstractAsyncContextManager[Any, bool | None], error: BaseException
) -> None:
    await type(manager).__aexit__(manager, type(error), error, error.__traceback__)
