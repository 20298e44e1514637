"""Generators whose first task has ended go to the task elsewhere that iterates them."""

from __future__ import annotations

import asyncio
import gc
import threading
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from importlib.util import find_spec
from types import CellType
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import block_on
from homebound._aio import reach

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine

    First = Callable[[AsyncGenerator[int, None]], Coroutine[Any, Any, int]]


class Rows:
    """A maker of generators whose cleanup waits; it records the threads that ended it."""

    def __init__(self) -> None:
        self.closed: list[str] = []

    async def __call__(self) -> AsyncGenerator[int, None]:
        try:
            for number in range(3):
                await asyncio.sleep(0)
                yield number
        finally:
            await asyncio.sleep(0)
            self.closed.append(threading.current_thread().name)


@pytest.fixture
def rows() -> Rows:
    return Rows()


def new_uvloop() -> Any:
    import uvloop  # noqa: PLC0415  (there is none for some Pythons)

    return uvloop.new_event_loop()


WITHOUT_UVLOOP = pytest.mark.skipif(find_spec("uvloop") is None, reason="there is no uvloop")
UVLOOP = pytest.param(new_uvloop, marks=WITHOUT_UVLOOP, id="uvloop")
STOCK = pytest.param(asyncio.SelectorEventLoop, id="asyncio")
OURS = pytest.param(None, id="ours")


# The first iteration, in a task of its own.


async def by_wait_for(generator: AsyncGenerator[int, None]) -> int:
    return await asyncio.wait_for(anext(generator), 20)  # in a task of its own before 3.12


async def by_create_task(generator: AsyncGenerator[int, None]) -> int:
    return await asyncio.create_task(anext(generator))


async def by_gather(generator: AsyncGenerator[int, None]) -> int:
    (number,) = await asyncio.gather(anext(generator))
    return number


async def by_task_group(generator: AsyncGenerator[int, None]) -> int:
    async def first() -> int:
        return await anext(generator)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(first())
    return await task


FIRST = [by_wait_for, by_create_task, by_gather, by_task_group]
LOOPS = [OURS, STOCK, UVLOOP]


def io_thread(factory: Any) -> homebound.IOThread:
    return homebound.IOThread("first", **({} if factory is None else {"loop_factory": factory}))


class Ending:
    """An I/O thread that ends while a task, begun there, waits at the main home in between."""

    def __init__(self) -> None:
        self._go_on = asyncio.Event()
        self._moved = asyncio.Event()
        self._away = homebound.current_context()

    async def leave(self) -> None:
        """Move the calling task to the main home, and wait there until the first has ended."""
        assert self._away is not None
        await homebound.move_to(self._away)
        self._moved.set()
        await self._go_on.wait()

    async def run(self, coro: Coroutine[Any, Any, Any], factory: Any = None) -> Any:
        async with io_thread(factory) as io:
            task = io.spawn(coro)
            await self._moved.wait()
        self._go_on.set()
        return await task


@pytest.mark.parametrize("factory", LOOPS)
@pytest.mark.parametrize("first", FIRST)
def test_the_task_has_moved(rows: Rows, first: First, factory: Any):
    async def iterate(ending: Ending) -> list[int]:
        generator = rows()
        numbers = [await first(generator)]
        await ending.leave()
        return numbers + [number async for number in generator]

    async def main() -> None:
        ending = Ending()
        assert await ending.run(iterate(ending), factory) == [0, 1, 2]
        assert rows.closed == ["MainThread"]

    homebound.run(main())
    assert len(rows.closed) == 1


@pytest.mark.parametrize("factory", [STOCK, UVLOOP])
@pytest.mark.parametrize("tasks", [False, True], ids=["their tasks", "our tasks"])
@pytest.mark.parametrize("first", FIRST)
def test_from_an_attached_loop(rows: Rows, first: First, tasks: bool, factory: Any):  # noqa: FBT001
    """The child that makes the first iteration is the loop's own task, or one of ours."""
    numbers: list[int] = []
    go_on = asyncio.Event()
    moved = threading.Event()

    async def iterate(away: homebound.AioContext) -> None:
        generator = rows()
        numbers.append(await first(generator))
        await homebound.move_to(away)
        moved.set()
        await go_on.wait()
        numbers.extend([number async for number in generator])

    async def main() -> homebound.Task[None]:
        here = homebound.AioContext.attach(asyncio.get_running_loop(), tasks=tasks)
        task = here.spawn(iterate(io.context))
        await asyncio.to_thread(moved.wait)
        return task

    with homebound.IOThread("io") as io:
        with asyncio.Runner(loop_factory=factory) as runner:
            task = runner.run(main())
        assert not rows.closed
        io.context.call_soon(go_on.set)
        block_on(task)
    assert numbers == [0, 1, 2]
    assert rows.closed == ["io"]


