"""asyncio's call graphs show homebound's tasks, and which tasks await them, across homes."""

from __future__ import annotations

import asyncio
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound.testing import settle

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from homebound import IOThread

    Run = Callable[[Coroutine[Any, Any, Any]], Any]

pytestmark = pytest.mark.skipif(sys.version_info < (3, 14), reason="asyncio has no call graphs")


def graph(future: Any = None) -> list[str]:
    """Return the lines of format_call_graph, without identities, folders and line numbers."""
    text: str = asyncio.format_call_graph(future)  # type: ignore[attr-defined]
    for volatile, constant in ((r"id=0x\w+", "id"), (r"'/.*/", "'"), (r"line \d+", "line")):
        text = re.sub(volatile, constant, text)
    return text.splitlines()


def awaiters(future: Any) -> list[str]:
    return sorted(task.get_name() for task in future._asyncio_awaited_by or ())


async def suspended() -> None:
    await homebound.suspend()


async def awaits(future: Any) -> None:
    await future


async def end(task: homebound.Task[Any]) -> None:
    """End the wait in `suspended`, and check that nothing awaits the task any more."""
    task.wake()
    await asyncio.wait([task])
    await settle()
    assert awaiters(task) == []


def test_a_task_awaited_from_another_home(run: Run, io: IOThread, io2: IOThread):
    async def main() -> list[str]:
        task = io.spawn(suspended(), name="disk")
        reader = io2.spawn(awaits(task), name="reader")
        client = asyncio.create_task(awaits(reader), name="client")
        await asyncio.sleep(0)  # the client begins
        await settle(io.context, io2.context)
        lines = graph(task)
        await end(task)
        await client
        return lines

    assert run(main()) == [
        "* Task(name='disk', id)",
        "  + Call stack:",
        "  |   File 'traps.py', line, in async suspend()",
        "  |   File 'test_call_graph.py', line, in async suspended()",
        "  + Awaited by:",
        "    * Task(name='reader', id)",
        "      + Call stack:",
        "      |   File 'test_call_graph.py', line, in async awaits()",
        "      + Awaited by:",
        "        * Task(name='client', id)",
        "          + Call stack:",
        "          |   File 'test_call_graph.py', line, in async awaits()",
    ]


def test_the_running_task_inside_block_on():
    """The task that called block_on waits, in its first step and after."""
    graphs: list[list[str]] = []

    async def inside() -> None:
        graphs.append(graph())
        await asyncio.sleep(0)
        graphs.append(graph())

    async def outside() -> None:
        asyncio.current_task().set_name("outer")  # type: ignore[union-attr]
        homebound.block_on(homebound.Task(inside(), name="never begun before"))
        homebound.block_on(inside())

    homebound.run(outside())
    assert len(graphs) == 4
    for lines in graphs:
        assert lines[-4:-1] == [
            "  + Awaited by:",
            "    * Task(name='outer', id)",
            "      + Call stack:",
        ]
        assert lines[-1].endswith(
            "in async test_the_running_task_inside_block_on.<locals>.outside()"
        )
    assert all(
        "  |   File 'test_call_graph.py', line, in async"
        " test_the_running_task_inside_block_on.<locals>.inside()" in lines
        for lines in graphs
    )


@pytest.mark.parametrize("module", [homebound, asyncio])
def test_the_parent_of_a_task_group(run: Run, io: IOThread, module: Any):
    async def main() -> None:
        asyncio.current_task().set_name("parent")  # type: ignore[union-attr]
        async with module.TaskGroup() as group:
            here = group.create_task(awaits(asyncio.sleep(0)), name="here")
            assert awaiters(here) == ["parent"]
            if module is homebound:
                there = group.create_task(suspended(), home=io.context)
                await settle(io.context)
                assert awaiters(there) == ["parent"]
                await end(there)
        assert awaiters(here) == []

    run(main())


def test_a_future_and_a_task_of_asyncios_remember_our_tasks(io: IOThread):
    """On their own loop or another; they forget our tasks once done, even if kept."""

    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        stock: Any = asyncio.Task(awaits(future), name="asyncio's")
        tasks = [
            asyncio.create_task(awaits(stock), name="near"),
            io.spawn(awaits(stock), name="far"),
            asyncio.create_task(awaits(future), name="of the future"),
        ]
        await settle()
        assert awaiters(stock) == ["far", "near"]
        assert awaiters(future) == ["asyncio's", "of the future"]
        assert graph(future)[0] == "* Future(id)"
        future.set_result(None)
        await asyncio.wait(tasks)
        assert awaiters(stock) == awaiters(future) == []

    homebound.run(main())


def test_a_cancelled_task_awaits_nothing(io: IOThread):
    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        near = asyncio.create_task(awaits(future), name="near")
        far = io.spawn(awaits(future), name="far")
        await settle()
        assert awaiters(future) == ["far", "near"]
        far.cancel()
        await asyncio.wait([near, far])
        assert awaiters(future) == []

    homebound.run(main())


def test_a_task_of_a_foreign_loop(io: IOThread):
    """The foreign task awaits a future of its loop and a task of ours, and is awaited."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        context = homebound.AioContext.attach(loop)
        future = loop.create_future()
        guest = context.spawn(awaits(future), name="guest")
        stock = asyncio.create_task(awaits(guest), name="asyncio's")
        far = io.spawn(awaits(guest), name="far")
        while len(awaiters(guest)) < 2:
            await asyncio.sleep(0)
        assert awaiters(guest) == ["asyncio's", "far"]
        assert awaiters(future) == ["guest"]
        future.set_result(None)
        await asyncio.wait([stock, far])
        assert awaiters(future) == awaiters(guest) == []

    asyncio.run(main())
