"""Coroutines, and the making of one from other awaitables."""

from __future__ import annotations

import asyncio
import inspect
import types
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any, ParamSpec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

P = ParamSpec("P")

_COROUTINE = inspect.CO_COROUTINE
_LONGEST = 80  # characters of a repr in a message
_SEVERAL = (list, tuple, set, frozenset)


def yields_to_task(
    function: Callable[P, Generator[Any, Any, None]],
) -> Callable[P, Coroutine[Any, Any, None]]:
    """Make a function with `yield` one that returns coroutines, which yield to the task.

    As types.coroutine does, with one more flag of its code: so a call without `await` warns that it
    was never awaited, at no cost to one with. An `async def` that awaits such a generator would add
    a frame to each step. tests/core/test_never_awaited.py pins this for each Python.
    """
    code = function.__code__
    flags = code.co_flags & ~inspect.CO_GENERATOR | inspect.CO_COROUTINE
    made = types.FunctionType(code.replace(co_flags=flags), function.__globals__)
    update_wrapper(made, function)
    del made.__wrapped__  # type: ignore[attr-defined]
    made.__annotations__ = {**function.__annotations__, "return": "None"}  # as an `async def` says
    return made


def is_async(fn: Any) -> bool:
    """Return whether `fn` is async, so that a call in a worker would run nothing of it."""
    code = getattr(fn, "__code__", None)
    if type(code) is types.CodeType:  # it may be a proxy that has every attribute
        return bool(code.co_flags & _COROUTINE)
    if type(fn) is types.CoroutineType:
        return True  # the call itself, in place of the function
    return type(fn) is partial and inspect.iscoroutinefunction(fn)


def not_for_a_worker(what: str, fn: Any) -> TypeError:
    """Return the error for an `async def`, or a call of one, given to a worker."""
    if type(fn) is partial:
        fn = fn.func
    if type(fn) is types.CoroutineType:
        fn.close()  # it is not awaited
    name = name_of(fn)
    return TypeError(
        f"{what} calls a blocking function, and {name} is async: write `await {name}(...)`, or "
        f"`await io.spawn({name}(...))` to run it in an IOThread"
    )


def check_call(what: str, fn: Any) -> None:
    """Raise TypeError if `fn` is no function that `what` can call.

    Called from: any thread.
    """
    if is_async(fn):
        raise not_for_a_worker(what, fn)
    if not callable(fn):
        message = (
            f"{what} takes a function and its arguments, and calls it itself; got {shown(fn)}, "
            "perhaps the result of a call"
        )
        raise TypeError(message)


def check_async(what: str, fn: Any) -> None:
    """Raise TypeError if `fn` is no function that `what` can call to get a coroutine.

    Called from: any thread.
    """
    if callable(fn):
        return
    text = shown(fn)
    if type(fn) is types.CoroutineType:
        fn.close()  # it is not awaited
    message = f"{what} takes an async function and its arguments, and calls it itself; got {text}"
    raise TypeError(message)


def check_callback(what: str, fn: Any) -> None:
    """Raise TypeError if `fn` is no function that `what` can call at home.

    Called from: any thread.
    """
    if is_async(fn):
        name = name_of(fn)
        if type(fn) is types.CoroutineType:
            fn.close()  # it is not awaited
        message = f"{what} takes a plain function, and {name} is async: spawn({name}()) runs it"
    elif not callable(fn):
        message = f"{what} takes a function, not {shown(fn)}"
    else:
        return
    raise TypeError(message)


def name_of(fn: Any) -> str:
    """Return the name of a function, for messages; its repr if it has none."""
    name: str = getattr(fn, "__qualname__", None) or repr(fn)
    return name.rpartition("<locals>.")[2]


