"""CPython's tests of asyncio.Task, run with homebound's Task in its place.

test_tasks runs its BaseTaskTests over pairs of a Task and a Future class; this is one more pair.
The same holds in test_free_threading, for task factories.
"""

# mypy: disable-error-code="misc, import-not-found"
# The package `test` has no stubs.

from __future__ import annotations

import asyncio
import sys
import unittest
from typing import Any

from test.test_asyncio import test_tasks
from test.test_asyncio import utils as test_utils

import homebound


class _AnyTask(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, homebound.Task)


class NewTask(homebound.Task[Any], metaclass=_AnyTask):
    """A callable like asyncio.Task that makes a homebound Task, which begins by itself."""

    def __new__(cls, coro: Any, *, loop: Any = None, **options: Any) -> Any:
        loop = loop or asyncio.get_event_loop()
        task: Any = homebound.Task(coro, loop=loop, **options)
        if loop.get_debug():
            del task._source_traceback[-1]  # this call
        return task


class HomeTaskTests(test_tasks.BaseTaskTests, test_utils.TestCase):
    """asyncio's tests of a Task."""

    Task = NewTask
    Future = asyncio.Future
    all_tasks = staticmethod(asyncio.all_tasks)
    current_task = staticmethod(asyncio.current_task)


class HomeTaskCurrentLoopTests(test_tasks.BaseCurrentLoopTests, test_utils.TestCase):
    """asyncio.current_task with a homebound Task running."""

    current_task = staticmethod(asyncio.current_task)

    def new_task(self, coro: Any) -> Any:
        return NewTask(coro, loop=self.loop)


if hasattr(test_tasks, "BaseTaskIntrospectionTests"):
    del test_tasks  # otherwise unittest would take its classes for this module's

if sys.version_info >= (3, 12):
    from test.test_asyncio import test_eager_task_factory

    class HomeEagerTests(
        test_eager_task_factory.EagerTaskFactoryLoopTests,
        test_utils.TestCase,
    ):
        """asyncio's tests of eager tasks, with a factory of homebound's."""

        Task = homebound.Task

    class HomeEagerCountingTests(
        test_eager_task_factory.BaseEagerTaskFactoryTests,
        test_utils.TestCase,
    ):
        """Eager tasks that end in their first step are never counted as queued."""

        Task = homebound.Task

    del test_eager_task_factory  # as test_tasks

if sys.version_info >= (3, 14):
    from test.test_asyncio import test_free_threading

    class HomeFreeThreadingTests(test_free_threading.TestFreeThreading, unittest.TestCase):
        """asyncio's tests of tasks whose loops run in several threads."""

        def factory(self, loop: Any, coro: Any, **options: Any) -> Any:
            return homebound.Task(coro, loop=loop, **options)

    class HomeEagerFreeThreadingTests(HomeFreeThreadingTests):
        """The same for tasks that begin at once."""

        def factory(self, loop: Any, coro: Any, **options: Any) -> Any:
            return homebound.Task(coro, loop=loop, **{"eager_start": True, **options})

    del test_free_threading  # as test_tasks
