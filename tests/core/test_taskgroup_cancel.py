"""TaskGroup.cancel: as in asyncio 3.15, on every Python, and from any thread."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import IOThread, TaskGroup, current_context

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from concurrent.futures import Future

    from homebound.testing import Stress

    InThread = Callable[..., Future[Any]]
    Run = Callable[..., Any]


class Sleeper:
    """A child that sleeps until it is cancelled, and records its thread."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.cancelled_in: str | None = None

    async def __call__(self) -> None:
        self.began.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.cancelled_in = threading.current_thread().name
            raise


def this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


def test_from_the_block(run: Run, io: IOThread):
    """The block ends at its next await, and its children too, and nothing is raised."""
    sleepers = [Sleeper(), Sleeper()]
    reached = []

    async def main() -> int:
        async with TaskGroup() as group:
            here = group.create_task(sleepers[0]())
            there = group.create_task(sleepers[1](), home=io.context)
            await asyncio.sleep(0)
            await asyncio.to_thread(sleepers[1].began.wait, 20)
            group.cancel()
            assert "cancelling" in repr(group)
            reached.append("the await")
            await asyncio.sleep(3600)
            reached.append("what follows")
        assert here.cancelled()
        assert there.cancelled()
        await asyncio.sleep(0)  # nothing is left of it
        return this_task().cancelling()

    assert run(main()) == 0
    assert reached == ["the await"]
    assert [each.cancelled_in for each in sleepers] == ["MainThread", "io"]


def test_from_a_child_and_again(run: Run):
    async def main() -> None:
        async with TaskGroup() as group:

            async def child() -> None:
                group.cancel()
                group.cancel()
                await asyncio.sleep(3600)

            task = group.create_task(child())
        assert task.cancelled()
        group.cancel()  # the group has ended: no-op
        assert this_task().cancelling() == 0
        await asyncio.sleep(0)

    run(main())


def test_before_the_block(run: Run):
    """The block is cancelled as it begins: what comes before its first await runs."""
    reached = []

    async def main() -> None:
        group = TaskGroup()
        group.cancel()
        async with group:
            reached.append("the await")
            await asyncio.sleep(3600)
            reached.append("what follows")

    run(main())
    assert reached == ["the await"]


def test_no_child_is_admitted(run: Run):
    async def main() -> None:
        async with TaskGroup() as group:
            group.create_task(asyncio.sleep(3600))
            group.cancel()
            coro = asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="is shutting down"):
                group.create_task(coro)
            coro.close()

    run(main())


def test_a_failure_is_raised_all_the_same(run: Run):
    async def main() -> list[str]:
        async def child() -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                raise ValueError

        with pytest.raises(ExceptionGroup) as raised:  # noqa: PT012  (at the end of the block)
            async with TaskGroup() as group:
                group.create_task(child())
                await asyncio.sleep(0)
                group.cancel()
        return [type(error).__name__ for error in raised.value.exceptions]

    assert run(main()) == ["ValueError"]


def test_a_cancellation_from_outside_is_not_lost(run: Run):
    """The cancellation comes while the group, being cancelled, waits for a child."""

    async def main() -> None:
        stubborn, let_go = asyncio.Event(), asyncio.Event()

        async def child() -> None:
            try:
                await asyncio.sleep(3600)
            finally:
                stubborn.set()
                await let_go.wait()

        async def block() -> None:
            async with TaskGroup() as group:
                group.create_task(child())
                await asyncio.sleep(0)
                group.cancel()

        task = asyncio.ensure_future(block())
        await stubborn.wait()
        task.cancel("from outside")
        let_go.set()
        with pytest.raises(asyncio.CancelledError, match="from outside"):
            await task

    run(main())