@pytest.mark.parametrize("factory", LOOPS)
def test_a_task_of_a_foreign_loop_iterates_it(rows: Rows, factory: Any):
    """It is closed by that loop's end, if not before."""

    async def main() -> None:
        homebound.AioContext.attach(asyncio.get_running_loop())
        generator = rows()
        async with io_thread(factory) as io:
            assert await io.spawn(by_create_task(generator)) == 0
        assert await anext(generator) == 1
        assert not rows.closed
        kept.append(generator)

    kept: list[Any] = []
    asyncio.run(main())
    assert rows.closed == ["MainThread"]


async def in_a_stack(manager: Any, ending: Ending) -> None:
    async with AsyncExitStack() as stack:
        assert await asyncio.create_task(stack.enter_async_context(manager)) == 0
        del manager
        await ending.leave()


async def by_hand(manager: Any, ending: Ending) -> None:
    assert await asyncio.create_task(manager.__aenter__()) == 0
    await ending.leave()
    await manager.__aexit__(None, None, None)


@pytest.mark.parametrize("enter", [in_a_stack, by_hand])
def test_in_the_middle_of_a_block(rows: Rows, enter: Callable[..., Any]):
    """A child has entered a context manager; its parent leaves it, at another home."""
    order: list[str] = []

    @asynccontextmanager
    async def block() -> AsyncIterator[int]:
        async with aclosing(rows()) as numbers:
            yield await anext(numbers)
            order.append("left")

    async def work(ending: Ending) -> None:
        await enter(block(), ending)
        order.append("after")

    async def main() -> None:
        ending = Ending()
        await ending.run(work(ending))

    homebound.run(main())
    assert order == ["left", "after"]
    assert rows.closed == ["MainThread"]


class Reader:
    def __init__(self, generator: AsyncGenerator[int, None]) -> None:
        self.generator = generator

    async def read(self) -> int:
        return await anext(self.generator)


async def in_aclosing(generator: AsyncGenerator[int, None], ending: Ending) -> list[int]:
    async with aclosing(generator):
        await ending.leave()
        return [number async for number in generator]


async def in_an_object(generator: AsyncGenerator[int, None], ending: Ending) -> list[int]:
    reader = Reader(generator)
    del generator
    await ending.leave()
    return [await reader.read(), await reader.read()]


async def in_a_list(generator: AsyncGenerator[int, None], ending: Ending) -> list[int]:
    generators = {"only": [generator]}
    del generator
    await ending.leave()
    return [await anext(each) for _ in range(2) for each in generators["only"]]


async def in_a_loop(generator: AsyncGenerator[int, None], ending: Ending) -> list[int]:
    numbers: list[int] = []

    def take() -> AsyncGenerator[int, None]:
        nonlocal generator
        taken = generator
        del generator
        return taken

    async for number in take():
        if not numbers:
            await ending.leave()
        numbers.append(number)
    return numbers


async def in_another_generator(generator: AsyncGenerator[int, None], ending: Ending) -> list[int]:
    async def outer(inner: AsyncGenerator[int, None]) -> AsyncGenerator[int, None]:
        async for number in inner:
            if number == 1:
                await ending.leave()
            yield number

    async def outermost(inner: AsyncGenerator[int, None]) -> AsyncGenerator[int, None]:
        async for number in outer(inner):
            yield number

    iterated = outermost(generator)
    del generator
    return [number async for number in iterated]


HELD = [
    in_aclosing,
    in_an_object,
    in_a_list,
    in_a_loop,
    in_another_generator,
]


@pytest.mark.parametrize("hold", HELD)
def test_held_in_many_ways(rows: Rows, hold: Callable[..., Any]):
    async def iterate(ending: Ending) -> Any:
        kept = [rows()]
        assert await by_create_task(kept[0]) == 0
        return await hold(kept.pop(), ending)

    async def main() -> None:
        ending = Ending()
        assert await ending.run(iterate(ending)) == [1, 2]
        gc.collect()

    homebound.run(main())
    assert rows.closed == ["MainThread"]


def test_in_the_middle_of_an_iteration():
    """The end of the home leaves the generator alone; so does that of its task's later."""
    go_on = asyncio.Event()
    closed = []

    async def numbers() -> AsyncGenerator[int, None]:
        try:
            yield 1
            await go_on.wait()
            yield 2
        finally:
            closed.append(threading.current_thread().name)

    async def second(generator: AsyncGenerator[int, None]) -> int:
        number = await anext(generator)
        kept.append(generator)
        return number

    async def main() -> None:
        generator = numbers()
        async with homebound.IOThread("first") as io:
            assert await io.spawn(by_create_task(generator)) == 1
            task = asyncio.create_task(second(generator))
            del generator
            await asyncio.sleep(0)
        go_on.set()
        assert await task == 2

    kept: list[Any] = []
    homebound.run(main())
    assert closed == ["MainThread"]


