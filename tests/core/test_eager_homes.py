"""Eager tasks between homes: where they may begin, and which tasks they wake."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import IOThread, big_lock, block_on, current_context

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]


def start(coro: Coroutine[Any, Any, Any], **options: Any) -> Any:
    loop: Any = asyncio.get_running_loop()
    return loop.create_task(coro, eager_start=True, **options)


async def give(value: Any) -> Any:
    return value


def test_never_in_another_thread(in_thread: InThread, io: IOThread):
    """From a plain thread or another home, the task begins in an iteration of its own home."""

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
    """A thread with the big lock is at home in the main context: the step runs there."""

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


def test_a_task_that_it_wakes_runs_after_its_creator_has_suspended():
    """Only the new task's own step runs inside create_task."""
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


def test_in_debug_mode_it_remembers_its_creator():
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
    """The Context is refused before there is a task; asyncio's C Task of 3.14 goes on in it."""

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
        with pytest.raises(TypeError, match=r"a contextvars\.Context was expected, got dict"):
            await loop.create_task(coro, context={}, **options)
        coro.close()
        assert asyncio.all_tasks() == {outer}

    homebound.run(main())
