"""A homebound Task where a program asks for the class of asyncio's: isinstance, match, dispatch."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest

import homebound

if TYPE_CHECKING:
    from homebound import IOThread

    Check = Callable[[object], str]


def by_isinstance(value: object) -> str:
    if isinstance(value, asyncio.Task):
        return "task"
    return "future" if isinstance(value, asyncio.Future) else "other"


def by_tuple_of_classes(value: object) -> str:
    if isinstance(value, (int, asyncio.Task)):
        return "task"
    return "future" if isinstance(value, (str, asyncio.Future)) else "other"


def by_union(value: object) -> str:
    if isinstance(value, int | asyncio.Task):
        return "task"
    return "future" if isinstance(value, asyncio.Future | None) else "other"


def by_match(value: object) -> str:
    match value:
        case asyncio.Task():
            return "task"
        case asyncio.Future():
            return "future"
        case _:
            return "other"


@functools.singledispatch
def by_singledispatch(_value: object) -> str:
    return "other"


@by_singledispatch.register
def _(_value: asyncio.Future) -> str:  # type: ignore[type-arg]
    return "future"


@by_singledispatch.register
def _(_value: asyncio.Task) -> str:  # type: ignore[type-arg]
    return "task"


class Handler:
    """A method that dispatches."""

    @functools.singledispatchmethod
    def kind(self, _value: object) -> str:
        return "other"

    @kind.register
    def _(self, _value: asyncio.Task) -> str:  # type: ignore[type-arg]
        return "task"

    @kind.register
    def _(self, _value: asyncio.Future) -> str:  # type: ignore[type-arg]
        return "future"


def by_singledispatchmethod(value: object) -> str:
    return Handler().kind(value)


def by_subclass(value: Any) -> str:
    if issubclass(value.__class__, asyncio.Task):
        return "task"
    return "future" if issubclass(value.__class__, asyncio.Future) else "other"


def by_match_of_attributes(value: object) -> str:
    match value:
        case asyncio.Task(cancelling=_, get_coro=_):
            return "task"
        case asyncio.Future(get_loop=_):
            return "future"
        case _:
            return "other"


CHECKS: list[Check] = [
    by_isinstance, by_tuple_of_classes, by_union, by_match, by_match_of_attributes,
    by_singledispatch, by_singledispatchmethod, by_subclass,
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_task_is_one_of_asyncio(check: Check, io: IOThread):
    """In each state, also in another thread than its home's, and in a home that is no main one."""

    async def main() -> None:
        here = asyncio.create_task(asyncio.sleep(0, 1))
        there = io.spawn(asyncio.sleep(0, 1))
        unstarted = homebound.Task(asyncio.sleep(0, 1), home=homebound.current_context())
        assert [check(task) for task in (here, there, unstarted)] == ["task"] * 3
        assert check(asyncio.current_task()) == check(homebound.current_task()) == "task"
        unstarted.wake()
        assert await here == await there == await unstarted == 1
        assert [check(task) for task in (here, there, unstarted)] == ["task"] * 3
        assert check(asyncio.get_running_loop().create_future()) == "future"
        assert check(asyncio.gather(here, there)) == "future"
        assert check(1.0) == check(main) == "other"
        assert await io.spawn(seen(here)) == "task"

    async def seen(task: object) -> str:
        return check(task)

    homebound.run(main())


def test_a_task_is_not_taken_for_something_else():
    """Nor is one of asyncio's own taken for ours."""

    async def main() -> None:
        task = asyncio.create_task(asyncio.sleep(0))
        assert isinstance(task, homebound.Task)
        assert isinstance(task, Awaitable)
        assert not isinstance(task, asyncio.Event | int | str)
        assert type(task) is homebound.Task
        await task
        loop = asyncio.get_running_loop()
        own = asyncio.Task(asyncio.sleep(0), loop=loop)
        assert not isinstance(own, homebound.Task)
        await own

    homebound.run(main())


def test_four_threads_ask_at_once(in_thread: Any):
    """The first questions fill caches of the interpreter's."""
    for _ in range(20):

        async def main() -> None:
            tasks = [asyncio.create_task(asyncio.sleep(0)) for _ in range(50)]
            asked = [
                in_thread(lambda: [check(task) for task in tasks for check in CHECKS])
                for _ in range(4)
            ]
            for each in asked:
                answers = await asyncio.wrap_future(each)
                assert set(answers) == {"task"}
            await asyncio.gather(*tasks)

        homebound.run(main())
