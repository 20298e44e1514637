"""Exceptions reported as never retrieved: as with asyncio, none that a waiter was woken for."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import IOThread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Run = Callable[..., Any]

EVERY_STEP = range(6)  # of the loop, between the failure and the cancellation


def told_to(loop: asyncio.AbstractEventLoop) -> list[str]:
    told: list[str] = []
    loop.set_exception_handler(lambda _loop, about: told.append(about["message"]))
    return told


async def fail_later(future: asyncio.Future[None]) -> None:
    await future


async def wait_for(wrap: Callable[[Any], Awaitable[Any]], future: asyncio.Future[Any]) -> None:
    await wrap(future)


AWAITED: dict[str, Callable[[asyncio.Future[None]], Awaitable[Any]]] = {
    "future": lambda future: future,
    "task": lambda future: asyncio.create_task(fail_later(future)),
    "gather": asyncio.gather,
    "gather of tasks": lambda future: asyncio.gather(fail_later(future), fail_later(future)),
    "shield": asyncio.shield,
}


@pytest.mark.parametrize("steps", EVERY_STEP)
@pytest.mark.parametrize("kind", AWAITED)
def test_the_waiter_is_cancelled_before_it_resumes(kind: str, steps: int):
    """Reported as by asyncio; for an `asyncio.shield` that differs from Python to Python."""

    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        told = told_to(loop)
        future: asyncio.Future[None] = loop.create_future()
        task = asyncio.create_task(wait_for(AWAITED[kind], future))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        future.set_exception(ValueError("of a future"))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError, ValueError):
            await task
        del future, task
        gc.collect()
        return told

    assert homebound.run(main()) == asyncio.run(main())


@pytest.mark.parametrize("steps", EVERY_STEP)
def test_the_waiter_is_of_another_home(io: IOThread, steps: int):
    """The failure of a future at one home and the cancellation at another cross on their way."""

    async def main() -> list[str]:
        told = told_to(io.context.loop)
        mine = told_to(asyncio.get_running_loop())

        async def far() -> tuple[asyncio.Future[None], asyncio.Future[Any]]:
            future = asyncio.get_running_loop().create_future()
            return future, asyncio.gather(future)

        future, gathered = await io.spawn(far())
        task = asyncio.create_task(wait_for(lambda it: it, gathered))
        await asyncio.sleep(0)
        io.context.call_soon(future.set_exception, ValueError("of a future"))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError, ValueError):
            await task
        await io.spawn(asyncio.sleep(0))
        del future, gathered, task
        gc.collect()
        await io.spawn(asyncio.sleep(0))
        return told + mine

    assert homebound.run(main()) == []


def test_a_failure_without_a_waiter_is_reported(run: Run):
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        told = told_to(loop)
        loop.create_future().set_exception(ValueError("of a future"))
        gc.collect()
        return told

    assert run(main()) == ["Future exception was never retrieved"]
