"""asyncio.Task's interface: the same program gets the same answers from both Tasks."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import Task

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., Any]


async def answer() -> int:
    return 42


async def fail() -> None:
    raise ValueError("no")


def test_create_task_makes_ours():
    async def main() -> None:
        task = asyncio.create_task(answer())
        assert type(task) is Task
        assert task.home is homebound.current_context()
        assert await task == 42
        assert homebound.current_task() is asyncio.current_task()
        assert type(asyncio.ensure_future(answer())) is Task
        assert type(asyncio.gather(answer())) is not Task

    homebound.run(main())


def test_result_and_exception(run: Run):
    async def main() -> None:
        task = asyncio.create_task(answer())
        assert not task.done()
        for ask in (task.result, task.exception):
            with pytest.raises(asyncio.InvalidStateError):
                ask()
        assert await task == task.result() == 42
        assert task.exception() is None
        assert task.done()
        assert not task.cancelled()

        task = asyncio.create_task(fail())  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="no"):
            await task
        with pytest.raises(ValueError, match="no"):
            task.result()
        assert isinstance(task.exception(), ValueError)
        assert not task.cancelled()

        task = asyncio.create_task(answer())
        assert task.cancel("why")
        with pytest.raises(asyncio.CancelledError):
            await task
        for ask in (task.result, task.exception):
            with pytest.raises(asyncio.CancelledError):
                ask()
        assert task.cancelled()
        assert not task.cancel()

    run(main())


def test_awaited_again_it_answers_at_once(run: Run):
    async def main() -> None:
        task = asyncio.create_task(answer())
        assert [await task, await task] == [42, 42]
        failed = asyncio.create_task(fail())
        for _ in range(2):
            with pytest.raises(ValueError, match="no"):
                await failed

    run(main())


def test_names(run: Run):
    async def main() -> None:
        task = asyncio.create_task(answer(), name="seeker")
        assert task.get_name() == "seeker"
        task.set_name(7)
        assert task.get_name() == "7"
        first, second = (asyncio.create_task(answer()) for _ in range(2))
        assert first.get_name().startswith("Task-")
        assert first.get_name() != second.get_name()
        await asyncio.gather(task, first, second)

    run(main())


def test_coro_context_loop_and_kind(run: Run):
    async def main() -> None:
        coro = answer()
        context = contextvars.copy_context()
        task = asyncio.create_task(coro, context=context)
        assert task.get_coro() is coro
        assert task.get_loop() is asyncio.get_running_loop()
        assert asyncio.isfuture(task)
        assert isinstance(task, asyncio.Future)
        if sys.version_info >= (3, 12):
            assert task.get_context() is context
        await task

    run(main())


def test_contextvars(run: Run):
    var: contextvars.ContextVar[int] = contextvars.ContextVar("var", default=0)

    async def work() -> int:
        before = var.get()
        var.set(before + 1)
        await asyncio.sleep(0)
        return var.get()

    async def main() -> None:
        var.set(10)
        assert await asyncio.create_task(work()) == 11
        assert var.get() == 10
        given = contextvars.copy_context()
        assert await asyncio.create_task(work(), context=given) == 11
        assert given[var] == 11

    run(main())


def test_done_callbacks(run: Run):
    var: contextvars.ContextVar[str] = contextvars.ContextVar("var", default="unset")

    async def main() -> None:
        order: list[Any] = []
        task = asyncio.create_task(answer())
        var.set("set")
        first, second, third = (lambda _, n=n: order.append(n) for n in range(3))
        task.add_done_callback(first)
        task.add_done_callback(second)
        task.add_done_callback(second)
        task.add_done_callback(third)
        assert task.remove_done_callback(second) == 2
        assert task.remove_done_callback(second) == 0
        task.add_done_callback(lambda each: order.append((each is task, var.get())))
        empty = contextvars.Context()
        task.add_done_callback(lambda _: order.append(var.get()), context=empty)
        await task
        await asyncio.sleep(0)
        assert order == [0, 2, (True, "set"), "unset"]
        task.add_done_callback(lambda _: order.append("late"))
        assert order[-1] == "unset"  # never called at once
        await asyncio.sleep(0)
        assert order[-1] == "late"

    run(main())


def test_a_done_callback_that_raises_is_reported(run: Run):
    async def main() -> None:
        reports: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
        task = asyncio.create_task(answer())
        task.add_done_callback(lambda _: int("x"))
        await task
        await asyncio.sleep(0)
        assert [type(report["exception"]) for report in reports] == [ValueError]

    run(main())


def test_set_result_is_refused(run: Run):
    async def main() -> None:
        task = asyncio.create_task(answer())
        with pytest.raises(RuntimeError, match="does not support set_result"):
            task.set_result(1)
        with pytest.raises(RuntimeError, match="does not support set_exception"):
            task.set_exception(ValueError())
        await task

    run(main())


def test_yielding_something_that_is_no_future(run: Run):
    class Yields:
        def __init__(self, what: Any) -> None:
            self.what = what

        def __await__(self) -> Any:
            yield self.what

    async def wait(what: Any) -> None:
        await Yields(what)

    async def main() -> None:
        with pytest.raises(RuntimeError, match="Task got bad yield: 'junk'"):
            await asyncio.create_task(wait("junk"))
        future = asyncio.get_running_loop().create_future()
        with pytest.raises(RuntimeError, match="yield was used instead of yield from"):
            await asyncio.create_task(wait(future))
        await asyncio.create_task(wait(None))  # a bare yield: the next iteration

        async def mine() -> None:
            await task

        task = asyncio.create_task(mine())
        with pytest.raises(RuntimeError, match="Task cannot await on itself"):
            await task

    run(main())


def test_all_tasks_and_current_task(run: Run):
    async def main() -> None:
        me = asyncio.current_task()
        task = asyncio.create_task(asyncio.sleep(0))
        assert asyncio.all_tasks() == {me, task}
        await task
        assert asyncio.all_tasks() == {me}

    run(main())
    with pytest.raises(RuntimeError):
        asyncio.all_tasks()


def test_all_tasks_shows_the_tasks_at_home_in_the_loop(io: homebound.IOThread):
    async def look() -> set[Any]:
        return asyncio.all_tasks()

    async def main() -> None:
        task = io.spawn(homebound.suspend())
        assert asyncio.all_tasks() == {asyncio.current_task()}
        there = io.spawn(look())
        assert await there == {task, there}
        task.wake()
        await task

    homebound.run(main())
