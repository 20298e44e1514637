"""TaskGroup: asyncio's rules, with children and parents at home anywhere."""

# ruff: noqa: PT012 - a group raises at the end of its block, not in one call

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import ContextClosed, IOThread, TaskGroup, block_on, current_context

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from homebound.testing import Stress

    InThread = Callable[..., Future[Any]]

SUITE = Path(__file__).parents[2] / "scripts" / "taskgroup_suite"


def test_cpythons_own_tests():
    pytest.importorskip("test.test_asyncio.test_taskgroups")
    done = subprocess.run(
        [sys.executable, SUITE], capture_output=True, text=True, timeout=55, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def name() -> str:
    return threading.current_thread().name


async def where() -> str:
    await asyncio.sleep(0)
    return name()


class Sleeper:
    """A child that sleeps until it is cancelled, and records its thread."""

    def __init__(self) -> None:
        self.cancelled_in: str | None = None

    async def __call__(self, begun: Callable[[], object]) -> None:
        begun()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            self.cancelled_in = name()
            raise


async def fail(error: BaseException) -> None:
    raise error


def test_children_here_and_there(io: IOThread, io2: IOThread):
    async def main() -> list[str]:
        async with TaskGroup() as group:
            tasks = [
                group.create_task(where()),
                group.create_task(where(), home=io.context, name="there"),
                group.create_task(where(), home=io2.context),
            ]
        assert tasks[1].get_name() == "there"
        assert all(task.done() for task in tasks)
        return [task.result() for task in tasks]

    assert homebound.run(main()) == ["MainThread", "io", "io2"]


def test_a_failure_there_cancels_all_children(io: IOThread, io2: IOThread):
    sleepers = [Sleeper(), Sleeper()]

    async def main() -> None:
        block = asyncio.current_task()
        assert block is not None
        begun: asyncio.Queue[None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell() -> None:
            loop.call_soon_threadsafe(begun.put_nowait, None)

        with pytest.raises(ExceptionGroup) as raised:
            async with TaskGroup() as group:
                group.create_task(sleepers[0](tell))
                group.create_task(sleepers[1](tell), home=io2.context)
                await begun.get()
                await begun.get()
                group.create_task(fail(ValueError("there")), home=io.context)
                await asyncio.sleep(3600)
        assert [repr(error) for error in raised.value.exceptions] == ["ValueError('there')"]
        assert block.cancelling() == 0

    homebound.run(main())
    assert [each.cancelled_in for each in sleepers] == ["MainThread", "io2"]


def test_failures_in_every_home_are_gathered(io: IOThread, io2: IOThread):
    gathered = threading.Barrier(2)

    async def fail_together(error: Exception) -> None:
        gathered.wait(20)
        raise error

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as raised:
            async with TaskGroup() as group:
                group.create_task(fail_together(ValueError()), home=io.context)
                group.create_task(fail_together(KeyError()), home=io2.context)
        assert {type(error) for error in raised.value.exceptions} == {ValueError, KeyError}

    homebound.run(main())


def test_cancelling_the_parent_cancels_the_far_child(io: IOThread):
    sleeper = Sleeper()
    task: Any = None

    async def block() -> None:
        async with TaskGroup() as group:
            group.create_task(sleeper(task.cancel), home=io.context)

    async def main() -> None:
        nonlocal task
        task = asyncio.ensure_future(block())
        with pytest.raises(asyncio.CancelledError):
            await task

    homebound.run(main())
    assert sleeper.cancelled_in == "io"


def test_a_cancellation_from_outside_outlives_a_failure(io: IOThread):
    task: Any = None

    async def block() -> None:
        with pytest.raises(ExceptionGroup):
            async with TaskGroup() as group:
                group.create_task(clumsy(), home=io.context)
        await asyncio.sleep(3600)

    async def clumsy() -> None:
        task.cancel()
        try:
            await asyncio.sleep(3600)
        finally:
            raise ValueError

    async def main() -> None:
        nonlocal task
        task = asyncio.ensure_future(block())
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 20)

    homebound.run(main())


def test_the_parent_moves(io: IOThread, io2: IOThread):
    """Its children end before, during and after; the parent is notified wherever it is."""

    async def main() -> str:
        here = current_context()
        assert here is not None
        async with TaskGroup() as group:
            first = group.create_task(where(), home=io2.context)
            await homebound.move_to(io.context)
            second = group.create_task(where())
            await homebound.move_to(io2.context)
            third = group.create_task(where(), home=here)
        assert [first.result(), second.result(), third.result()] == ["io2", "io", "MainThread"]
        return name()

    assert homebound.run(main()) == "io2"


def test_a_child_that_moves_fails_elsewhere(io: IOThread, io2: IOThread):
    async def child() -> None:
        await homebound.move_to(io2.context)
        raise ValueError(name())

    async def main() -> None:
        await homebound.move_to(io.context)
        with pytest.raises(ExceptionGroup) as raised:
            async with TaskGroup() as group:
                group.create_task(child())
                await asyncio.sleep(3600)
        assert str(raised.value.exceptions[0]) == "io2"
        assert name() == "io"

    homebound.run(main())


@pytest.mark.stress
def test_moving_while_children_end(io: IOThread, io2: IOThread, stress: Stress):
    """Entries of children that end meanwhile follow the parent."""

    async def main() -> int:
        here = current_context()
        assert here is not None
        homes = [io.context, io2.context, here]
        stress.go()
        rounds = 0
        while rounds < 2 or not stress.over():  # at least two, however long they take
            async with TaskGroup() as group:
                for turn in range(6):
                    group.create_task(asyncio.sleep(0), home=homes[turn % 3])
                    await homebound.move_to(homes[(turn + rounds) % 3])
            with pytest.raises(ExceptionGroup):
                async with TaskGroup() as group:
                    group.create_task(fail(ValueError()), home=homes[rounds % 3])
                    group.create_task(asyncio.sleep(3600), home=homes[(rounds + 1) % 3])
                    while True:
                        for home in homes:
                            await homebound.move_to(home)
                            await asyncio.sleep(0)
            rounds += 1
        return rounds

    assert homebound.run(main()) > 1


def test_a_far_child_makes_another(io: IOThread):
    names = []

    async def main() -> None:
        async def child() -> None:
            await asyncio.sleep(0)
            group.create_task(grandchild())

        async def grandchild() -> None:
            names.append(await where())

        async with TaskGroup() as group:
            group.create_task(child(), home=io.context)

    homebound.run(main())
    assert names == ["io"]


def test_a_child_made_in_a_thread(in_thread: InThread, io: IOThread):
    """Without a home to be in, the child is at its parent's; a worker may name another."""

    async def main() -> None:
        async with TaskGroup() as group:
            made = await asyncio.to_thread(group.create_task, where())
            far = await asyncio.to_thread(lambda: group.create_task(where(), home=io.context))
        assert (made.result(), far.result()) == ("MainThread", "io")
        coro = where()
        with pytest.raises(RuntimeError, match="is finished"):
            in_thread(group.create_task, coro).result(20)
        coro.close()

    homebound.run(main())


def test_a_home_that_has_ended(io: IOThread):
    with IOThread("gone") as gone:
        pass

    async def main() -> None:
        async with TaskGroup() as group:
            with pytest.raises(ContextClosed):
                group.create_task(where(), home=gone.context)
            child = group.create_task(where(), home=io.context)
        assert child.result() == "io"

    homebound.run(main())


def test_a_home_that_ends_with_a_child(in_thread: InThread):
    """The I/O thread stops: a child cancelled by that is no failure, and the group ends."""
    gone = IOThread("gone")
    gone.start()

    async def main() -> asyncio.Future[Any]:
        async with TaskGroup() as group:
            child = group.create_task(Sleeper()(lambda: in_thread(gone.stop)), home=gone.context)
        return child  # noqa: RET504  (it is done by now)

    assert homebound.run(main()).cancelled()


def test_a_loop_that_is_closed_under_a_child(in_thread: InThread):
    """The child, which nothing awaited, has failed with ContextClosed; the group raises it."""
    loop = homebound.new_event_loop()
    home = homebound.AioContext.attach(loop)

    def live() -> None:
        loop.run_forever()
        loop.close()

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as raised:
            async with TaskGroup() as group:
                group.create_task(Sleeper()(loop.stop), home=home)
                in_thread(live)
                await asyncio.sleep(3600)
        assert [type(error) for error in raised.value.exceptions] == [ContextClosed]

    homebound.run(main())


def test_a_base_error_there(io: IOThread):
    """As in asyncio, it is raised bare."""

    async def main() -> None:
        async with TaskGroup() as group:
            group.create_task(moved(), home=io.context)
            await asyncio.sleep(3600)

    async def moved() -> None:
        await homebound.move_to(here[0])
        raise SystemExit(3)

    async def start() -> None:
        context = current_context()
        assert context is not None
        here.append(context)
        await main()

    here: list[homebound.AioContext] = []
    with pytest.raises(SystemExit):
        homebound.run(start())


def test_in_a_plain_asyncio_task(io: IOThread):
    async def main() -> None:
        async with TaskGroup() as group:
            here = group.create_task(where())
            there = group.create_task(where(), home=io.context)
        assert (here.result(), there.result()) == ("MainThread", "io")
        with pytest.raises(ExceptionGroup):
            async with TaskGroup() as group:
                group.create_task(fail(ValueError()), home=io.context)
                await asyncio.sleep(3600)

    asyncio.run(main())


def test_block_on_inside(io: IOThread):
    """The block waits synchronously while a child fails: it is interrupted as in an await."""

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as raised:
            async with TaskGroup() as group:
                group.create_task(fail(ValueError()), home=io.context)
                with pytest.raises(asyncio.CancelledError):
                    block_on(asyncio.sleep(3600))
                await asyncio.sleep(0)
        assert type(raised.value.exceptions[0]) is ValueError

    homebound.run(main())


def test_repr(io: IOThread):
    async def main() -> None:
        group = TaskGroup()
        assert repr(group) == "<TaskGroup>"
        async with group:
            group.create_task(where(), home=io.context)
            assert repr(group) == "<TaskGroup tasks=1 entered>"

    homebound.run(main())
