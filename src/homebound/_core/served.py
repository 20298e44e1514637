"""The context that a thread works for: the home whose executor call it makes.

`asyncio.to_thread` and the like copy the caller's contextvars, but a variable there could not hold
the home: each task would have to set it as it is made, and again at each move. So the thread that
makes the call notes the home for which the loop has handed it over, for as long as the call lasts.
`places.served_context` reads it: docs/design/core.md has the rule.
"""

from __future__ import annotations

import sys
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from .coroutines import is_async
from .current import here

if TYPE_CHECKING:
    from collections.abc import Callable

    from .context import AioContext

T = TypeVar("T")


def call_for(
    served: weakref.ref[AioContext], fn: Callable[..., T], /, *args: Any, **kwargs: Any
) -> T:
    """Call `fn(*args, **kwargs)`, and have this thread work for that context meanwhile.

    Called from: any thread.
    """
    before = here.serves
    here.serves = served
    try:
        return fn(*args, **kwargs)
    finally:
        here.serves = before


def made_for(context: AioContext, fn: Any) -> Any:
    """Return `fn` as a call made for `context`; as it is if the executor will refuse it.

    Called from: any thread.
    """
    if is_async(fn) or not callable(fn):
        return fn
    return partial(call_for, weakref.ref(context), fn)


def runs_threads(executor: object) -> bool:
    """Return whether an executor's calls run in threads of this interpreter, and so can be wrapped.

    The standard library loads each kind of pool at its first use; one that is not loaded has no
    instances. A pool of interpreters is a pool of threads to it, but pickles what it calls.

    Called from: any thread.
    """
    modules = sys.modules.get
    pool = getattr(modules("concurrent.futures.thread"), "ThreadPoolExecutor", ())
    far = getattr(modules("concurrent.futures.interpreter"), "InterpreterPoolExecutor", ())
    return isinstance(executor, pool) and not isinstance(executor, far)
