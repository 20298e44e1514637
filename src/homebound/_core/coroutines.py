"""Coroutines, and the making of one from other awaitables."""

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
    """Return a coroutine for what is no `async def` call: suspend(), Cython's coroutines.

    Raises TypeError for an object that is no coroutine of any kind.
    """
    if isinstance(coro, types.GeneratorType) and inspect.isawaitable(coro):
        return _awaiting(coro)
    if not asyncio.iscoroutine(coro):
        message = f"a coroutine was expected, got {coro!r}"
        raise TypeError(message)
    return coro


def coroutine_of(awaitable: Any) -> Any:
    """Return a coroutine that awaits `awaitable`, or itself; a wrong object fails when run."""
    if type(awaitable) is types.CoroutineType or asyncio.iscoroutine(awaitable):
        return awaitable
    return _awaiting(awaitable)


def state_of(coro: Any) -> str | None:
    """Return the state of a coroutine as inspect names it; None for one of another kind."""
    return inspect.getcoroutinestate(coro) if type(coro) is types.CoroutineType else None
