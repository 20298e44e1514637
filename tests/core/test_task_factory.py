"""Task factories on our loop: they get what asyncio hands over, and may make any task."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from homebound import IOThread

    InThread = Callable[..., Future[Any]]

eager = pytest.mark.skipif(
    sys.version_info < (3, 12), reason="asyncio has eager task factories since 3.12"
)


async def give(value: Any) -> Any:
    if isinstance(value, BaseException):
        raise value
    return value


def handed_over(run: Callable[..., Any], **options: Any) -> tuple[Any, ...]:
    """The arguments that a factory gets for a task, and the task's name."""
    calls: list[dict[str, Any]] = []

    async def main() -> tuple[Any, ...]:
        loop: Any = asyncio.get_running_loop()

        def factory(loop: Any, coro: Any, **given: Any) -> Any:
            calls.append(given)
            known = {key: given[key] for key in ("name", "context") if key in given}
            return asyncio.Task(coro, loop=loop, **known)

        loop.set_task_factory(factory)
        coro = give(1)
        try:
            task = loop.create_task(coro, **options)
        except TypeError:
            coro.close()
            return (TypeError,)
        assert await task == 1
        return list(calls), task.get_name() if "name" in options else None

    return run(main())  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "options",
    [{}, {"name": "named"}, {"context": contextvars.Context()}, {"name": "n", "eager_start": True},
     {"colour": "red", "name": "n"}],
    ids=" ".join,
)  # fmt: skip
def test_it_gets_what_asyncio_hands_over(options: dict[str, Any]):
    expected = handed_over(asyncio.run, **options)
    if expected == (TypeError,):  # asyncio's create_task does not take this on this Python yet
        later = {key: value for key, value in options.items() if key != "name"}
        expected = ([later], "n")
    assert handed_over(homebound.run, **options) == expected


def test_a_factory_chained_to_ours_makes_our_tasks(io: IOThread):
    """As APMs do: a factory wraps the coroutine, and passes it on to the factory that it found."""
    traced: list[str] = []

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        before = loop.get_task_factory()

        def factory(loop: Any, coro: Any, **options: Any) -> Any:
            async def trace() -> Any:
                traced.append("begins")
                try:
                    return await coro
                finally:
                    traced.append("ends")

            return before(loop, trace(), **options)

        async def moves() -> str:
            async with homebound.on(io.context):
                return threading.current_thread().name

        async def sleeps() -> str:
            await homebound.suspend()
            return "woken"

        loop.set_task_factory(factory)
        assert loop.get_task_factory() is factory
        assert await asyncio.create_task(moves(), name="mover") == io.name
        sleeper: Any = asyncio.create_task(sleeps(), context=contextvars.copy_context())
        await asyncio.sleep(0)
        sleeper.wake()
        assert await sleeper == "woken"
        async with homebound.TaskGroup() as group:
            here, there = group.create_task(give(1)), group.create_task(give(2), home=io.context)
        assert (here.result(), there.result()) == (1, 2)
        assert len(traced) >= 4

        loop.set_task_factory(before)
        traced.clear()
        assert await asyncio.create_task(give(3)) == 3
        assert not traced
        assert loop.get_task_factory() is before

    homebound.run(main())


def test_a_loop_without_a_factory(loop_factory: Callable[[str], Callable[[], Any]]):
    """None until the loop runs, as asyncio's; the factory returned then works on any loop."""
    factories = []
    for make in (homebound.new_event_loop, loop_factory("asyncio")):
        loop = make()
        assert loop.get_task_factory() is None

        async def main(loop: Any = loop) -> int:
            factories.append(loop.get_task_factory())
            task = factories[0](loop, give(4), name="made", context=contextvars.Context())
            assert (type(task), task.get_name()) == (homebound.Task, "made")
            result: int = await task
            return result

        assert loop.run_until_complete(main()) == 4
        loop.close()
    assert factories[1] is None


@pytest.mark.skipif(sys.version_info < (3, 14), reason="asyncio.create_task takes none before")
def test_custom_options_through_asyncio():
    """asyncio.create_task and TaskGroups pass them on."""
    colours = []

    def factory(loop: Any, coro: Any, *, colour: str = "none", **options: Any) -> Any:
        colours.append(colour)
        return homebound.Task(coro, loop=loop, **options)

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        await asyncio.create_task(give(1), colour="red")  # type: ignore[call-arg]
        for group_type in (asyncio.TaskGroup, homebound.TaskGroup):
            async with group_type() as group:
                group.create_task(give(1), colour="blue", name="child")  # type: ignore[call-arg]
        assert colours == ["red", "blue", "blue"]

    homebound.run(main())