@pytest.mark.parametrize("home", ["the main thread", "an I/O thread"])
def test_from_a_plain_thread(home: str, in_thread: InThread, io: IOThread, io2: IOThread):
    """New children are refused at once; the cancellation wakes the parent's sleeping home."""
    sleeper = Sleeper()

    async def block() -> None:
        async with TaskGroup() as group:
            group.create_task(sleeper(), home=io2.context)

            def cancel() -> str:
                sleeper.began.wait(20)
                group.cancel()
                coro = asyncio.sleep(0)
                with pytest.raises(RuntimeError) as raised:
                    group.create_task(coro)
                coro.close()
                return str(raised.value)

            done = in_thread(cancel)
            await asyncio.sleep(3600)
        text = await asyncio.wrap_future(done)
        assert "is shutting down" in text or "is finished" in text
        assert this_task().cancelling() == 0

    async def main() -> None:
        if home == "an I/O thread":
            await homebound.move_to(io.context)
        await block()

    homebound.run(main())
    assert sleeper.cancelled_in == "io2"


def test_from_another_home_for_a_plain_asyncio_task(io: IOThread):
    async def main() -> int:
        async with TaskGroup() as group:

            async def far() -> None:
                group.cancel()
                await asyncio.sleep(3600)

            group.create_task(far(), home=io.context)
            await asyncio.sleep(3600)
        return this_task().cancelling()

    assert asyncio.run(main()) == 0


def test_from_another_thread_before_the_block(in_thread: InThread):
    async def main() -> None:
        group = TaskGroup()
        await asyncio.wrap_future(in_thread(group.cancel))
        async with group:
            await asyncio.sleep(3600)

    homebound.run(main())


def test_after_its_loop_has_ended(in_thread: InThread, io: IOThread):
    """The parent is gone, its children elsewhere are not: they are cancelled."""
    sleeper = Sleeper()
    groups: list[TaskGroup] = []
    loop = homebound.new_event_loop()

    async def block() -> None:
        async with TaskGroup() as group:
            groups.append(group)
            group.create_task(sleeper(), home=io.context)
            await asyncio.to_thread(sleeper.began.wait, 20)
            loop.stop()
            await asyncio.sleep(3600)

    def live() -> None:
        task = loop.create_task(block())
        loop.run_forever()
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
        assert isinstance(task.exception(), homebound.ContextClosed)

    in_thread(live).result(20)
    (child,) = groups[0]._tasks
    groups[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        homebound.block_on(child, timeout=20)
    assert sleeper.cancelled_in == "io"


@pytest.mark.stress
def test_a_parent_that_does_nothing_but_move(io: IOThread, io2: IOThread, stress: Stress):
    async def main() -> int:
        here = current_context()
        assert here is not None
        homes = [io.context, io2.context, here]
        stress.go()
        rounds = 0
        while rounds < 2 or not stress.over():
            async with TaskGroup() as group:

                async def cancel(group: TaskGroup = group) -> None:
                    await asyncio.sleep(0)
                    group.cancel()
                    await asyncio.sleep(3600)

                group.create_task(cancel(), home=homes[rounds % 3])
                while True:
                    for home in homes:
                        await homebound.move_to(home)
            assert this_task().cancelling() == 0
            rounds += 1
        return rounds

    assert homebound.run(main()) > 1


@pytest.mark.parametrize("alone", [True, False])
def test_generator_exit(alone: Any, run: Run):
    """Alone it is raised bare, so that an aclose() around the group catches it (3.15)."""

    async def fail() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            raise ValueError

    async def generate() -> AsyncGenerator[int, None]:
        async with TaskGroup() as group:
            if not alone:
                group.create_task(fail())
                await asyncio.sleep(0)
            yield 1

    async def main() -> None:
        generator = generate()
        assert await anext(generator) == 1
        if alone:
            await generator.aclose()
            return
        with pytest.raises(BaseExceptionGroup) as raised:
            await generator.aclose()
        assert {type(error) for error in raised.value.exceptions} == {ValueError, GeneratorExit}

    run(main())
