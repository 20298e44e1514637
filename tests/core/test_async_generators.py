"""Asynchronous generators move with their task, and are closed where the task is at home."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import big_lock, block_on

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]


def thread_name() -> str:
    return threading.current_thread().name


class Rows:
    """A maker of generators whose cleanup waits; it records the threads that ended it."""

    def __init__(self) -> None:
        self.closed: list[str] = []

    async def __call__(self, count: int = 3) -> AsyncGenerator[int, None]:
        try:
            for number in range(count):
                await asyncio.sleep(0)
                yield number
        finally:
            await asyncio.sleep(0)
            self.closed.append(thread_name())


@pytest.fixture
def rows() -> Rows:
    return Rows()


async def until_closed(rows: Rows) -> None:
    while not rows.closed:
        # Without a GIL an object is freed when the thread that made it runs next.
        homebound.main_context().notify()  # type: ignore[union-attr]
        await asyncio.sleep(0.001)


def test_a_generator_outlives_the_home_it_was_begun_at(rows: Rows):
    """The task has moved away, and iterates the generator at its new home."""

    async def iterate(there: homebound.AioContext, moved: Any, go_on: Any) -> list[int]:
        found = []
        async for number in rows():
            found.append(number)
            if number == 0:
                await homebound.move_to(there)
                moved.set()
                await go_on.wait()
        return found

    async def main() -> None:
        moved, go_on = homebound.Event(), homebound.Event()
        async with homebound.IOThread() as io:
            task = io.spawn(iterate(homebound.main_context(), moved, go_on))  # type: ignore[arg-type]
            await moved.wait()
        go_on.set()
        assert await task == [0, 1, 2]
        assert rows.closed == ["MainThread"]

    homebound.run(main())


@pytest.mark.parametrize("iterated_again", [False, True])
def test_a_generator_of_main_outlives_the_home_it_was_begun_at(rows: Rows, iterated_again: bool):  # noqa: FBT001
    """The loop closes it though the main task is gone by then."""
    kept = []

    async def main() -> None:
        async with homebound.IOThread("io") as io, homebound.on(io.context):
            kept.append(rows())
            assert await anext(kept[0]) == 0
        assert rows.closed == []
        if iterated_again:
            assert await anext(kept[0]) == 1

    homebound.run(main())
    assert rows.closed == [thread_name()]


def test_a_context_manager_ends_after_its_block():
    order: list[str] = []

    @asynccontextmanager
    async def transaction() -> AsyncIterator[None]:
        try:
            yield
            order.append("committed")
        finally:
            order.append("ended")

    async def work(there: homebound.AioContext, moved: Any, go_on: Any) -> None:
        async with transaction():
            await homebound.move_to(there)
            moved.set()
            await go_on.wait()
            order.append("body")

    async def main() -> None:
        moved, go_on = homebound.Event(), homebound.Event()
        async with homebound.IOThread() as io:
            task = io.spawn(work(homebound.main_context(), moved, go_on))  # type: ignore[arg-type]
            await moved.wait()
        go_on.set()
        await task

    homebound.run(main())
    assert order == ["body", "committed", "ended"]


def test_a_dropped_generator_is_closed_where_its_task_is(rows: Rows):
    """A generator begun at one home and dropped at another: in `on`, and after a move."""

    async def begin_there(io: homebound.IOThread) -> None:
        generator = rows()
        async with homebound.on(io.context):
            assert await anext(generator) == 0
        del generator
        await until_closed(rows)

    async def main() -> None:
        async with homebound.IOThread("io0") as io:
            await begin_there(io)
            assert rows.closed == ["MainThread"]
            rows.closed.clear()
            generator = rows()
            await anext(generator)
            await homebound.move_to(io.context)
            del generator
            await until_closed(rows)
            assert rows.closed == ["io0"]

    homebound.run(main())


def test_a_home_that_ends_closes_what_its_tasks_have_brought(rows: Rows):
    """A generator begun in the main thread, and left half-way in an I/O thread."""
    kept: list[Any] = []

    async def main() -> None:
        async with homebound.IOThread("io0") as io:

            async def work() -> None:
                kept.append(rows())
                await anext(kept[0])
                await homebound.move_to(io.context)
                here.set()
                await homebound.suspend()

            here = homebound.Event()
            task = asyncio.create_task(work())
            await here.wait()
        assert rows.closed == ["io0"]
        assert task.cancelled()

    homebound.run(main())


@pytest.mark.parametrize("left", [False, True], ids=["dropped", "left"])
@pytest.mark.parametrize("at_once", [False, True], ids=["after a wait", "at once"])
def test_begun_in_a_stand_in(rows: Rows, in_thread: InThread, left: bool, at_once: bool):  # noqa: FBT001
    """The main loop knows the generator, and closes it when it is dropped or the loop ends."""
    kept: list[Any] = []
    hooks: list[Any] = []

    async def first() -> int:
        if not at_once:
            await asyncio.sleep(0)
        generator = rows()
        if left:
            kept.append(generator)
        async for number in generator:
            return number
        return -1

    def guest() -> None:
        hooks.append(sys.get_asyncgen_hooks())
        with big_lock:
            assert block_on(first()) == 0
        hooks.append(sys.get_asyncgen_hooks())

    async def main() -> None:
        await asyncio.wrap_future(in_thread(guest))
        if not left:
            await until_closed(rows)

    homebound.run(main())
    assert rows.closed == ["MainThread"]
    assert hooks[0] == hooks[1]


def test_woken_by_a_stand_in(rows: Rows, in_thread: InThread):
    """The step that begins the generator runs inside the waker's `wake`."""
    kept = []

    async def sleeper() -> None:
        await homebound.suspend()
        kept.append(rows())
        await anext(kept[0])

    async def main() -> None:
        task: Any = asyncio.create_task(sleeper())
        await asyncio.sleep(0)

        def wake() -> None:
            with big_lock:
                task.wake()

        await asyncio.wrap_future(in_thread(wake))
        await task

    homebound.run(main())
    assert rows.closed == ["MainThread"]


