"""What tasks run: coroutines, and what can be made one."""

from __future__ import annotations

import asyncio
import inspect
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable


async def _awaiting(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def as_coroutine(coro: Any) -> Any:
    """What is no `async def` call: suspend() and move_to() are generators, Cython has its own.

    Raises TypeError for what is no coroutine of any make.
    """
    if isinstance(coro, types.GeneratorType) and inspect.isawaitable(coro):
        return _awaiting(coro)
    if not asyncio.iscoroutine(coro):
        message = f"a coroutine was expected, got {coro!r}"
        raise TypeError(message)
    return coro


def coroutine_of(awaitable: Any) -> Any:
    """A coroutine that awaits it; itself if it is one. What cannot be awaited fails as it runs."""
    if type(awaitable) is types.CoroutineType or asyncio.iscoroutine(awaitable):
        return awaitable
    return _awaiting(awaitable)


def state_of(coro: Any) -> str | None:
    """Where it is, as inspect says; None for one of another make, which does not tell."""
    return inspect.getcoroutinestate(coro) if type(coro) is types.CoroutineType else None