def test_handed_on_again(rows: Rows):
    """Each home on the way ends, and so does each task but the last."""

    async def main() -> None:
        generator = rows()
        numbers = []
        for name in ("first", "second", "third"):
            async with homebound.IOThread(name) as io:
                numbers.append(await io.spawn(by_create_task(generator)))
        assert numbers == [0, 1, 2]
        assert not rows.closed
        assert [number async for number in generator] == []

    homebound.run(main())
    assert rows.closed == ["MainThread"]


kept_alive: list[Any] = []


async def begin_and_keep(rows: Rows) -> None:
    kept_alive.append(rows())
    await anext(kept_alive[-1])


@pytest.mark.parametrize("factory", LOOPS)
def test_iterated_by_none(rows: Rows, factory: Any):
    """A generator that is merely kept is closed as the home ends."""

    async def main() -> None:
        async with io_thread(factory) as io:
            await io.spawn(begin_and_keep(rows))
        assert rows.closed == ["first"]

    try:
        homebound.run(main())
    finally:
        kept_alive.clear()
    assert rows.closed == ["first"]


def test_perhaps_held_by_a_task_that_runs(rows: Rows):
    """A plain function of a task, blocked meanwhile, holds the generator: nothing tells of it."""

    def hold(generator: AsyncGenerator[int, None]) -> AsyncGenerator[int, None]:
        with homebound.IOThread("first") as io:
            assert block_on(io.spawn(by_create_task(generator))) == 0
        return generator

    async def main() -> None:
        assert [number async for number in hold(rows())] == [1, 2]

    homebound.run(main())
    assert rows.closed == ["MainThread"]


def test_iterated_by_a_task_that_runs_at_times(rows: Rows):
    """A task that never waits for long is seen between two steps, or taken for its iterator."""

    async def main() -> None:
        for _ in range(5):
            generator = rows()
            io = homebound.IOThread("first").start()
            assert await io.spawn(by_create_task(generator)) == 0
            stopping = asyncio.create_task(io.astop())
            while not stopping.done():
                await asyncio.sleep(0)
            assert [number async for number in generator] == [1, 2]

    homebound.run(main())
    assert rows.closed == ["MainThread"] * 5


@pytest.mark.parametrize("first", [anext, by_create_task])
def test_its_task_is_cancelled_by_the_end_of_the_home(rows: Rows, first: First):
    """What it iterates is closed there, as in asyncio, though another task refers to it."""

    async def iterate(generator: AsyncGenerator[int, None], begun: homebound.Event) -> None:
        await first(generator)
        begun.set()
        await homebound.suspend()

    async def main() -> None:
        generator, begun = rows(), homebound.Event()
        async with homebound.IOThread("first") as io:
            task = io.spawn(iterate(generator, begun))
            await begun.wait()
        assert task.cancelled()
        assert rows.closed == ["first"]
        assert [number async for number in generator] == []

    homebound.run(main())
    assert len(rows.closed) == 1


@pytest.mark.parametrize("held", [10, 100_000])
def test_far_from_a_frame(rows: Rows, held: int):
    """What a task holds deep inside other objects, or in a large container, is not its own."""

    async def main() -> None:
        generator = rows()
        far: Any = [generator, *range(held)]
        for _ in range(5 if held == 10 else 0):
            far = [far]
        async with homebound.IOThread("first") as io:
            await io.spawn(begin(io, far))
            del generator
        assert rows.closed == ["first"]

    async def begin(io: homebound.IOThread, far: Any) -> None:
        assert io.context.is_home()
        while type(far[0]) is list:
            far = far[0]
        await anext(far[0])

    homebound.run(main())
    assert len(rows.closed) == 1


async def one() -> AsyncGenerator[int, None]:
    yield 1


async def none() -> None:
    pass


def test_the_names_of_what_leads_from_frame_to_frame():
    async def main() -> None:
        generator, coroutine = one(), none()
        to_close: list[Any] = [
            generator.asend(None),
            generator.aclose(),
            anext(generator, None),
            coroutine.__await__(),
            coroutine,
            (each for each in ""),
        ]
        parts = [*to_close, generator, Rows().__call__, CellType()]
        assert {type(each).__name__ for each in parts} == reach._FRAMES
        for each in to_close:
            each.close()

    asyncio.run(main())


def test_what_python_tells_of_a_generator():
    """An ended one refers to no function."""

    async def main() -> None:
        generator = one()
        assert not reach.has_ended(generator)
        await anext(generator)
        assert not reach.has_ended(generator)
        await anext(generator, None)
        assert reach.has_ended(generator)

    asyncio.run(main())
