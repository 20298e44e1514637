"""Saying where: a context, an I/O thread, or nothing at all."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import ContextClosed, ContextError, IOThread, Task, block_on, create_task

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


async def where() -> str:
    return threading.current_thread().name


def test_running_context_is_the_current_one_or_raises(io: IOThread):
    async def main() -> None:
        assert homebound.running_context() is homebound.main_context()

    homebound.run(main())
    with homebound.big_lock, pytest.raises(ContextError, match="no context is current"):
        homebound.running_context()  # no main context to stand in for
    with pytest.raises(ContextError, match=r"thread 'MainThread': .* with the big lock held"):
        homebound.running_context()

    async def there() -> homebound.AioContext:
        return homebound.running_context()

    assert block_on(io.spawn(there())) is io.context


def test_create_task_makes_tasks_of_ours_on_every_loop(
    factory: Callable[[], asyncio.AbstractEventLoop], io: IOThread
):
    async def main() -> None:
        homebound.AioContext.attach(asyncio.get_running_loop())
        here = create_task(where(), name="here")
        assert type(here) is Task
        assert here.get_name() == "here"
        assert await here == "MainThread"
        assert await create_task(where(), home=io) == io.name
        assert await create_task(where(), home=io.context) == io.name

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


def test_create_task_takes_a_context_of_variables(io: IOThread):
    number = contextvars.ContextVar("number", default=0)

    async def get() -> int:
        return number.get()

    variables = contextvars.copy_context()
    variables.run(number.set, 5)
    assert block_on(create_task(get(), home=io, context=variables)) == 5
    assert block_on(create_task(get(), home=io)) == 0


def test_create_task_closes_what_it_refuses(io: IOThread):
    """Else there would be a warning that it was never awaited, which fails the test."""
    with pytest.raises(ContextError, match="no context is current"):
        create_task(where())
    with pytest.raises(TypeError, match="create_task: home takes an AioContext or an IOThread"):
        create_task(where(), home="io0")  # type: ignore[arg-type]
    with pytest.raises(ContextError, match="has no context before start"):
        create_task(where(), home=IOThread())
    io.stop()
    with pytest.raises(ContextClosed):
        create_task(where(), home=io)


def test_an_io_thread_is_a_place(io: IOThread):
    async def main() -> None:
        main_context = homebound.running_context()
        async with homebound.on(io):
            assert await where() == io.name
        await homebound.move_to(io)
        assert await where() == io.name
        await homebound.move_to(io)  # no-op
        await homebound.move_to(main_context)
        async with homebound.TaskGroup() as group:
            child = group.create_task(where(), home=io)
        assert child.result() == io.name
        done: list[int] = []
        io.context.call_soon(lambda: (done.append(1), homebound.kick()))
        homebound.wait_while(lambda: not done, io)
        assert block_on(where(), io) == io.name

    homebound.run(main())
    assert block_on(where(), io) == io.name


@pytest.mark.parametrize("place", ["io0", 3, object()])
def test_nothing_else_is_a_place(place: Any):
    async def raises(coro: Coroutine[Any, Any, object], match: str) -> None:
        with pytest.raises(TypeError, match=match):
            await coro

    async def enter() -> None:
        async with homebound.on(place):
            pass

    async def main() -> None:
        await raises(enter(), r"on\(\) takes an AioContext or an IOThread, got")
        await raises(move(), r"move_to\(\) takes an AioContext or an IOThread, got")
        with pytest.raises(TypeError, match="takes an AioContext or an IOThread"):
            block_on(where(), place)
        with pytest.raises(TypeError, match="takes an AioContext or an IOThread"):
            homebound.wait_while(bool, place)

    async def move() -> None:
        await homebound.move_to(place)

    homebound.run(main())


def test_a_loop_is_no_place_but_has_one():
    async def main() -> None:
        with pytest.raises(TypeError, match=r"AioContext\.attach\(loop\) is the context of a loop"):
            await homebound.move_to(asyncio.get_running_loop())  # type: ignore[arg-type]

    homebound.run(main())
