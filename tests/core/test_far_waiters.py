"""asyncio's own tasks, on whatever loop, await ours."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import AioContext, IOThread, current_context

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    InThread = Callable[..., Future[Any]]
    StockLoop = Any  # conftest's


def here() -> AioContext:
    context = current_context()
    assert context is not None
    return context


def thread_name() -> str:
    return threading.current_thread().name


async def where() -> str:
    await asyncio.sleep(0)
    return thread_name()


async def fail() -> None:
    await asyncio.sleep(0)
    raise ValueError("far")


class Slow:
    """A coroutine that is cancelled only after some cleanup."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.trace: list[str] = []

    async def __call__(self) -> None:
        try:
            self.started.set()
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.trace.append("cleanup begins in " + thread_name())
            await asyncio.sleep(0.001)
            self.trace.append("cleanup ends")
            raise


def test_an_asyncio_task_awaits_ours(stock: StockLoop, io: IOThread):
    async def work() -> None:
        for _ in range(20):
            assert await io.spawn(where()) == "io"
            assert thread_name() == "stock"
        with pytest.raises(ValueError, match="far"):
            await io.spawn(fail())

    stock.call(work()).result(10)


def test_cancelling_the_asyncio_task_cancels_ours(stock: StockLoop, io: IOThread):
    slow = Slow()
    far = io.spawn(slow())

    async def wait() -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_later(0.001, task.cancel)
        await far

    assert slow.started.wait(10)
    with pytest.raises(CancelledError):
        stock.call(wait()).result(10)
    assert slow.trace == ["cleanup begins in io", "cleanup ends"]
    assert far.cancelled()


def test_an_asyncio_task_awaits_one_that_moves(stock: StockLoop, io: IOThread, io2: IOThread):
    async def work() -> str:
        for _ in range(10):
            await homebound.move_to(io2.context)
            await homebound.move_to(io.context)
        return thread_name()

    async def wait() -> str:
        return await io.spawn(work())  # type: ignore[no-any-return]

    assert stock.call(wait()).result(10) == "io"


def test_an_asyncio_task_on_our_loop_awaits_a_far_one(io: IOThread):
    async def wait() -> tuple[str, str]:
        return await io.spawn(where()), thread_name()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert await asyncio.Task(wait(), loop=loop) == ("io", "MainThread")

    homebound.run(main())