def shown(thing: Any) -> str:
    """Return what names a wrong argument in a message, in one line of sane length."""
    if inspect.isroutine(thing) or inspect.isclass(thing):
        return f"the {'class' if inspect.isclass(thing) else 'function'} {name_of(thing)}"
    if asyncio.iscoroutine(thing):
        return f"the coroutine {name_of(thing)}()"
    if inspect.isasyncgen(thing):
        return f"the asynchronous generator {name_of(thing)}()"
    if isinstance(thing, _SEVERAL):
        return f"a {type(thing).__name__} of {len(thing)}"
    text = repr(thing)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def waited_for(future: Any) -> str:
    """Return what names a future or task in a message."""
    name = getattr(future, "get_name", None)
    if name is not None:
        return f"task {name()!r}"
    state = "cancelled" if future.cancelled() else "finished" if future.done() else "pending"
    return f"<{type(future).__name__} {state}>"


async def _awaiting(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def as_coroutine(coro: Any) -> Any:
    """Return a coroutine for what is no `async def` call: types.coroutine's, Cython's.

    Raises TypeError for an object that is no coroutine of any kind.
    """
    if isinstance(coro, types.GeneratorType) and inspect.isawaitable(coro):
        return _awaiting(coro)
    if not asyncio.iscoroutine(coro):
        hint = _instead(coro)
        if inspect.isawaitable(coro):
            hint = "; `await` it in an `async def` of yours"
        message = f"a coroutine was expected, got {shown(coro)}{hint}"
        raise TypeError(message)
    return coro


def no_task(what: str, thing: Any) -> TypeError:
    """Return the error for what was given in place of a Task.

    Called from: any thread.
    """
    return TypeError(
        f"{what} takes a homebound.Task, got {shown(thing)}; AioContext.spawn makes one of a "
        "coroutine, AioContext.call_soon calls a function"
    )


def one_coroutine(what: str, coro: Any, more: tuple[Any, ...]) -> TypeError:
    """Close the coroutines among what was given, and return the error for there being `more`.

    Called from: any thread.
    """
    for each in (coro, *more):
        if asyncio.iscoroutine(each):
            each.close()  # it is not begun: have no warning that it was never awaited
    if callable(coro):
        return TypeError(
            f"{what} takes a coroutine, not a function and its arguments: call it, "
            f"{what}({name_of(coro)}(...))"
        )
    first = f"{name_of(coro)}()" if asyncio.iscoroutine(coro) else shown(coro)
    given = f"got {shown(more[0])} after {first}"
    return TypeError(f"{what} takes one coroutine, and its options by keyword: {given}")


def _instead(thing: Any) -> str:
    """Return what to do in place of passing `thing` as a coroutine, for a message."""
    if inspect.iscoroutinefunction(thing) or inspect.isfunction(thing):
        name = name_of(thing)
        return ": call it" if name == "<lambda>" else f": call it, {name}()"
    if inspect.isasyncgen(thing):
        return "; `async for` in an `async def` of yours takes its items"
    if isinstance(thing, _SEVERAL):
        return "; `await asyncio.gather(*...)` in an `async def` of yours awaits several"
    if thing is None:
        return ", which a plain `def` may have returned: a call of an `async def` is a coroutine"
    return ""


def check_awaitable(awaitable: Any, expected: str = "an awaitable") -> None:
    """Raise TypeError for an object that cannot be awaited.

    Called from: any thread.
    """
    if not inspect.isawaitable(awaitable):
        message = f"{expected} was expected, got {shown(awaitable)}{_instead(awaitable)}"
        raise TypeError(message)


def coroutine_of(awaitable: Any, expected: str = "an awaitable") -> Any:
    """Return a coroutine that awaits `awaitable`, or itself; TypeError for another object."""
    if type(awaitable) is types.CoroutineType or asyncio.iscoroutine(awaitable):
        return awaitable
    check_awaitable(awaitable, expected)
    return _awaiting(awaitable)


def state_of(coro: Any) -> str | None:
    """Return the state of a coroutine as inspect names it; None for one of another kind."""
    return inspect.getcoroutinestate(coro) if type(coro) is types.CoroutineType else None