def test_a_generator_that_runs_elsewhere_is_not_closed():
    """A generator begun by a task that has ended is iterated elsewhere as its first home ends."""
    go_on = homebound.Event()

    async def numbers() -> AsyncGenerator[int, None]:
        yield 1
        await go_on.wait()
        yield 2

    async def begin(generator: AsyncGenerator[int, None]) -> int:
        return await anext(generator)

    async def main() -> None:
        generator = numbers()
        async with homebound.IOThread() as io:
            assert await io.spawn(begin(generator)) == 1
            second = asyncio.ensure_future(anext(generator))
            await asyncio.sleep(0)
        go_on.set()
        assert await second == 2
        await generator.aclose()

    homebound.run(main())


def test_collected_in_another_thread(rows: Rows, in_thread: InThread):
    """The generator is closed at home, whichever thread drops it."""

    async def main() -> None:
        held = [rows()]
        await anext(held[0])
        await asyncio.wrap_future(in_thread(held.clear))
        await until_closed(rows)
        assert rows.closed == ["MainThread"]

        class Circle:
            me: Any

        circle = Circle()
        circle.me = circle, rows()
        await anext(circle.me[1])
        del circle
        rows.closed.clear()
        await asyncio.wrap_future(in_thread(gc.collect))
        await until_closed(rows)
        assert rows.closed == ["MainThread"]

    homebound.run(main())


def test_begun_after_the_loop_has_closed_the_others():
    async def one() -> AsyncGenerator[int, None]:
        yield 1

    async def main() -> None:
        await asyncio.get_running_loop().shutdown_asyncgens()
        with pytest.warns(ResourceWarning, match="was scheduled after"):
            assert [number async for number in one()] == [1]

    homebound.run(main())


def test_begun_as_the_end_closes_the_others(rows: Rows):
    """A task that another thread spawns as a home ends may begin one so late."""
    begun: list[asyncio.Task[None]] = []

    async def iterate() -> None:
        async for _ in rows():
            await asyncio.sleep(60)

    async def outer() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            begun.append(asyncio.create_task(iterate()))
            await asyncio.sleep(0.01)

    async def main() -> None:
        await anext(generator)

    generator = outer()
    homebound.run(main())
    assert begun[0].cancelled()
    assert rows.closed == ["MainThread"]


