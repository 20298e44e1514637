"""create_task(eager_start=True): a task whose first step runs at once, as asyncio's does."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import IOThread, TaskGroup, big_lock, block_on, current_context

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]
    Run = Callable[..., Any]

number: contextvars.ContextVar[int] = contextvars.ContextVar("number", default=0)


@pytest.fixture(params=["homebound", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    """Both runners: what is expected of ours is what asyncio does, where that has it."""
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


# As asyncio's.


def test_one_that_ends_in_its_first_step(run: Run):
    seen = []

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
    """A copy of its maker's, or the Context that is given: entered for each of its steps."""
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
def test_one_that_is_not_to(option: bool | None, run: Run):
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
    """No task runs: there is none afterwards."""
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


# Ours: threads, homes and wake-ups.


def test_never_in_another_thread(in_thread: InThread, io: IOThread):
    """Neither in a plain one, nor in another home: it begins where it is at home."""

    async def where() -> str:
        return threading.current_thread().name

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()

        def make() -> Any:
            return loop.create_task(where(), eager_start=True)

        async def make_at_home_elsewhere() -> Any:
            return make()

        assert await await_(in_thread(make)) == "MainThread"
        assert await (await io.spawn(make_at_home_elsewhere())) == "MainThread"

    async def await_(made: Future[Any]) -> Any:
        return await (await asyncio.wrap_future(made))

    homebound.run(main())


def test_in_a_stand_in(in_thread: InThread):
    """A thread with the big lock is at home in the main context: it runs there, in its stack."""

    def make(loop: Any) -> str:
        async def child() -> None:
            ran_in.append((threading.current_thread(), current_context(), asyncio.current_task()))

        ran_in: list[Any] = []
        with big_lock:
            task = loop.create_task(child(), eager_start=True)
            assert ran_in == [(threading.current_thread(), homebound.main_context(), task)]
        return "made"

    async def main() -> None:
        assert await asyncio.wrap_future(in_thread(make, asyncio.get_running_loop())) == "made"

    homebound.run(main())


def test_whom_it_wakes_runs_after_its_maker_has_suspended():
    """Only its own step runs inside create_task."""
    order: list[str] = []

    async def sleeper(name: str) -> None:
        await homebound.suspend()
        order.append(name)

    async def main() -> None:
        tasks: Any = [asyncio.ensure_future(sleeper(name)) for name in "abc"]
        await asyncio.sleep(0)

        async def wake() -> None:
            tasks[1].wake()
            order.append("eager")

        tasks[0].wake()
        start(wake())
        tasks[2].wake()
        order.append("maker")
        await asyncio.gather(*tasks)

    homebound.run(main())
    assert order == ["eager", "maker", "a", "b", "c"]


def test_it_moves_in_its_first_step(io: IOThread):
    async def child() -> str:
        await homebound.move_to(io.context)
        return threading.current_thread().name

    async def main() -> None:
        task = start(child())
        assert task.home is io.context
        assert await task == "io"

    homebound.run(main())


def test_block_on_in_its_first_step():
    async def child() -> str:
        me = asyncio.current_task()
        assert block_on(asyncio.sleep(0, "slept")) == "slept"
        assert asyncio.current_task() is me
        return "done"

    async def main() -> None:
        outer = asyncio.current_task()
        assert start(child()).result() == "done"
        assert asyncio.current_task() is outer

    homebound.run(main())


def test_in_debug_mode_it_remembers_its_maker():
    async def main() -> None:
        for eager in (True, False):
            loop: Any = asyncio.get_running_loop()
            task = loop.create_task(asyncio.sleep(0), eager_start=eager)
            assert task._source_traceback[-1].name == "main"
            await task

    homebound.run(main(), debug=True)


def test_options_that_it_does_not_know():
    async def main() -> None:
        coro = give(1)
        with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
            asyncio.get_running_loop().create_task(coro, colour="red")  # type: ignore[call-arg]
        coro.close()

    homebound.run(main())


def test_a_context_that_is_entered_already():
    """Refused before there is a task; asyncio's C Task of 3.14 refuses it, but goes on in it."""

    async def main() -> None:
        task: Any = asyncio.current_task()
        coro = give(1)
        with pytest.raises(RuntimeError, match="cannot enter context"):
            start(coro, context=task.get_context())
        coro.close()
        assert asyncio.current_task() is task
        assert asyncio.all_tasks() == {task}

    homebound.run(main())


@pytest.mark.parametrize("options", [{}, {"eager_start": True}])
def test_a_context_that_is_none(options: dict[str, Any]):
    async def main() -> None:
        outer = asyncio.current_task()
        loop: Any = asyncio.get_running_loop()
        coro = give(1)
        with pytest.raises(TypeError, match="a contextvars.Context was expected, got dict"):
            loop.create_task(coro, context={}, **options)
        coro.close()
        assert asyncio.all_tasks() == {outer}

    homebound.run(main())
