"""The blocks that a suspended coroutine is in, as the interpreter keeps them.

tests/core/test_asyncio_shapes.py pins what is read. On an interpreter that keeps them another way,
none is found.
"""

from __future__ import annotations

import gc
from itertools import pairwise
from types import MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CoroutineType


def awaited_coroutines(task: Any) -> Iterator[CoroutineType[Any, Any, Any]]:
    """Yield a suspended task's coroutine, and each one that it awaits in turn."""
    coroutine = task.get_coro()
    while getattr(coroutine, "cr_frame", None) is not None:
        yield coroutine
        coroutine = coroutine.cr_await


def entered(coroutine: object) -> Iterator[object]:
    """Yield the objects whose `async with` blocks a suspended coroutine is in, or about to enter.

    It refers to the `__aexit__` that it will call: a bound method, or from Python 3.14 on the
    function and, right after it, the object.
    """
    for each, following in pairwise([*gc.get_referents(coroutine), None]):
        if getattr(each, "__name__", None) != "__aexit__":
            continue
        if isinstance(each, MethodType):
            yield each.__self__
        elif getattr(type(following), "__aexit__", None) is each:
            yield following
