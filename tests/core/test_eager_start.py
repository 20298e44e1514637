"""create_task(eager_start=True): the first step runs at once, with all that asyncio promises.

The parts that only homebound has (threads, homes and wake-ups) are in test_eager_homes.py.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import TaskGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Run = Callable[..., Any]

number: contextvars.ContextVar[int] = contextvars.ContextVar("number", default=0)


@pytest.fixture(params=["homebound", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run with asyncio or homebound: ours must do what asyncio's does, where that has it."""
    if request.param == "homebound":
        return homebound.run
    if sys.version_info < (3, 14):
        pytest.skip("asyncio's create_task takes eager_start since Python 3.14")
    return asyncio.run


def start(coro: Coroutine[Any, Any, Any], **options: Any) -> Any:
    loop: Any = asyncio.get_running_loop()
    return loop.create_task(coro, eager_start=True, **options)


async def give(value: Any) -> Any:
    if isinstance(value, BaseException):
        raise value
    return value


def test_one_that_ends_in_its_first_step(run: Run):
    seen: list[Any] = []

    async def child() -> str:
        seen.append((asyncio.current_task(), asyncio.all_tasks()))
        return "done"

    async def main() -> None:
        outer = asyncio.current_task()
        task = start(child(), name="child")
        assert (task.done(), task.result(), task.get_name()) == (True, "done", "child")
        ((running, everyone),) = seen
        assert running is task
        assert {outer, task} <= everyone
        assert asyncio.current_task() is outer
        assert asyncio.all_tasks() == {outer}
        assert await task == "done"

    run(main())


def test_one_that_goes_on_later(run: Run):
    steps: list[str] = []

    async def child(future: asyncio.Future[None]) -> str:
        first = asyncio.current_task()
        steps.append("first")
        await future
        steps.append("second")
        assert asyncio.current_task() is first
        return "done"

    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        task = start(child(future))
        assert steps == ["first"]
        assert not task.done()
        assert task in asyncio.all_tasks()
        future.set_result(None)
        assert steps == ["first"]
        assert await task == "done"
        assert steps == ["first", "second"]

    run(main())


def test_a_failure_is_the_tasks(run: Run):
    async def main() -> None:
        outer = asyncio.current_task()
        error = ValueError()
        task = start(give(error))
        assert task.exception() is error
        assert asyncio.current_task() is outer
        with pytest.raises(ValueError):  # noqa: PT011  (the very error)
            await task

    run(main())


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_comes_out_of_create_task(kind: type[BaseException], run: Run):
    async def main() -> str:
        outer = asyncio.current_task()
        coro = give(kind())
        with pytest.raises(kind):
            start(coro)
        assert asyncio.current_task() is outer
        assert asyncio.all_tasks() == {outer}
        await asyncio.sleep(0)
        return "went on"

    assert run(main()) == "went on"


def test_its_contextvars(run: Run):
    """A copy of the creator's, or the given Context, entered for each of the task's steps."""
    seen = []

    async def child() -> None:
        seen.append(number.get())
        number.set(number.get() + 1)
        await asyncio.sleep(0)
        seen.append(number.get())

    async def main() -> None:
        number.set(1)
        task = start(child())
        assert number.get() == 1
        await task
        context = contextvars.copy_context()
        context.run(number.set, 7)
        await start(child(), context=context)
        assert context[number] == 8
        assert number.get() == 1

    run(main())
    assert seen == [1, 2, 7, 8]


@pytest.mark.parametrize("option", [False, None])
def test_one_that_is_not_to(option: Any, run: Run):
    ran = []

    async def child() -> None:
        ran.append(True)

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        task = loop.create_task(child(), eager_start=option)
        assert not ran
        await task

    run(main())


def test_in_a_callback(run: Run):
    """No task runs in a callback, and none afterwards."""
    seen: list[Any] = []

    def callback() -> None:
        task = start(give(3))
        seen.append((task.result(), asyncio.current_task()))

    async def main() -> None:
        asyncio.get_running_loop().call_soon(callback)
        await asyncio.sleep(0)

    run(main())
    assert seen == [(3, None)]


def test_one_inside_another(run: Run):
    async def child(depth: int) -> int:
        me = asyncio.current_task()
        if depth == 0:
            return 0
        inner = start(child(depth - 1))
        assert inner.done()
        assert asyncio.current_task() is me
        return 1 + inner.result()  # type: ignore[no-any-return]

    async def main() -> None:
        assert start(child(20)).result() == 20

    run(main())


def test_it_is_cancelled_in_its_first_step_and_after(run: Run):
    async def child() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel("by itself")
        await asyncio.sleep(3600)

    async def sleeper() -> None:
        await asyncio.sleep(3600)

    async def main() -> None:
        task = start(child())
        assert not task.done()
        with pytest.raises(asyncio.CancelledError, match="by itself"):
            await task
        task = start(sleeper())
        task.cancel("from outside")
        assert task.cancelling() == 1
        with pytest.raises(asyncio.CancelledError, match="from outside"):
            await task
        done = start(give(1))
        assert not done.cancel()
        assert await done == 1

    run(main())


def test_its_callbacks_run_in_an_iteration(run: Run):
    async def main() -> None:
        told: list[Any] = []
        task = start(give(1))
        task.add_done_callback(told.append)
        assert not told
        await asyncio.sleep(0)
        assert told == [task]

    run(main())


@pytest.mark.parametrize("kind", ["asyncio", "homebound"])
def test_in_a_task_group(kind: str, run: Run):
    """An eager child that cancels the group before it has joined is cancelled with it."""
    if kind == "asyncio" and sys.version_info < (3, 14):
        pytest.skip("asyncio's TaskGroup.create_task takes no eager_start yet")
    make: Any = TaskGroup if kind == "homebound" else asyncio.TaskGroup

    async def main() -> None:
        async with make() as group:
            child = group.create_task(give(1), eager_start=True)
            assert child.done()
        if hasattr(make, "cancel"):
            async with make() as group:

                async def cancel() -> None:
                    group.cancel()
                    await asyncio.sleep(3600)

                child = group.create_task(cancel(), eager_start=True)
            assert child.cancelled()
        with pytest.raises(ExceptionGroup) as raised:  # noqa: PT012  (at the end of the block)
            async with make() as group:
                group.create_task(give(ValueError()), eager_start=True)
                await asyncio.sleep(3600)
        assert [type(error) for error in raised.value.exceptions] == [ValueError]

    run(main())


@pytest.mark.parametrize("kind", ["homebound", "asyncio"])
def test_before_the_loop_runs(kind: str):
    if kind == "asyncio" and sys.version_info < (3, 14):
        pytest.skip("asyncio's create_task takes eager_start since Python 3.14")
    loop: Any = homebound.new_event_loop() if kind == "homebound" else asyncio.SelectorEventLoop()
    ran = []

    async def child() -> None:
        ran.append(True)

    task = loop.create_task(child(), eager_start=True)
    assert not ran
    loop.run_until_complete(task)
    loop.close()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.11 cannot describe a task without one")
def test_one_that_has_ended_has_no_coroutine(run: Run):
    async def main() -> None:
        task = start(give(1))
        assert task.get_coro() is None
        assert "finished" in repr(task)
        assert task.get_stack() == []

    run(main())
