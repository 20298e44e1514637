"""A forgotten `await` of ours warns as that of an `async def` does, at no cost to the others."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import pytest

import homebound
from homebound import IOThread, block_on

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS: dict[str, Callable[[IOThread], object]] = {
    "suspend": lambda _: homebound.suspend(),
    "move_to": homebound.move_to,
    "on": homebound.on,
    "to_worker": lambda _: homebound.to_worker(int),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_forgotten_await_warns(name: str, io: IOThread):
    with pytest.warns(RuntimeWarning, match=rf"{name}\b.* was never awaited") as caught:
        CALLS[name](io)
    assert caught[0].filename == __file__


def test_one_that_is_awaited_does_not(io: IOThread):
    async def main() -> None:
        async with homebound.on(io):
            pass
        await homebound.move_to(io)

    homebound.run(main())  # warnings are errors here


def test_an_on_that_was_refused_does_not():
    with pytest.raises(TypeError):
        homebound.on("io0")  # type: ignore[arg-type]


@pytest.mark.parametrize("function", [homebound.suspend, homebound.move_to])
def test_they_are_coroutines_of_one_frame(function: Any):
    """What our flag of the code gives, on each Python: a coroutine whose own frame yields."""
    assert inspect.iscoroutinefunction(function)
    assert str(inspect.signature(function)).endswith("-> 'None'")
    coro: Any = homebound.suspend()
    assert inspect.iscoroutine(coro)
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CREATED
    coro.send(None)
    assert inspect.getcoroutinestate(coro) == inspect.CORO_SUSPENDED
    assert coro.cr_await is None
    assert coro.cr_code.co_name == "suspend"
    coro.close()
    assert inspect.getcoroutinestate(coro) == inspect.CORO_CLOSED


def test_errors_leave_it_as_they_leave_a_coroutine():
    coro = homebound.suspend()
    coro.send(None)
    with pytest.raises(StopIteration):
        coro.send(None)
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        coro.send(None)
    coro = homebound.suspend()
    coro.send(None)
    with pytest.raises(asyncio.CancelledError):
        coro.throw(asyncio.CancelledError)


def test_it_may_be_all_of_a_task(io: IOThread):
    task = io.spawn(homebound.suspend())
    block_on(io.spawn(asyncio.sleep(0)))
    task.wake()
    assert block_on(task) is None
