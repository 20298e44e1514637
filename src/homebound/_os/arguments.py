"""Arguments that are refused with words.

A call that does not fit a signature fails in Python, which cannot say what to write instead. So a
function takes what its like in threading, queue, anyio or trio takes, and raises TypeError itself.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")
S = TypeVar("S")
R = TypeVar("R")


def refuses(*names: str) -> Callable[[F], F]:
    """Leave out of the signature that a function shows the parameters that it takes to refuse them.

    Called from: any thread.
    """

    def leave_out(function: F) -> F:
        signature = inspect.signature(function)
        kept = [each for each in signature.parameters.values() if each.name not in names]
        function.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
        return function

    return leave_out


@overload
def refuses_timeout(method: Callable[[S, None], R]) -> Callable[[S], R]: ...
@overload
def refuses_timeout(method: Callable[[S, None, None], R]) -> Callable[[S], R]: ...
def refuses_timeout(method: Callable[..., Any]) -> Callable[..., Any]:
    """Do `refuses` for a method that takes nothing else: type checkers know of no parameter either.

    Called from: any thread.
    """
    return refuses("block", "blocking", "timeout")(method)


def no_timeout(what: object, method: str) -> TypeError:
    """Return the error for a timeout, or `block=False`, given to an async method that takes none.

    Called from: any thread.
    """
    return TypeError(
        f"{type(what).__name__}.{method}() takes no timeout: in a task, `async with "
        f"asyncio.timeout(1):` around it is one; in a thread, {method}_sync(timeout=1) has one, "
        "and timeout=0 does not wait"
    )


def no_astop_timeout(what: object) -> TypeError:
    """Return the error for a timeout given to `astop`.

    Called from: any thread.
    """
    kind = type(what).__name__
    return TypeError(
        f"{kind}.astop() takes no timeout, and waits for the end: `await to_worker(io.stop, 5)` "
        "waits for 5 seconds at most, and then raises TimeoutError"
    )


def name_by_keyword(what: object, more: tuple[Any, ...]) -> TypeError:
    """Return the error for arguments of what takes none but a name.

    Called from: any thread.
    """
    kind = type(what).__name__
    return TypeError(f"{kind} takes its name by keyword, {kind}(name='...'); got {more[0]!r}")


def checked_name(what: object, name: object) -> str:
    """Return a name; TypeError for what is no str.

    Called from: any thread.
    """
    if not isinstance(name, str):
        message = f"{type(what).__name__}: the name is {name!r}; it must be a str"
        raise TypeError(message)
    return name