@eager
@pytest.mark.parametrize("kind", ["asyncio's", "homebound's"])
def test_an_eager_factory(kind: str, io: IOThread):
    """With asyncio's own tasks and with ours: the same steps, and the tasks it wakes are woken."""
    factory: Any = asyncio.eager_task_factory  # type: ignore[attr-defined]
    if kind == "homebound's":
        factory = asyncio.create_eager_task_factory(homebound.Task)  # type: ignore[attr-defined]
    steps: list[Any] = []

    async def child() -> str:
        me = asyncio.current_task()
        steps.append("first")
        await asyncio.sleep(0)
        steps.append("second")
        assert asyncio.current_task() is me
        await io.spawn(give(1))
        return "done"

    async def sleeper() -> None:
        await homebound.suspend()
        steps.append("woken")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        outer = asyncio.current_task()
        sleeping: Any = asyncio.create_task(sleeper())
        await asyncio.sleep(0)
        loop.set_task_factory(factory)

        async def wake() -> None:
            sleeping.wake()
            steps.append("waker")

        task = asyncio.create_task(child(), name="child")
        assert type(task) is (homebound.Task if kind == "homebound's" else asyncio.Task)
        assert steps == ["first"]
        assert asyncio.current_task() is outer
        assert task.get_name() == "child"
        assert asyncio.create_task(wake()).done()
        assert steps == ["first", "waker"]
        assert await task == "done"
        await sleeping
        assert steps == ["first", "waker", "woken", "second"]
        failed = asyncio.create_task(give(ValueError()))
        assert isinstance(failed.exception(), ValueError)
        assert asyncio.all_tasks() == {outer}

    homebound.run(main())


@eager
@pytest.mark.parametrize("kind", ["asyncio's", "homebound's"])
def test_one_of_ours_inside_an_eager_one(kind: str):
    """A task that the outer one starts runs inside it, and the outer ones go on as they were."""
    factory: Any = asyncio.eager_task_factory  # type: ignore[attr-defined]
    if kind == "homebound's":
        factory = asyncio.create_eager_task_factory(homebound.Task)  # type: ignore[attr-defined]

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(factory)
        outer = asyncio.current_task()

        async def middle() -> None:
            me = asyncio.current_task()
            inner = homebound.Task(innermost(), loop=loop, eager_start=True)
            assert inner.done()
            assert asyncio.current_task() is me
            assert homebound.block_on(give(5)) == 5
            assert asyncio.current_task() is me

        async def innermost() -> None:
            seen.append(asyncio.current_task())
            assert homebound.current_task() is asyncio.current_task()

        seen: list[Any] = []
        assert asyncio.create_task(middle()).exception() is None
        assert len(seen) == 1
        assert asyncio.current_task() is outer
        assert homebound.current_task() is outer

    homebound.run(main())


@eager
def test_an_eager_factory_of_ours_in_another_thread(in_thread: InThread):
    """A task made in a thread that is not its home begins at home."""

    async def where() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.create_eager_task_factory(homebound.Task))  # type: ignore[attr-defined]
        made = in_thread(loop.create_task, where())
        assert await (await asyncio.wrap_future(made)) == "MainThread"

    homebound.run(main())


def test_a_task_made_as_asyncio_makes_one(loop_factory: Callable[[str], Callable[[], Any]]):
    """With a loop given, the task begins by itself, on any make of loop."""
    for make in (homebound.new_event_loop, loop_factory("asyncio")):
        loop = make()
        ran: list[Any] = []

        async def child(ran: list[Any] = ran) -> int:
            ran.append(asyncio.get_running_loop())
            return 3

        async def main(loop: Any = loop) -> int:
            task = homebound.Task(child(), loop=loop, name="child", eager_start=True)
            result: int = await task
            return result

        assert loop.run_until_complete(main()) == 3
        assert ran == [loop]
        loop.close()


def test_an_eager_task_without_a_loop():
    """The task begins at once in the current context; without one it is not started."""

    async def main() -> None:
        assert homebound.Task(give(2), eager_start=True).result() == 2

    homebound.run(main())
    coro = give(1)
    task = homebound.Task(coro, eager_start=True)
    assert task.home is None
    task.cancel()
    coro.close()
