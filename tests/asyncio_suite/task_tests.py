"""CPython's tests of asyncio.Task, run with homebound's Task in its place.

test_tasks runs its BaseTaskTests over pairs of a Task and a Future class. This is one more pair.
"""

# mypy: disable-error-code="misc, import-not-found"
# The package `test` has no stubs.

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from test.test_asyncio import test_tasks
from test.test_asyncio import utils as test_utils

import homebound

if TYPE_CHECKING:
    from contextvars import Context


class _AnyTask(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, homebound.Task)


class NewTask(homebound.Task[Any], metaclass=_AnyTask):
    """Called like asyncio.Task, it makes a homebound Task that begins by itself."""

    def __new__(
        cls,
        coro: Any,
        *,
        loop: Any = None,
        name: str | None = None,
        context: Context | None = None,
    ) -> Any:
        loop = loop or asyncio.get_event_loop()
        if loop.get_debug():
            return loop._create_checked(coro, name, context)
        return homebound.AioContext.attach(loop).spawn(coro, name=name, context=context)


class HomeTaskTests(test_tasks.BaseTaskTests, test_utils.TestCase):
    """What asyncio expects of a Task."""

    Task = NewTask
    Future = asyncio.Future


class HomeTaskCurrentLoopTests(test_tasks.BaseCurrentLoopTests, test_utils.TestCase):
    """asyncio.current_task with a homebound Task running."""

    current_task = staticmethod(asyncio.current_task)

    def new_task(self, coro: Any) -> Any:
        return NewTask(coro, loop=self.loop)


if hasattr(test_tasks, "BaseTaskIntrospectionTests"):
    del test_tasks  # or unittest would take its classes for this module's