@pytest.mark.parametrize("how", ["run", "Runner", "IOThread"])
def test_main_drops_one_as_it_returns(rows: Rows, how: str):
    """The end of the loop cancels the task that would close it before that has begun."""

    async def main() -> str:
        generator = rows()
        await anext(generator)
        return "result"

    if how == "run":
        assert homebound.run(main()) == "result"
    elif how == "Runner":
        with asyncio.Runner(loop_factory=homebound.new_event_loop) as runner:
            assert runner.run(main()) == "result"
    else:

        def spawn_and_stop() -> None:
            io.spawn(main()).add_done_callback(lambda _: io.context.loop.stop())

        with homebound.IOThread() as io:
            io.context.call_soon(spawn_and_stop)
            io.join(20)
    assert len(rows.closed) == 1


def test_closed_by_the_program_before_its_task_has_begun(rows: Rows):
    errors: list[dict[str, Any]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: errors.append(context))
        generator = rows()
        await anext(generator)
        del generator
        gc.collect()
        await asyncio.sleep(0)  # its task is queued
        await loop.shutdown_asyncgens()
        assert len(rows.closed) == 1
        await asyncio.sleep(0.01)

    homebound.run(main())
    assert len(rows.closed) == 1
    assert not errors


def a_uvloop() -> Any:
    return pytest.importorskip("uvloop").new_event_loop()


@pytest.mark.parametrize("factory", [asyncio.SelectorEventLoop, a_uvloop])
def test_begun_in_a_thread_with_a_foreign_loop_that_ends(rows: Rows, factory: Any):
    """It goes along with its task, which moves on; the loop knows nothing of it."""
    numbers: list[int] = []

    async def iterate(away: homebound.AioContext, io: homebound.IOThread) -> None:
        async for number in rows():
            numbers.append(number)
            if number == 0:
                await homebound.move_to(away)
                await io.astop()

    async def main() -> None:
        here = homebound.current_context()
        assert here is not None
        io = homebound.IOThread("foreign", loop_factory=factory).start()
        await io.spawn(iterate(here, io))

    homebound.run(main())
    assert numbers == [0, 1, 2]
    assert rows.closed == ["MainThread"]


def test_begun_on_an_attached_loop_that_ends(rows: Rows):
    numbers: list[int] = []
    go_on = asyncio.Event()

    async def iterate(away: homebound.AioContext) -> None:
        async for number in rows():
            numbers.append(number)
            if number == 0:
                await homebound.move_to(away)
                moved.set()
                await go_on.wait()

    async def main() -> homebound.Task[None]:
        here = homebound.AioContext.attach(asyncio.get_running_loop())
        task = here.spawn(iterate(io.context))
        await asyncio.to_thread(moved.wait)
        return task

    moved = threading.Event()
    with homebound.IOThread("io") as io:
        task = asyncio.run(main())
        assert not rows.closed
        io.context.call_soon(go_on.set)
        block_on(task)
    assert numbers == [0, 1, 2]
    assert rows.closed == ["io"]


def test_left_on_a_foreign_loop_as_it_ends(rows: Rows):
    errors: list[dict[str, Any]] = []

    async def fails() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            raise ZeroDivisionError

    async def begin() -> None:
        await anext(generator)
        await anext(failing)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: errors.append(context))
        await homebound.AioContext.attach(loop).spawn(begin())
        assert not rows.closed

    generator, failing = rows(), fails()
    asyncio.run(main())
    assert rows.closed == ["MainThread"]
    (error,) = errors
    assert isinstance(error["exception"], ZeroDivisionError)
    assert error["asyncgen"] is failing


def test_dropped_by_a_task_on_a_foreign_loop(rows: Rows):
    async def begin() -> None:
        generator = rows()
        await anext(generator)

    async def main() -> None:
        await homebound.AioContext.attach(asyncio.get_running_loop()).spawn(begin())
        gc.collect()
        await until_closed(rows)
        assert rows.closed == ["MainThread"]

    asyncio.run(main())


def test_many_generators_leave_no_trace():
    """The records about a generator are dropped with it."""
    from homebound._aio.generators import _begun  # noqa: PLC0415  (a private of ours, to count)

    async def one() -> AsyncGenerator[int, None]:
        yield 1

    async def main() -> None:
        generators = [one() for _ in range(1000)]
        for generator in generators:
            assert await anext(generator) == 1
            await generator.aclose()
        del generators, generator
        for _ in range(1000):
            assert [number async for number in one()] == [1]

    homebound.run(main())
    assert len(_begun) < 200
