"""asyncio's tools with tasks of several homes, on our loops and on foreign ones."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import IOThread

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., Any]


async def where(wait: float = 0) -> str:
    await asyncio.sleep(wait)
    return threading.current_thread().name


async def fail() -> None:
    await asyncio.sleep(0)
    raise ValueError("no")


async def forever() -> None:
    await asyncio.sleep(3600)


def test_gather(run: Run, io: IOThread, io2: IOThread):
    async def main() -> None:
        names = await asyncio.gather(where(), io.spawn(where()), io2.spawn(where()))
        assert names == ["MainThread", "io", "io2"]
        results = await asyncio.gather(io.spawn(fail()), io2.spawn(where()), return_exceptions=True)
        assert isinstance(results[0], ValueError)
        assert results[1] == "io2"
        with pytest.raises(ValueError, match="no"):
            await asyncio.gather(io.spawn(fail()), where())

    run(main())


def test_gather_cancelled(run: Run, io: IOThread, io2: IOThread):
    async def main() -> None:
        tasks = [io.spawn(forever()), io2.spawn(forever())]
        everything = asyncio.gather(*tasks)
        asyncio.get_running_loop().call_later(0.001, everything.cancel)
        with pytest.raises(asyncio.CancelledError):
            await everything
        await asyncio.wait(tasks)  # the first cancellation ended the gather
        assert all(task.cancelled() for task in tasks)

    run(main())


def test_wait(run: Run, io: IOThread, io2: IOThread):
    async def main() -> None:
        quick: homebound.Task[object] = io.spawn(where())
        slow: homebound.Task[object] = io2.spawn(forever())
        done, pending = await asyncio.wait([quick, slow], return_when=asyncio.FIRST_COMPLETED)
        assert (done, pending) == ({quick}, {slow})
        done, pending = await asyncio.wait([slow], timeout=0.001)
        assert (done, pending) == (set(), {slow})
        slow.cancel()
        done, pending = await asyncio.wait([quick, slow])
        assert (done, pending) == ({quick, slow}, set())

    run(main())


def test_as_completed(run: Run, io: IOThread, io2: IOThread):
    async def main() -> None:
        tasks = [io.spawn(where()), io2.spawn(where())]
        names = {await each for each in asyncio.as_completed(tasks)}
        assert names == {"io", "io2"}

    run(main())


def test_wait_for(run: Run, io: IOThread):
    async def main() -> None:
        assert await asyncio.wait_for(io.spawn(where()), 30) == "io"
        slow = io.spawn(forever())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(slow, 0.001)
        assert slow.cancelled()

    run(main())


def test_timeout(run: Run, io: IOThread):
    async def main() -> None:
        slow = io.spawn(forever())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await slow
        assert slow.cancelled()

    run(main())


def test_shield(run: Run, io: IOThread):
    async def main() -> None:
        go_on = threading.Event()

        async def work() -> str:
            await asyncio.to_thread(go_on.wait, 10)
            return "finished all the same"

        inner = io.spawn(work())

        async def wait() -> None:
            await asyncio.shield(inner)

        outer = asyncio.create_task(wait())
        await asyncio.sleep(0)
        outer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outer
        assert not inner.done()
        go_on.set()
        assert await inner == "finished all the same"

    run(main())


def test_task_group(run: Run, io: IOThread, io2: IOThread):
    async def wait(task: Any) -> str:
        result: str = await task
        return result

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(wait(each.spawn(where()))) for each in (io, io2)]
        assert [task.result() for task in tasks] == ["io", "io2"]

    run(main())


def test_task_group_with_a_failing_child(run: Run, io: IOThread, io2: IOThread):
    async def wait(task: Any) -> None:
        await task

    async def main() -> None:
        far = io.spawn(forever())
        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012
            async with asyncio.TaskGroup() as group:
                group.create_task(wait(far))
                group.create_task(wait(io2.spawn(fail())))
        assert caught.value.subgroup(ValueError)
        assert far.cancelled()

    run(main())


def test_task_group_cancels_children_that_have_moved(io: IOThread):
    async def main() -> None:
        arrived = threading.Event()
        names: list[str] = []

        async def child() -> None:
            await homebound.move_to(io.context)
            try:
                arrived.set()
                await forever()
            finally:
                names.append(threading.current_thread().name)

        with pytest.raises(ExceptionGroup):  # noqa: PT012
            async with asyncio.TaskGroup() as group:
                group.create_task(child())
                await homebound.to_worker(arrived.wait, 10)
                group.create_task(fail())
        assert names == ["io"]

    homebound.run(main())


def test_a_task_group_whose_parent_has_moved(io: IOThread):
    async def main() -> None:
        async with homebound.on(io.context):
            async with asyncio.TaskGroup() as group:
                task = group.create_task(where())
            assert task.result() == "io"

    homebound.run(main())


def test_asyncio_primitives_on_one_home(run: Run):
    async def main() -> None:
        lock, event, queue = asyncio.Lock(), asyncio.Event(), asyncio.Queue[int](1)
        order: list[Any] = []

        async def producer() -> None:
            for number in range(3):
                await queue.put(number)
            event.set()

        async def consumer() -> None:
            async with lock:
                for _ in range(3):
                    order.append(await queue.get())  # noqa: PERF401

        await asyncio.gather(producer(), consumer(), event.wait())
        async with lock:
            order.append("free")
        assert order == [0, 1, 2, "free"]

    run(main())


def test_to_thread_and_run_in_executor(run: Run):
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert await asyncio.to_thread(sum, [1, 2]) == 3
        assert await loop.run_in_executor(None, sum, [1, 2]) == 3

    run(main())


def test_run_coroutine_threadsafe(io: IOThread):
    assert asyncio.run_coroutine_threadsafe(where(), io.context.loop).result(10) == "io"
